package crashscreen

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From include/uapi/linux/fb.h and include/uapi/linux/kd.h.
const (
	fbGetVariable = 0x4600
	fbGetFixed    = 0x4602
	kdSetMode     = 0x4b3a
	kdText        = 0
	kdGraphics    = 1
)

// bitfield is struct fb_bitfield.
type bitfield struct{ offset, length, right uint32 }

// variableInfo is the beginning of struct fb_var_screeninfo, which has 160 bytes.
type variableInfo struct {
	xres, yres, xresVirtual, yresVirtual, xoffset, yoffset uint32
	bits, grayscale                                        uint32
	red, green, blue, alpha                                bitfield
	_                                                      [160 - 4*8 - 12*4]byte
}

// fixedInfo is struct fb_fix_screeninfo of a 64-bit kernel.
type fixedInfo struct {
	_          [16]byte // id
	_          uint64   // smem_start
	_          uint32   // smem_len
	_          [3]uint32
	_          [3]uint16 // panning steps
	_          uint16    // padding
	lineLength uint32
	_          [28]byte
}

// Framebuffer is a screen that is written to through its device, whatever is behind it: efifb, simpledrm and every
// other kernel module for screens offers one. It is not safe for concurrent use.
type Framebuffer struct {
	file   *os.File
	pixels Pixels
	last   *image.Gray
}

// OpenFramebuffer opens a device such as /dev/fb0 and asks the kernel for its format.
func OpenFramebuffer(path string) (*Framebuffer, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open framebuffer: %w", err)
	}
	pixels, err := askPixels(file)
	if err == nil {
		err = pixels.check()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Framebuffer{file: file, pixels: pixels}, nil
}

func askPixels(file *os.File) (Pixels, error) {
	var v variableInfo
	var f fixedInfo
	if err := ioctl(file, fbGetVariable, unsafe.Pointer(&v)); err != nil {
		return Pixels{}, fmt.Errorf("ask for the screen's format: %w", err)
	}
	if err := ioctl(file, fbGetFixed, unsafe.Pointer(&f)); err != nil {
		return Pixels{}, fmt.Errorf("ask for the screen's lines: %w", err)
	}
	field := func(b bitfield) Field {
		return Field{Offset: uint8(min(b.offset, 255)), Length: uint8(min(b.length, 255))}
	}
	return Pixels{
		Width: int(v.xres), Height: int(v.yres), Stride: int(f.lineLength), Bits: int(v.bits),
		Red: field(v.red), Green: field(v.green), Blue: field(v.blue),
	}, nil
}

func ioctl(file *os.File, request uintptr, argument unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request, uintptr(argument))
	if errno != 0 {
		return errno
	}
	return nil
}

// Size is the screen's, in pixels: what to give to Renderer.Image.
func (f *Framebuffer) Size() (width, height int) { return f.pixels.Width, f.pixels.Height }

// Show writes an image to the screen, as far as it differs from the one shown last.
func (f *Framebuffer) Show(img *image.Gray) error {
	line := make([]byte, f.pixels.Stride)
	for y := range f.pixels.Height {
		if f.last != nil && sameRow(f.last, img, y) {
			continue
		}
		f.pixels.Encode(line, img, y)
		if _, err := f.file.WriteAt(line, int64(y)*int64(f.pixels.Stride)); err != nil {
			f.last = nil
			return fmt.Errorf("write to the screen: %w", err)
		}
	}
	f.last = img
	return nil
}

// sameRow reports whether a line of two images is equal.
func sameRow(a, b *image.Gray, y int) bool {
	if a.Rect != b.Rect || y >= a.Rect.Dy() {
		return false
	}
	return bytes.Equal(a.Pix[y*a.Stride:][:a.Rect.Dx()], b.Pix[y*b.Stride:][:b.Rect.Dx()])
}

// Forget makes the next Show write everything, for when something else has written to the screen.
func (f *Framebuffer) Forget() { f.last = nil }

// Close leaves what is on the screen there.
func (f *Framebuffer) Close() error { return f.file.Close() }

// KeepConsoleOff stops the kernel's text console, such as /dev/tty0, from drawing over the framebuffer, until restore
// is called. Without a console there is nothing to stop.
func KeepConsoleOff(tty string) (restore func() error, err error) {
	file, err := os.OpenFile(tty, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open console: %w", err)
	}
	if err := unix.IoctlSetInt(int(file.Fd()), kdSetMode, kdGraphics); err != nil {
		return nil, errors.Join(fmt.Errorf("set console to graphics: %w", err), file.Close())
	}
	return func() error {
		defer file.Close()
		if err := unix.IoctlSetInt(int(file.Fd()), kdSetMode, kdText); err != nil {
			return fmt.Errorf("set console to text: %w", err)
		}
		return nil
	}, nil
}
