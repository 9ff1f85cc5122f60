// Package uki puts a unified kernel image together: systemd's stub with a kernel, its archive and its command line as
// further sections (UAPI.5), so that one signature covers all of it.
//
// It guarantees: the stub's own bytes stay but for the header fields that count sections; the same input gives the same
// bytes; whatever is given as a stub, the result is a well-formed image or an error; a stub that is signed already is
// refused, because its signature would be wrong.
package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Sections that the stub looks for.
const (
	OSRelease = ".osrel"   // what the image is, in the format of os-release
	Cmdline   = ".cmdline" // for the kernel
	Uname     = ".uname"   // the kernel's release
	Initrd    = ".initrd"
	Linux     = ".linux"
)

// Section is one part of an image.
type Section struct {
	Name string // at most 8 bytes
	Data []byte
}

// Offsets in the headers of a PE32+ image (Microsoft's PE format, "Optional Header").
const (
	dosPointer     = 0x3c // of the PE signature's place
	coffHeader     = 4    // behind the signature
	countAt        = coffHeader + 2
	optionalSizeAt = coffHeader + 16
	optional       = coffHeader + 20
	dataSizeAt     = optional + 8 // SizeOfInitializedData
	fileAlignAt    = optional + 36
	imageSizeAt    = optional + 56
	headersSizeAt  = optional + 60
	checksumAt     = optional + 64
	directoriesAt  = optional + 112
	securityAt     = directoriesAt + 4*8
	leastOptional  = 112 + 5*8
	headerSize     = 40 // of a section
	magicPE32Plus  = 0x20b
)

// What an added section is: initialised data that is read.
const readable = 0x40000040

const (
	maxImage = 256 << 20
	page     = 4096 // sections begin at one in memory
)

// image is an image being built.
type image struct {
	data      []byte
	pe        int // where the signature is
	fileAlign int
	end       int // of what is in memory so far
}

// Assemble adds sections to a stub, in order. Put Linux last: a kernel may need room behind itself in memory.
func Assemble(stub []byte, sections []Section) ([]byte, error) {
	img, err := open(stub)
	if err != nil {
		return nil, fmt.Errorf("the stub: %w", err)
	}
	for _, s := range sections {
		if err := img.add(s); err != nil {
			return nil, fmt.Errorf("section %s: %w", s.Name, err)
		}
	}
	le := binary.LittleEndian
	le.PutUint32(img.data[img.pe+imageSizeAt:], uint32(align(img.end, page)))
	le.PutUint32(img.data[img.pe+checksumAt:], 0) // firmware does not look at it, and signers write it anew
	return img.data, nil
}

func align(n, to int) int { return (n + to - 1) / to * to }

func open(stub []byte) (*image, error) {
	if len(stub) > maxImage {
		return nil, fmt.Errorf("it has more than %d bytes", maxImage)
	}
	file, err := pe.NewFile(bytes.NewReader(stub))
	if err != nil {
		return nil, err
	}
	header, ok := file.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || header.Magic != magicPE32Plus || int(file.SizeOfOptionalHeader) < leastOptional {
		return nil, errors.New("it is no image for 64-bit firmware")
	}
	img := &image{data: slices.Clone(stub), pe: int(binary.LittleEndian.Uint32(stub[dosPointer:]))}
	img.fileAlign = int(header.FileAlignment)
	if img.fileAlign < 1 || img.fileAlign > page || page%img.fileAlign != 0 {
		return nil, fmt.Errorf("its sections are aligned to %d bytes", img.fileAlign)
	}
	if img.pe < 0 || img.pe+optional+leastOptional > len(stub) || img.table()+len(file.Sections)*headerSize > len(stub) {
		return nil, errors.New("its headers are cut off")
	}
	if binary.LittleEndian.Uint64(stub[img.pe+securityAt:]) != 0 {
		return nil, errors.New("it is signed; use the one without a signature")
	}
	for _, s := range file.Sections {
		last := uint64(s.VirtualAddress) + uint64(max(s.VirtualSize, s.Size))
		if last > maxImage || uint64(s.Offset)+uint64(s.Size) > uint64(len(stub)) {
			return nil, fmt.Errorf("its section %.8q is out of bounds", s.Name)
		}
		if slices.Contains([]string{OSRelease, Cmdline, Uname, Initrd, Linux}, s.Name) {
			return nil, fmt.Errorf("it has a section %s already", s.Name)
		}
		img.end = max(img.end, int(last))
	}
	return img, nil
}

// table is where the section headers begin.
func (m *image) table() int {
	return m.pe + optional + int(binary.LittleEndian.Uint16(m.data[m.pe+optionalSizeAt:]))
}

// add appends one section and its header.
func (m *image) add(s Section) error {
	le := binary.LittleEndian
	count := int(le.Uint16(m.data[m.pe+countAt:]))
	header := m.table() + count*headerSize
	room := int(le.Uint32(m.data[m.pe+headersSizeAt:]))
	switch {
	case s.Name == "" || len(s.Name) > 8 || len(s.Data) == 0:
		return errors.New("it needs a name of at most 8 bytes, and content")
	case header+headerSize > room || room > len(m.data):
		return errors.New("the stub's headers have no room for one more")
	case !bytes.Equal(m.data[header:header+headerSize], make([]byte, headerSize)):
		return errors.New("behind the stub's headers lies something else")
	case len(m.data)+len(s.Data)+2*page > maxImage || m.end+len(s.Data)+2*page > maxImage:
		return fmt.Errorf("the image would have more than %d bytes", maxImage)
	}
	offset, address := align(len(m.data), m.fileAlign), align(m.end, page)
	size := align(len(s.Data), m.fileAlign)
	out := make([]byte, offset+size)
	copy(out, m.data)
	copy(out[offset:], s.Data)
	copy(out[header:], s.Name)
	for i, v := range []int{len(s.Data), address, size, offset} {
		le.PutUint32(out[header+8+4*i:], uint32(v))
	}
	le.PutUint32(out[header+36:], readable)
	le.PutUint16(out[m.pe+countAt:], uint16(count+1))
	le.PutUint32(out[m.pe+dataSizeAt:], le.Uint32(out[m.pe+dataSizeAt:])+uint32(size))
	m.data, m.end = out, address+len(s.Data)
	return nil
}

// Read returns the content of one section of an image, or an error that names it.
func Read(data []byte, name string) ([]byte, error) {
	file, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read the image: %w", err)
	}
	s := file.Section(name)
	if s == nil {
		return nil, fmt.Errorf("the image has no section %s", name)
	}
	if s.Size > maxImage || s.VirtualSize > s.Size {
		return nil, fmt.Errorf("section %s is out of bounds", name)
	}
	content, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("section %s: %w", name, err)
	}
	return content[:s.VirtualSize], nil
}
