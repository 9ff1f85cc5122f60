package rescue

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestEntriesOnAVolume: this system's spent entries get tries again, wherever they lie on the file system; those of
// another installation, those that do not count and those with tries left stay.
func TestEntriesOnAVolume(t *testing.T) {
	t.Parallel()
	volume := t.TempDir()
	for _, name := range []string{
		"loader/entries/mine-6.1+0-3.conf", "loader/entries/mine-6.2+1-2.conf", "loader/entries/mine-5.conf",
		"loader/entries/theirs-6.1+0-3.conf", "EFI/Linux/mine-6.3+0-3.efi",
	} {
		name = filepath.Join(volume, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := armVolume(volume, "mine", 3); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, pattern := range []string{"loader/entries/*", "EFI/Linux/*"} {
		names, err := filepath.Glob(filepath.Join(volume, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			got = append(got, filepath.Base(name))
		}
	}
	want := []string{"mine-5.conf", "mine-6.1+3.conf", "mine-6.2+1-2.conf", "theirs-6.1+0-3.conf", "mine-6.3+3.efi"}
	if !slices.Equal(got, want) {
		t.Errorf("entries %q, want %q", got, want)
	}
	if err := armVolume(t.TempDir(), "mine", 3); err != nil {
		t.Errorf("without entries: %v", err)
	}
}
