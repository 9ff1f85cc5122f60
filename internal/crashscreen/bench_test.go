package crashscreen

import "testing"

// BenchmarkImage draws the first screen of a recovery environment, typefaces included, and the change of one step
// after it.
func BenchmarkImage(b *testing.B) {
	record := stories()["looking"]
	for _, size := range []struct {
		name          string
		width, height int
	}{{"1280x800", 1280, 800}, {"3840x2160", 3840, 2160}} {
		b.Run("first/"+size.name, func(b *testing.B) {
			for b.Loop() {
				r, err := New()
				if err != nil {
					b.Fatal(err)
				}
				r.Image(&record, Main, size.width, size.height)
			}
		})
		b.Run("again/"+size.name, func(b *testing.B) {
			r, err := New()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				r.Image(&record, Main, size.width, size.height)
			}
		})
	}
}
