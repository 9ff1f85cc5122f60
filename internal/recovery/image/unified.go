package image

import (
	"bytes"
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/uki"
)

// Parameters are the recovery environment's kernel parameters in a slot. The first copy restarts after a panic, because
// the loader's counter then leads to the second; a panic of the second stays on the screen. The kernel does not test
// its ciphers first, which nobody uses here and which takes a third of its start; a kernel in FIPS mode does.
func (s Slot) Parameters() string {
	text := "quiet loglevel=3 cryptomgr.notests keepout.copy=" + string(s)
	if s == A {
		text += " panic=10"
	}
	return text
}

// Unify puts an image of a slot and systemd's stub together, so that one signature of the owner's covers kernel,
// archive and parameters. more are further kernel parameters.
func Unify(img Image, slot Slot, stub []byte, more string) ([]byte, error) {
	const name = "\"Keepout recovery environment\"\n"
	release := "ID=keepout-recovery\nNAME=" + name + "PRETTY_NAME=" + name + "VERSION_ID=" +
		img.Manifest.Built.UTC().Format(time.DateOnly) + "\n"
	parameters := slot.Parameters()
	if more != "" {
		parameters += " " + more
	}
	out, err := uki.Assemble(stub, []uki.Section{
		{Name: uki.OSRelease, Data: []byte(release)},
		{Name: uki.Cmdline, Data: []byte(parameters)},
		{Name: uki.Uname, Data: []byte(img.Manifest.Release)},
		{Name: uki.Initrd, Data: img.Archive},
		{Name: uki.Linux, Data: img.Kernel},
	})
	if err != nil {
		return nil, fmt.Errorf("unify the image: %w", err)
	}
	return out, nil
}

// SetUnified makes a unified image, signed or not, part of the image.
func (img *Image) SetUnified(unified []byte) {
	part := partOf("recovery.efi", unified)
	img.Unified, img.Manifest.Unified = unified, &part
}

// unified holds a unified image against the manifest, and against the kernel and the archive beside it.
func (m *Manifest) unified(data, kernel, archive []byte) error {
	if err := m.Unified.matches(data); err != nil {
		return err
	}
	for name, want := range map[string][]byte{uki.Linux: kernel, uki.Initrd: archive} {
		got, err := uki.Read(data, name)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("the unified image's %s is not that of this copy", name)
		}
	}
	return nil
}
