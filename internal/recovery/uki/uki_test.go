package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"strings"
	"testing"
)

// stub is a small image as systemd's is: headers with room for a few sections more, and one section of code.
func stub(room int) []byte {
	const (
		signature, table = 0x80, 0x80 + optional + 240
		header           = 0x400
	)
	out := make([]byte, header+0x200)
	le := binary.LittleEndian
	copy(out, "MZ")
	le.PutUint32(out[dosPointer:], signature)
	copy(out[signature:], "PE\x00\x00")
	le.PutUint16(out[signature+coffHeader:], pe.IMAGE_FILE_MACHINE_AMD64)
	le.PutUint16(out[signature+countAt:], 1)
	le.PutUint16(out[signature+optionalSizeAt:], 240)
	le.PutUint16(out[signature+optional:], magicPE32Plus)
	le.PutUint32(out[signature+fileAlignAt:], 0x200)
	le.PutUint32(out[signature+headersSizeAt:], uint32(table+headerSize+room*headerSize))
	le.PutUint32(out[signature+optional+108:], 16)
	copy(out[table:], ".text")
	for i, v := range []int{0x123, 0x4000, 0x200, header} {
		le.PutUint32(out[table+8+4*i:], uint32(v))
	}
	return out
}

var parts = []Section{
	{OSRelease, []byte("ID=keepout-recovery\n")},
	{Cmdline, []byte("quiet")},
	{Initrd, bytes.Repeat([]byte("i"), 5000)},
	{Linux, bytes.Repeat([]byte("l"), 9000)},
}

// TestAssemble: every part can be read back, nothing overlaps in the file or in memory, and the stub's bytes are there.
func TestAssemble(t *testing.T) {
	t.Parallel()
	source := stub(6)
	img, err := Assemble(source, parts)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Assemble(source, parts)
	if err != nil || !bytes.Equal(img, again) {
		t.Errorf("two builds differ: %v", err)
	}
	for _, p := range parts {
		if got, err := Read(img, p.Name); err != nil || !bytes.Equal(got, p.Data) {
			t.Errorf("%s: %d bytes, %v", p.Name, len(got), err)
		}
	}
	wellFormed(t, img)
	if !bytes.Equal(img[0x400:0x600], source[0x400:]) {
		t.Error("the stub's code has changed")
	}
}

func wellFormed(t *testing.T, img []byte) {
	t.Helper()
	file, err := pe.NewFile(bytes.NewReader(img))
	if err != nil {
		t.Fatal(err)
	}
	header := file.OptionalHeader.(*pe.OptionalHeader64)
	fileEnd, memoryEnd := uint32(0), uint32(0)
	for _, s := range file.Sections {
		if s.Offset < fileEnd || s.VirtualAddress < memoryEnd || s.Offset%header.FileAlignment != 0 {
			t.Errorf("section %s overlaps another", s.Name)
		}
		fileEnd, memoryEnd = s.Offset+s.Size, s.VirtualAddress+s.VirtualSize
	}
	if int(fileEnd) > len(img) || memoryEnd > header.SizeOfImage {
		t.Errorf("the image ends before its sections do")
	}
}

func TestAssembleRefuses(t *testing.T) {
	t.Parallel()
	signed := stub(6)
	signed[0x80+securityAt] = 1
	twice, err := Assemble(stub(6), parts[:1])
	if err != nil {
		t.Fatal(err)
	}
	occupied := stub(6)
	occupied[0x80+optional+240+headerSize] = 1
	for name, c := range map[string]struct {
		stub  []byte
		parts []Section
		why   string
	}{
		"nothing":          {nil, parts, "the stub"},
		"another program":  {[]byte("#!/bin/sh\n"), parts, "the stub"},
		"cut off":          {stub(6)[:0x90], parts, "the stub"},
		"signed":           {signed, parts, "is signed"},
		"a section twice":  {twice, parts, "already"},
		"no room":          {stub(2), parts, "no room"},
		"something behind": {occupied, parts, "something else"},
		"a long name":      {stub(6), []Section{{".keepouts", []byte("x")}}, "at most 8"},
		"an empty part":    {stub(6), []Section{{Linux, nil}}, "content"},
	} {
		if _, err := Assemble(c.stub, c.parts); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", name, err, c.why)
		}
	}
}

func FuzzAssemble(f *testing.F) {
	f.Add(stub(6))
	f.Fuzz(func(t *testing.T, source []byte) {
		img, err := Assemble(source, parts)
		if err != nil {
			return
		}
		for _, p := range parts {
			if got, err := Read(img, p.Name); err != nil || !bytes.Equal(got, p.Data) {
				t.Errorf("%s: %d bytes, %v", p.Name, len(got), err)
			}
		}
	})
}
