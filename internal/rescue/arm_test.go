package rescue

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/settings"
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
	dir, config := esp.Open(filepath.Join(volume, "keepout")), &settings.Config{Entries: "mine"}
	if n, err := left(t.Context(), dir, config); n != 1 || err != nil {
		t.Errorf("%d tries left, want 1: %v", n, err)
	}
	if err := arm(t.Context(), dir, config, 3, 0); err != nil {
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
	if n, err := left(t.Context(), dir, config); n != 3 || err != nil {
		t.Errorf("%d tries left, want 3: %v", n, err)
	}
	dir = esp.Open(t.TempDir())
	if err := arm(t.Context(), dir, config, 3, 0); err != nil {
		t.Errorf("without entries: %v", err)
	}
	if n, err := left(t.Context(), dir, config); n != -1 || err != nil {
		t.Errorf("without entries %d tries are left: %v", n, err)
	}
}
