package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/initramfs"
)

// Slot is one of the two copies.
type Slot string

// The slots.
const (
	A Slot = "a"
	B Slot = "b"
)

// Slots lists them.
func Slots() []Slot { return []Slot{A, B} }

// ParseSlot reads a slot.
func ParseSlot(text string) (Slot, error) {
	if s := Slot(text); s == A || s == B {
		return s, nil
	}
	return "", fmt.Errorf("copy %.20q: want a or b", text)
}

// maxManifest bounds a manifest, in bytes.
const maxManifest = 4 << 20

func (s Slot) names() (kernel, archive, manifest string) {
	if s == A {
		return esp.KernelA, esp.ImageA, "manifest-a.json"
	}
	return esp.KernelB, esp.ImageB, "manifest-b.json"
}

// unified is the name of a slot's unified image.
func (s Slot) unified() string {
	if s == A {
		return esp.UnifiedA
	}
	return esp.UnifiedB
}

// Unified reports whether a slot has a unified image, good or not: the boot loader's entry starts that one then.
func Unified(dir string, slot Slot) bool {
	_, err := os.Lstat(filepath.Join(dir, slot.unified()))
	return err == nil
}

// Install writes an image into a slot of Keepout's folder. The manifest goes first and comes last: a copy that was
// interrupted has none, and Verify refuses it. The other copy is not touched. A unified image that lies there stays
// when the new one has none, because the loader's entry needs it, and Verify then says so.
func Install(dir string, slot Slot, img Image) error {
	kernel, archive, manifest := slot.names()
	text, err := json.MarshalIndent(img.Manifest, "", " ")
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	if err := os.Remove(filepath.Join(dir, manifest)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace copy %s: %w", slot, err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{kernel, img.Kernel}, {archive, img.Archive}, {slot.unified(), img.Unified}, {manifest, append(text, '\n')}} {
		if f.data == nil {
			continue
		}
		if err := durable.WriteFileOn(esp.Disk(), filepath.Join(dir, f.name), f.data, 0o600); err != nil {
			return fmt.Errorf("write copy %s: %w", slot, err)
		}
	}
	return nil
}

// Verify reads a copy and holds every byte of it against its manifest.
func Verify(dir string, slot Slot) (Manifest, error) {
	kernelName, archiveName, manifestName := slot.names()
	text, err := readBounded(filepath.Join(dir, manifestName), maxManifest)
	if err != nil {
		return Manifest{}, fmt.Errorf("copy %s: %w", slot, err)
	}
	m, err := ParseManifest(text)
	if err != nil {
		return Manifest{}, fmt.Errorf("copy %s: %w", slot, err)
	}
	kernel, err := readBounded(filepath.Join(dir, kernelName), maxKernel)
	if err != nil {
		return m, fmt.Errorf("copy %s: %w", slot, err)
	}
	archive, err := readBounded(filepath.Join(dir, archiveName), MaxArchive)
	if err != nil {
		return m, fmt.Errorf("copy %s: %w", slot, err)
	}
	if err := m.check(kernel, archive); err != nil {
		return m, fmt.Errorf("copy %s: %w", slot, err)
	}
	switch there := Unified(dir, slot); {
	case !there && m.Unified == nil:
		return m, nil
	case !there || m.Unified == nil:
		return m, fmt.Errorf("copy %s: the unified image and the manifest are of two builds", slot)
	}
	unified, err := readBounded(filepath.Join(dir, slot.unified()), maxKernel+MaxArchive)
	if err == nil {
		err = m.unified(unified, kernel, archive)
	}
	if err != nil {
		return m, fmt.Errorf("copy %s: %w", slot, err)
	}
	return m, nil
}

// ParseManifest reads a manifest.
func ParseManifest(text []byte) (Manifest, error) {
	var m Manifest
	if len(text) > maxManifest {
		return m, fmt.Errorf("the manifest has %d bytes, limit %d", len(text), maxManifest)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return Manifest{}, fmt.Errorf("decode the manifest: %w", err)
	}
	if m.Version != 1 || !releasePattern.MatchString(m.Release) || len(m.Files) > initramfs.MaxFiles {
		return Manifest{}, errors.New("the manifest is of another version, or no manifest")
	}
	return m, nil
}

func (m *Manifest) check(kernel, archive []byte) error {
	if err := m.Kernel.matches(kernel); err != nil {
		return err
	}
	if err := m.Archive.matches(archive); err != nil {
		return err
	}
	if release, err := releaseOf(kernel); err != nil || release != m.Release {
		return fmt.Errorf("the kernel is %q, the manifest says %s", release, m.Release)
	}
	files, err := Files(archive)
	if err != nil {
		return err
	}
	byName := map[string]Part{}
	for _, p := range m.Files {
		byName[p.Name] = p
	}
	for _, f := range files {
		p, known := byName[f.Name]
		if f.Name[len(f.Name)-1] == '/' {
			continue
		}
		if !known {
			return fmt.Errorf("the archive holds %s, which the manifest does not name", f.Name)
		}
		if err := p.matches(f.Data); err != nil {
			return err
		}
		delete(byName, f.Name)
	}
	for name := range byName {
		if name[len(name)-1] != '/' {
			return fmt.Errorf("the archive lacks %s", name)
		}
	}
	return nil
}

// Files unpacks an archive.
func Files(archive []byte) ([]initramfs.File, error) {
	plain, err := unpackArchive(archive)
	if err != nil {
		return nil, fmt.Errorf("unpack the archive: %w", err)
	}
	return initramfs.Read(bytes.NewReader(plain), maxContent)
}

func (p *Part) matches(data []byte) error {
	sum := sha256.Sum256(data)
	if len(data) != p.Size || hex.EncodeToString(sum[:]) != p.SHA256 {
		return fmt.Errorf("%s is not what was built", p.Name)
	}
	return nil
}
