// Package image builds and checks the recovery image: an archive that the boot loader hands to the distribution's own,
// signed kernel, with keepout-rescue as its init and those of the distribution's signed modules that the machine needs.
//
// It guarantees: the same input gives the same bytes; the kernel and the modules are those of the distribution,
// unchanged, so that their signatures hold; the image has no shell and no other program; of two copies one always
// stays; and a copy that was damaged or changed is found by its manifest.
package image

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/initramfs"
	"github.com/keepout-security/keepout/internal/recovery/modindex"
	"github.com/keepout-security/keepout/internal/recovery/settings"
)

// Limits of an image, in bytes. The kernel is beside it and is not counted.
const (
	MaxArchive = 10_000_000
	MaxInit    = 8_000_000
	maxKernel  = 64 << 20
	maxContent = 128 << 20 // of an archive, unpacked
)

// Source is what an image is made of.
type Source struct {
	Kernel   string   // the distribution's kernel, a file
	Modules  string   // the folder of its modules, lib/modules/<release>
	Init     string   // keepout-rescue, linked statically
	Devices  []string // modaliases of the machine's devices
	Extra    []string // further modules, by name
	Settings settings.Config
	Roots    []byte // certification authorities, PEM
	Trust    []byte // whose fixes are applied (intent.EncodeTrust)
	// Recipients are the organisation's keys for diagnostics (age); without any, bundles stay on the machine.
	Recipients []byte
}

// Image is a built image.
type Image struct {
	Kernel   []byte
	Archive  []byte
	Unified  []byte // nil: there is none (SetUnified)
	Manifest Manifest
}

// Manifest says what an image is, byte by byte.
type Manifest struct {
	Version int       `json:"version"` // 1
	Release string    `json:"release"` // of the kernel
	Built   time.Time `json:"built"`
	Kernel  Part      `json:"kernel"`
	Archive Part      `json:"archive"`
	Files   []Part    `json:"files"` // in the archive
	Unified *Part     `json:"unified,omitempty"`
}

// Part is one file.
type Part struct {
	Name   string `json:"name"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

func partOf(name string, data []byte) Part {
	sum := sha256.Sum256(data)
	return Part{Name: name, Size: len(data), SHA256: hex.EncodeToString(sum[:])}
}

// Build makes an image. Errors name what is missing on this machine.
func Build(s Source) (Image, error) {
	kernel, err := readBounded(s.Kernel, maxKernel)
	if err != nil {
		return Image{}, fmt.Errorf("read the kernel: %w", err)
	}
	release, err := releaseOf(kernel)
	if err != nil {
		return Image{}, fmt.Errorf("%s: %w", s.Kernel, err)
	}
	files, err := content(&s, release)
	if err != nil {
		return Image{}, err
	}
	archive, err := initramfs.Bytes(files)
	if err != nil {
		return Image{}, fmt.Errorf("write the archive: %w", err)
	}
	packed, err := pack(archive)
	if err != nil {
		return Image{}, err
	}
	if len(packed) > MaxArchive {
		return Image{}, fmt.Errorf("the image has %d bytes, limit %d", len(packed), MaxArchive)
	}
	m := Manifest{
		Version: 1, Release: release, Built: s.Settings.Built.UTC(),
		Kernel: partOf("vmlinuz", kernel), Archive: partOf("recovery.cpio", packed),
	}
	for _, f := range files {
		m.Files = append(m.Files, partOf(f.Name, f.Data))
	}
	slices.SortFunc(m.Files, func(a, b Part) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return Image{Kernel: kernel, Archive: packed, Manifest: m}, nil
}

func readBounded(file string, limit int64) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s: want a file of at most %d bytes", file, limit)
	}
	return os.ReadFile(file)
}

// content lists the files of the archive.
func content(s *Source, release string) ([]initramfs.File, error) {
	init, err := readInit(s.Init)
	if err != nil {
		return nil, err
	}
	modules, index, err := choose(s, release)
	if err != nil {
		return nil, err
	}
	s.Settings.Kernel = release
	if err := s.Settings.Check(); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	files := modules
	files = append(files,
		initramfs.File{Name: "init", Mode: 0o755, Data: init},
		initramfs.File{Name: settings.RootsFile, Data: s.Roots},
		initramfs.File{Name: settings.TrustFile, Data: s.Trust})
	if len(s.Recipients) > 0 {
		files = append(files, initramfs.File{Name: settings.RecipientsFile, Data: s.Recipients})
	}
	for _, dir := range []string{"dev/", "proc/", "sys/", "esp/", "etc/", "tmp/"} {
		files = append(files, initramfs.File{Name: dir})
	}
	for name, value := range map[string]any{settings.ConfigFile: s.Settings, settings.ModulesFile: index} {
		text, err := json.MarshalIndent(value, "", " ")
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
		files = append(files, initramfs.File{Name: name, Data: append(text, '\n')})
	}
	return files, nil
}

// readInit checks that the program needs nothing that the image lacks.
func readInit(file string) ([]byte, error) {
	data, err := readBounded(file, 4*MaxInit)
	if err != nil {
		return nil, fmt.Errorf("read the init: %w", err)
	}
	program, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read the init: %w", err)
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("%s is linked dynamically; the image has no libraries", file)
		}
	}
	if len(data) > MaxInit {
		return nil, fmt.Errorf("%s has %d bytes, limit %d", file, len(data), MaxInit)
	}
	return data, nil
}

var releasePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,63}$`)

// releaseOf reads the release from an x86 kernel's setup header (Documentation/arch/x86/boot.rst: "HdrS" at 0x202,
// and at 0x20e the place of the version string, counted from 0x200).
func releaseOf(kernel []byte) (string, error) {
	const signature, pointer, base = 0x202, 0x20e, 0x200
	if len(kernel) < 0x1000 || string(kernel[signature:signature+4]) != "HdrS" {
		return "", errors.New("it is no Linux kernel for this kind of machine")
	}
	at := int(kernel[pointer]) | int(kernel[pointer+1])<<8
	at += base
	if at >= len(kernel) {
		return "", errors.New("its version cannot be read")
	}
	text := kernel[at:min(at+256, len(kernel))]
	release, _, found := bytes.Cut(text, []byte{' '})
	if !found || !releasePattern.Match(release) {
		return "", errors.New("its version cannot be read")
	}
	return string(release), nil
}

// moduleFile is where a module lies in the archive.
func moduleFile(m *modindex.Module) string { return path.Join(settings.ModulesDir, m.Name+".ko") }
