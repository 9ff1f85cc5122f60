package crashscreen

import (
	"image"

	"golang.org/x/image/font"
	"golang.org/x/image/math/fixed"
	"rsc.io/qr"
)

// row is one line of text at its place; y is the baseline.
type row struct {
	x, y  int
	text  string
	face  font.Face
	shade uint8
	cap   image.Rectangle // the outline of a key around it, where it has one
}

// draw blends a row into the image. It does so by itself because image/draw takes a slow way for grey images, which
// shows on a machine without a fast processor.
func (w *row) draw(img *image.Gray) {
	if w.cap.Dy() > 0 {
		outline(img, w.cap, max(w.cap.Dy()/20, 1))
	}
	at := fixed.P(w.x, w.y)
	previous := rune(-1)
	for _, c := range w.text {
		if previous >= 0 {
			at.X += w.face.Kern(previous, c)
		}
		rect, mask, from, advance, ok := w.face.Glyph(at, c)
		previous = c
		if !ok {
			continue
		}
		if alpha, isAlpha := mask.(*image.Alpha); isAlpha {
			blend(img, rect, alpha, from, w.shade)
		}
		at.X += advance
	}
}

// blend puts a glyph's coverage onto the image in a shade.
func blend(img *image.Gray, rect image.Rectangle, mask *image.Alpha, from image.Point, shade uint8) {
	inside := rect.Intersect(img.Rect)
	for y := inside.Min.Y; y < inside.Max.Y; y++ {
		to := img.Pix[img.PixOffset(inside.Min.X, y):]
		cover := mask.Pix[mask.PixOffset(from.X+inside.Min.X-rect.Min.X, from.Y+y-rect.Min.Y):]
		for x := range inside.Dx() {
			a := uint32(cover[x])
			to[x] = uint8((uint32(to[x])*(255-a) + uint32(shade)*a + 127) / 255)
		}
	}
}

// fill paints a rectangle.
func fill(img *image.Gray, rect image.Rectangle, shade uint8) {
	rect = rect.Intersect(img.Rect)
	for y := rect.Min.Y; y < rect.Max.Y; y++ {
		line := img.Pix[img.PixOffset(rect.Min.X, y):][:rect.Dx()]
		for x := range line {
			line[x] = shade
		}
	}
}

// outline draws the frame of a key, its corners left out.
func outline(img *image.Gray, r image.Rectangle, width int) {
	fill(img, image.Rect(r.Min.X+width, r.Min.Y, r.Max.X-width, r.Min.Y+width), shadeFaint)
	fill(img, image.Rect(r.Min.X+width, r.Max.Y-width, r.Max.X-width, r.Max.Y), shadeFaint)
	fill(img, image.Rect(r.Min.X, r.Min.Y+width, r.Min.X+width, r.Max.Y-width), shadeFaint)
	fill(img, image.Rect(r.Max.X-width, r.Min.Y+width, r.Max.X, r.Max.Y-width), shadeFaint)
}

// quiet is the width of the light border that ISO/IEC 18004 demands around a code, in modules.
const quiet = 4

// square is a QR code at its place.
type square struct {
	code  *qr.Code
	scale int // pixels of a module
}

// newSquare encodes a text for a code of about so many pixels. It is nil where there is no text or it is too long.
func newSquare(text string, pixels int) *square {
	if text == "" {
		return nil
	}
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return nil
	}
	return &square{code: code, scale: max(pixels/(code.Size+2*quiet), 2)}
}

func (s *square) size() int { return (s.code.Size + 2*quiet) * s.scale }

// draw paints the code dark on light, as telephones expect it.
func (s *square) draw(img *image.Gray, at image.Point) {
	fill(img, image.Rectangle{at, at.Add(image.Pt(s.size(), s.size()))}, shadeWhite)
	for y := range s.code.Size {
		for x := range s.code.Size {
			if s.code.Black(x, y) {
				p := at.Add(image.Pt((x+quiet)*s.scale, (y+quiet)*s.scale))
				fill(img, image.Rectangle{p, p.Add(image.Pt(s.scale, s.scale))}, 0)
			}
		}
	}
}
