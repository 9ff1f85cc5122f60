package image

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/uki"
)

// stub is the least that counts as systemd's: headers with room, and one section.
func stub() []byte {
	const signature, optional, table, header = 0x80, 0x80 + 24, 0x80 + 24 + 240, 0x400
	out := make([]byte, header+0x200)
	le := binary.LittleEndian
	copy(out, "MZ")
	le.PutUint32(out[0x3c:], signature)
	copy(out[signature:], "PE\x00\x00")
	le.PutUint16(out[signature+4:], pe.IMAGE_FILE_MACHINE_AMD64)
	le.PutUint16(out[signature+6:], 1)
	le.PutUint16(out[signature+20:], 240)
	le.PutUint16(out[optional:], 0x20b)
	le.PutUint32(out[optional+36:], 0x200)
	le.PutUint32(out[optional+60:], header)
	le.PutUint32(out[optional+108:], 16)
	copy(out[table:], ".text")
	for i, v := range []uint32{0x100, 0x1000, 0x200, header} {
		le.PutUint32(out[table+8+4*i:], v)
	}
	return out
}

// TestUnified: a unified image holds this copy's kernel and archive and this slot's parameters; a damaged one, one of
// another build and a missing one are found.
func TestUnified(t *testing.T) {
	t.Parallel()
	img, err := Build(source(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, slot := range Slots() {
		unified, err := Unify(img, slot, stub(), "console=ttyS0")
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			uki.Linux: string(img.Kernel), uki.Initrd: string(img.Archive), uki.Uname: release,
			uki.Cmdline: slot.Parameters() + " console=ttyS0",
		} {
			if got, err := uki.Read(unified, name); err != nil || string(got) != want {
				t.Errorf("%s of copy %s: %.80q, %v", name, slot, got, err)
			}
		}
		img.SetUnified(unified)
		if err := Install(dir, slot, img); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(dir, slot); err != nil || !Unified(dir, slot) {
			t.Errorf("copy %s: %v", slot, err)
		}
	}
	if a, b := A.Parameters(), B.Parameters(); !strings.Contains(a, "panic=10") || strings.Contains(b, "panic=") {
		t.Errorf("parameters %q, %q: nothing counts the second copy, so its panic must stay", a, b)
	}
	file := filepath.Join(dir, esp.UnifiedA)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"a byte": append(bytes.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1), "the end": whole[:len(whole)-9],
		"gone": nil,
	} {
		if content == nil {
			err = os.Remove(file)
		} else {
			err = os.WriteFile(file, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(dir, A); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
	plain := img
	plain.Unified, plain.Manifest.Unified = nil, nil
	if err := Install(dir, B, plain); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(dir, B); err == nil {
		t.Error("an old unified image beside a new copy is not noticed")
	}
}
