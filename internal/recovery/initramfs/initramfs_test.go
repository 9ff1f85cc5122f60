package initramfs

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"testing"
)

func sample() []File {
	return []File{
		{Name: "lib/modules/b.ko", Data: []byte("module b")},
		{Name: "init", Mode: 0o755, Data: []byte("program")},
		{Name: "proc/", Mode: 0o555},
	}
}

func TestSameFilesSameBytes(t *testing.T) {
	t.Parallel()
	files := sample()
	first, err := Bytes(files)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(files)
	second, err := Bytes(files)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(first) != sha256.Sum256(second) {
		t.Error("the order in which files are given shows in the archive")
	}
	if len(first)%4 != 0 {
		t.Errorf("%d bytes: a second archive could not follow", len(first))
	}
}

func TestReadGivesWhatWasWritten(t *testing.T) {
	t.Parallel()
	archive, err := Bytes(sample())
	if err != nil {
		t.Fatal(err)
	}
	files, err := Read(bytes.NewReader(archive), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	if want := []string{"init", "lib/", "lib/modules/", "lib/modules/b.ko", "proc/"}; !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
	if f := files[0]; f.Mode != 0o755 || string(f.Data) != "program" {
		t.Errorf("init is %o %q", f.Mode, f.Data)
	}
	if _, err := Read(bytes.NewReader(archive), 7); err == nil {
		t.Error("more bytes than the caller allows were read")
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	for name, files := range map[string][]File{
		"twice":    {{Name: "a"}, {Name: "a"}},
		"absolute": {{Name: "/a"}},
		"parent":   {{Name: "../a"}},
		"unclean":  {{Name: "a//b"}},
		"empty":    {{Name: ""}},
		"trailer":  {{Name: "TRAILER!!!"}},
	} {
		if _, err := Bytes(files); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func FuzzRead(f *testing.F) {
	archive, err := Bytes(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(archive)
	f.Add(archive[:len(archive)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := Read(bytes.NewReader(b), 1<<16)
		if err != nil {
			return
		}
		total := 0
		for _, file := range files {
			total += len(file.Data)
		}
		if total > 1<<16 {
			t.Errorf("%d bytes were read, the limit is %d", total, 1<<16)
		}
	})
}
