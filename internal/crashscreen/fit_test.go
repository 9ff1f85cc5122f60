package crashscreen

import (
	"errors"
	"image"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/crash"
)

// drawRecord makes any record.
func drawRecord(t *rapid.T) crash.Record {
	text := rapid.OneOf(rapid.StringN(0, 60, 200), rapid.StringMatching(`[A-Za-z ]{0,80}`),
		rapid.StringMatching(`[a-z]{0,300}`))
	product := func(name string) crash.Product {
		return crash.Product{ID: "id", Name: text.Draw(t, name), Engine: text.Draw(t, "engine"), Content: text.Draw(t,
			"content")}
	}
	starting := product("starting")
	r := crash.Record{
		Code: "2FB4-12B9", Attempts: rapid.IntRange(0, 12).Draw(t, "attempts"), Starting: &starting, Cause: text.Draw(t,
			"cause"),
		Address: rapid.StringMatching(`(https://[a-z.]{1,60}/r/2FB4-12B9)?`).Draw(t, "address"),
		Suspect: &crash.Suspect{Product: product("suspect"), Reason: text.Draw(t, "reason")},
		Test:    rapid.Bool().Draw(t, "test"),
	}
	progress := []crash.Progress{crash.Waiting, crash.Running, crash.Done, crash.Failed, crash.Skipped}
	for range rapid.IntRange(0, 16).Draw(t, "steps") {
		r.Steps = append(r.Steps, crash.Step{
			Progress: rapid.SampledFrom(progress).Draw(t, "progress"), Text: text.Draw(t, "step"), Detail: text.Draw(t,
				"detail"),
		})
	}
	for range rapid.IntRange(0, 8).Draw(t, "choices") {
		r.Choices = append(r.Choices, crash.Key{Name: "Enter", Text: text.Draw(t, "choice")})
	}
	return r
}

// TestEveryScreen: any record on any screen has its title, code, files and keys; nothing lies outside or on another.
func TestEveryScreen(t *testing.T) {
	t.Parallel()
	renderer, err := New()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		record := drawRecord(t)
		size := rapid.SampledFrom([]image.Point{
			{320, 200}, {640, 480}, {800, 600}, {1024, 768}, {1280, 800}, {1920, 1080}, {768, 1366}, {3440, 1440}, {3840, 2160},
		}).Draw(t, "size")
		s := renderer.fit(&record, Main, size.X, size.Y)
		var all []string
		for i := range s.rows {
			w := &s.rows[i]
			all = append(all, w.text)
			if w.y > size.Y || w.y < 0 || w.x < 0 || w.x+measure(w.face)(w.text) > size.X {
				t.Fatalf("%q at %d, %d is outside of %v", w.text, w.x, w.y, size)
			}
			if i > 0 && w.y == s.rows[i-1].y && w.x < s.rows[i-1].x && w.text != "]" {
				t.Fatalf("%q lies on %q", w.text, s.rows[i-1].text)
			}
			if s.code == nil || w.text == "" {
				continue
			}
			glyphs := image.Rect(w.x, w.y-s.body/2, w.x+measure(w.face)(w.text), w.y)
			code := image.Rectangle{s.codeAt, s.codeAt.Add(image.Pt(s.code.size(), s.code.size()))}
			if glyphs.Overlaps(code) {
				t.Fatalf("%q lies on the square code", w.text)
			}
		}
		page := strings.Join(all, " ")
		for _, want := range []string{
			"This machine", "Report 2FB4-12B9", "Your files have not been changed.", "F2", "F8",
			"F10",
		} {
			if !strings.Contains(page, want) {
				t.Fatalf("on a screen of %v %q is missing:\n%s", size, want, page)
			}
		}
		for i := range s.rows[1:] {
			a, b := &s.rows[i], &s.rows[i+1]
			if b.y > a.y && b.x == a.x && b.y-a.y < s.body*2/3 {
				t.Fatalf("%q at %d lies on %q at %d", b.text, b.y, a.text, a.y)
			}
		}
		for _, columns := range []int{40, 80, 132} {
			text := strings.Join(Text(&record, Main, columns, 25), "\n")
			for _, want := range []string{"This machine", "Report 2FB4-12B9", "Your files have not been changed.", "F2", "F10"} {
				if !strings.Contains(text, want) {
					t.Fatalf("on %d columns %q is missing:\n%s", columns, want, text)
				}
			}
		}
	})
}

