package image

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/keepout-security/keepout/internal/recovery/settings"
)

const release = "6.1.0-test"

// object is a minimal ELF file with one section.
func object(section, content string) []byte {
	names := "\x00" + section + "\x00.shstrtab\x00"
	const header, entry = 64, 64
	at := uint64(header)
	var b bytes.Buffer
	w := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // a buffer takes everything
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9))
	w([]uint16{1, 62})
	w(uint32(1))
	w([]uint64{0, 0, at + uint64(len(content)+len(names))})
	w(uint32(0))
	w([]uint16{header, 0, 0, entry, 3, 2})
	b.WriteString(content + names)
	sections := []struct {
		name, kind uint32
		at, size   uint64
	}{{}, {1, 1, at, uint64(len(content))}, {uint32(len(section)) + 2, 3, at + uint64(len(content)), uint64(len(names))}}
	for _, s := range sections {
		w([]uint32{s.name, s.kind})
		w([]uint64{0, 0, s.at, s.size})
		w([]uint32{0, 0})
		w([]uint64{1, 0})
	}
	return b.Bytes()
}

// module is the text of a module's .modinfo.
func module(fields ...string) []byte { return object(".modinfo", strings.Join(fields, "\x00")+"\x00") }

func kernel() []byte {
	k := make([]byte, 0x2000)
	copy(k[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(k[0x20e:], 0x400)
	copy(k[0x600:], release+" (debian) #1")
	return k
}

func write(t testing.TB, file string, content []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// source is a distribution in miniature.
func source(t testing.TB) Source {
	t.Helper()
	root := t.TempDir()
	modules := filepath.Join(root, "lib", "modules", release)
	packed, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"kernel/fs/fat/vfat.ko":                     module("name=vfat", "depends=fat"),
		"kernel/fs/fat/fat.ko.zst":                  packed.EncodeAll(module("name=fat", "depends="), nil),
		"kernel/drivers/net/ethernet/acme/acme.ko":  module("name=acme", "alias=pci:v00001234d*"),
		"kernel/drivers/gpu/drm/big/big.ko":         module("name=big", "alias=pci:v00001234d*"),
		"kernel/drivers/net/ethernet/other/none.ko": module("name=none", "alias=pci:v00009999d*"),
		"modules.builtin":                           []byte("kernel/fs/ext4/ext4.ko\n"),
	} {
		write(t, filepath.Join(modules, name), content)
	}
	return Source{
		Kernel: write(t, filepath.Join(root, "vmlinuz"), kernel()), Modules: modules,
		Init:    write(t, filepath.Join(root, "keepout-rescue"), object(".text", "x")),
		Devices: []string{"pci:v00001234d00005678"}, Trust: []byte("{}"),
		Settings: settings.Config{
			Version: 1, Built: time.Unix(1_800_000_000, 0), Machine: "m",
			Volume: settings.Volume{Type: "vfat", ID: "1-2", Dir: "keepout"},
		},
	}
}

func build(t testing.TB, s Source) Image {
	t.Helper()
	img, err := Build(s)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestSameSourceSameBytes(t *testing.T) {
	t.Parallel()
	a, b := build(t, source(t)), build(t, source(t))
	if !bytes.Equal(a.Archive, b.Archive) || !bytes.Equal(a.Kernel, b.Kernel) {
		t.Error("two builds of the same source differ")
	}
	s := source(t)
	s.Settings.Machine = "other"
	if bytes.Equal(a.Archive, build(t, s).Archive) {
		t.Error("the settings are not in the image")
	}
}

func TestOnlyUsefulModules(t *testing.T) {
	t.Parallel()
	files, err := Files(build(t, source(t)).Archive)
	if err != nil {
		t.Fatal(err)
	}
	var modules []string
	for _, f := range files {
		if name, ok := strings.CutPrefix(f.Name, "lib/modules/"); ok && name != "" {
			modules = append(modules, name)
		}
		if f.Name == "lib/modules/fat.ko" && !bytes.HasPrefix(f.Data, []byte("\x7fELF")) {
			t.Error("a compressed module was not unpacked")
		}
	}
	if want := []string{"acme.ko", "fat.ko", "vfat.ko"}; !slices.Equal(modules, want) {
		t.Errorf("modules %q, want %q", modules, want)
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(t *testing.T, s *Source)
		want   string
	}{
		"no kernel": {func(t *testing.T, s *Source) {
			t.Helper()
			write(t, s.Kernel, []byte("MZ"))
		}, "no Linux kernel"},
		"modules of another one": {
			func(_ *testing.T, s *Source) { s.Modules = filepath.Dir(s.Modules) }, "the modules are of",
		},
		"a dynamic init": {func(t *testing.T, s *Source) {
			t.Helper()
			program, err := os.ReadFile("/bin/sh")
			if err != nil {
				t.Fatal(err)
			}
			write(t, s.Init, program)
		}, "linked dynamically"},
		"a script as init": {func(t *testing.T, s *Source) {
			t.Helper()
			write(t, s.Init, []byte("#!/bin/sh\n"))
		}, "read the init"},
		"no file system": {func(t *testing.T, s *Source) {
			t.Helper()
			for _, name := range []string{"vfat.ko", "fat.ko.zst"} {
				if err := os.Remove(filepath.Join(s.Modules, "kernel", "fs", "fat", name)); err != nil {
					t.Fatal(err)
				}
			}
		}, "has no vfat"},
		"a missing need": {func(t *testing.T, s *Source) {
			t.Helper()
			if err := os.Remove(filepath.Join(s.Modules, "kernel", "fs", "fat", "fat.ko.zst")); err != nil {
				t.Fatal(err)
			}
		}, "fat is not there"},
		"a damaged module": {func(t *testing.T, s *Source) {
			t.Helper()
			write(t, filepath.Join(s.Modules, "kernel", "fs", "fat", "fat.ko.zst"), []byte("junk"))
		}, "unpack"},
		"settings without a machine": {func(_ *testing.T, s *Source) { s.Settings.Machine = "" }, "pseudonym"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := source(t)
			c.change(t, &s)
			if _, err := Build(s); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	img := build(t, source(t))
	for name, damage := range map[string]func(t *testing.T, dir string){
		"nothing": nil,
		"kernel": func(t *testing.T, dir string) {
			t.Helper()
			flip(t, filepath.Join(dir, "vmlinuz-a"))
		},
		"image": func(t *testing.T, dir string) {
			t.Helper()
			flip(t, filepath.Join(dir, "recovery-a.cpio"))
		},
		"no manifest": func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Remove(filepath.Join(dir, "manifest-a.json")); err != nil {
				t.Fatal(err)
			}
		},
		"torn": func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Truncate(filepath.Join(dir, "recovery-a.cpio"), 100); err != nil {
				t.Fatal(err)
			}
		},
	} {
		dir := t.TempDir()
		for _, slot := range Slots() {
			if err := Install(dir, slot, img); err != nil {
				t.Fatal(err)
			}
		}
		if damage != nil {
			damage(t, dir)
		}
		if _, err := Verify(dir, A); (err == nil) != (damage == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Verify(dir, B); err != nil {
			t.Errorf("%s: the other copy: %v", name, err)
		}
	}
}

// flip changes one bit in the middle of a file.
func flip(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	write(t, file, content)
}

func FuzzInfo(f *testing.F) {
	f.Add(module("name=vfat", "depends=fat", "alias=fs-vfat"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := infoOf(bytes.NewReader(data)); err == nil && m.Name == "" {
			t.Fatal("a module without a name")
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"release":"6.1.0"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := ParseManifest(data); err == nil && m.Version != 1 {
			t.Fatalf("accepted %+v", m)
		}
	})
}
