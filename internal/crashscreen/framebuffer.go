package crashscreen

import (
	"errors"
	"fmt"
	"image"
)

// Field is where a colour is in a pixel: the kernel's struct fb_bitfield.
type Field struct {
	Offset, Length uint8 // bits, counted from the lowest of the little-endian pixel
}

// Pixels is the format of a framebuffer: what fb_var_screeninfo and fb_fix_screeninfo say of it.
type Pixels struct {
	Width, Height    int
	Stride           int // bytes from one line to the next
	Bits             int // of a pixel: 8, 15, 16, 24 or 32
	Red, Green, Blue Field
}

// errFormat is a pixel format that nothing can be drawn in.
var errFormat = errors.New("the framebuffer has a pixel format that is not known")

// check refuses what Encode would write beyond its line or wrongly.
func (p *Pixels) check() error {
	bytes := (p.Bits + 7) / 8
	switch p.Bits {
	case 8, 15, 16, 24, 32:
	default:
		return fmt.Errorf("%w: %d bits a pixel", errFormat, p.Bits)
	}
	if p.Width < 1 || p.Width > maxWidth || p.Height < 1 || p.Height > maxHeight || p.Stride < p.Width*bytes ||
		p.Stride > 64*maxWidth {
		return fmt.Errorf("%w: %d×%d pixels, %d bytes a line", errFormat, p.Width, p.Height, p.Stride)
	}
	for _, f := range []Field{p.Red, p.Green, p.Blue} {
		if p.Bits > 8 && (f.Length == 0 || int(f.Offset)+int(f.Length) > p.Bits || f.Length > 16) {
			return fmt.Errorf("%w: a colour has bits %d to %d of %d", errFormat, f.Offset, f.Offset+f.Length, p.Bits)
		}
	}
	return nil
}

// Encode writes line y of an image in the framebuffer's format to dst, which must hold Stride bytes; what the image
// does not cover is black. With 8 bits a pixel the shade itself is written, which is right for grey scales and
// palettes of them.
func (p *Pixels) Encode(dst []byte, img *image.Gray, y int) {
	clear(dst)
	if y < 0 || y >= img.Rect.Dy() {
		return
	}
	line := img.Pix[y*img.Stride:][:min(img.Rect.Dx(), p.Width)]
	size := (p.Bits + 7) / 8
	var known [256]uint32
	for i := range known {
		known[i] = p.pixel(uint8(i))
	}
	for x, shade := range line {
		v := known[shade]
		at := dst[x*size:][:size]
		for i := range at {
			at[i] = byte(v >> (8 * i))
		}
	}
}

// pixel is a shade of grey in the framebuffer's format.
func (p *Pixels) pixel(shade uint8) uint32 {
	if p.Bits == 8 {
		return uint32(shade)
	}
	var v uint32
	for _, f := range []Field{p.Red, p.Green, p.Blue} {
		wide := uint32(shade) * 0x0101 // 16 bits of the same shade
		v |= wide >> (16 - f.Length) << f.Offset
	}
	return v
}