// TestReadable: usual records are drawn in type that can be read from two metres.
func TestReadable(t *testing.T) {
	t.Parallel()
	renderer, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for name, record := range stories() {
		for _, size := range []image.Point{{640, 480}, {1280, 800}, {1920, 1080}, {3840, 2160}} {
			s := renderer.fit(&record, Main, size.X, size.Y)
			if least := size.Y / bodyMiddle; name != "long" && s.body < least {
				t.Errorf("%s at %v: type of %d pixels, want %d", name, size, s.body, least)
			}
		}
	}
}

// formats are what kernels have: efifb, simpledrm and virtual cards, old cards, and a byte order of their own.
func formats() map[string]Pixels {
	return map[string]Pixels{
		"xrgb8888": {Bits: 32, Red: Field{16, 8}, Green: Field{8, 8}, Blue: Field{0, 8}},
		"xbgr8888": {Bits: 32, Red: Field{0, 8}, Green: Field{8, 8}, Blue: Field{16, 8}},
		"rgb888":   {Bits: 24, Red: Field{16, 8}, Green: Field{8, 8}, Blue: Field{0, 8}},
		"rgb565":   {Bits: 16, Red: Field{11, 5}, Green: Field{5, 6}, Blue: Field{0, 5}},
		"xrgb1555": {Bits: 15, Red: Field{10, 5}, Green: Field{5, 5}, Blue: Field{0, 5}},
		"30 bits":  {Bits: 32, Red: Field{20, 10}, Green: Field{10, 10}, Blue: Field{0, 10}},
		"grey":     {Bits: 8},
	}
}

func TestPixels(t *testing.T) {
	t.Parallel()
	img := image.NewGray(image.Rect(0, 0, 4, 1))
	copy(img.Pix, []byte{0x00, 0xff, 0xa8, 0xff})
	want := map[string]string{
		"xrgb8888": "00000000ffffff00a8a8a800ffffff00", "xbgr8888": "00000000ffffff00a8a8a800ffffff00",
		"rgb888": "000000ffffffa8a8a8ffffff", "rgb565": "0000ffff55adffff", "xrgb1555": "0000ff7fb556ff7f",
		"30 bits": "00000000ffffff3fa28a2a2affffff3f", "grey": "00ffa8ff",
	}
	for name, p := range formats() {
		p.Width, p.Height = 6, 2
		p.Stride = p.Width*((p.Bits+7)/8) + 3
		if err := p.check(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		line := make([]byte, p.Stride)
		for i := range line {
			line[i] = 0x55 // what was there before
		}
		p.Encode(line, img, 0)
		bytes := (p.Bits + 7) / 8
		got := line[:4*bytes]
		if hexOf(got) != want[name] || hexOf(line[4*bytes:]) != strings.Repeat("00", p.Stride-4*bytes) {
			t.Errorf("%s: %s, rest %s", name, hexOf(got), hexOf(line[4*bytes:]))
		}
		if p.Encode(line, img, 1); hexOf(line) != strings.Repeat("00", p.Stride) {
			t.Errorf("%s: below the picture it is not black", name)
		}
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for _, c := range b {
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}

// TestUnknownPixels: what a kernel says is checked before anything is written.
func TestUnknownPixels(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Pixels){
		"bits": func(p *Pixels) { p.Bits = 4 }, "no pixels": func(p *Pixels) { p.Width = 0 },
		"stride":        func(p *Pixels) { p.Stride = 100 },
		"endless":       func(p *Pixels) { p.Width, p.Stride = 1<<30, 1<<32 },
		"no red":        func(p *Pixels) { p.Red.Length = 0 },
		"red too far":   func(p *Pixels) { p.Red.Offset = 30 },
		"green too big": func(p *Pixels) { p.Green.Length = 40 },
	} {
		p := formats()["xrgb8888"]
		p.Width, p.Height, p.Stride = 640, 480, 2560
		change(&p)
		if err := p.check(); !errors.Is(err, errFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
