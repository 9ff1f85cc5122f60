package testvm

import (
	"image"
	"image/png"
	"os"
	"strings"
	"testing"
)

// leastShare is how much of a screen with a page of text is not black: one pixel in so many.
const leastShare = 400

// WantPicture fails the test when a screenshot is missing, or shows nothing.
func WantPicture(t testing.TB, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Errorf("there is no screenshot: %v", err)
		return
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		t.Errorf("read the screenshot: %v", err)
		return
	}
	if size := picture.Bounds(); lit(picture) < size.Dx()*size.Dy()/leastShare {
		t.Errorf("%s is as good as black", file)
	}
}

// WantText fails the test when a line of the serial port lacks a text.
func WantText(t testing.TB, line, text string) {
	t.Helper()
	if !strings.Contains(line, text) {
		t.Errorf("%q lacks %q", line, text)
	}
}

// lit counts the pixels that are not dark.
func lit(picture image.Image) (n int) {
	const dark = 0x4000
	size := picture.Bounds()
	for y := size.Min.Y; y < size.Max.Y; y++ {
		for x := size.Min.X; x < size.Max.X; x++ {
			if r, g, b, _ := picture.At(x, y).RGBA(); r > dark || g > dark || b > dark {
				n++
			}
		}
	}
	return n
}
