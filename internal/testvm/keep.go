package testvm

import (
	"os"
	"path/filepath"
	"testing"
)

// NewState makes a second disk for Spec.Root: an ext4 file system that holds the files, by their paths. It is what a
// guest whose root is its initramfs keeps over its starts.
func NewState(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	tree, image := filepath.Join(dir, "tree"), filepath.Join(dir, "state.img")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		f := File{Data: data, Mode: 0o644}
		if err := f.put(filepath.Join(tree, name)); err != nil {
			t.Fatal(err)
		}
	}
	must(t, "mke2fs", "-q", "-t", "ext4", "-U", RootVolume, "-d", tree, image, "128M")
	return image
}
