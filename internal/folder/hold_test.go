//go:build linux || darwin

package folder_test

import (
	"errors"
	"testing"

	"github.com/keepout-security/keepout/internal/folder"
)

// TestHold: many read at a time or one tidies up, and whoever closes lets the others in.
func TestHold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() *folder.Folder {
		t.Helper()
		f, err := folder.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	a, b := open(), open()
	first, err := a.Reading()
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Reading()
	if err != nil {
		t.Fatalf("a second reader: %v", err)
	}
	for range 2 {
		if _, err := b.Tidying(); !errors.Is(err, folder.ErrHeld) {
			t.Fatalf("tidied up while somebody reads: %v", err)
		}
		if second != nil {
			if err := second.Close(); err != nil {
				t.Fatal(err)
			}
			second = nil
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	alone, err := b.Tidying()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Reading(); !errors.Is(err, folder.ErrHeld) {
		t.Errorf("read while it is tidied up: %v", err)
	}
	if _, err := a.Tidying(); !errors.Is(err, folder.ErrHeld) {
		t.Errorf("tidied up by two: %v", err)
	}
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}
	if hold, err := a.Reading(); err != nil || hold.Close() != nil {
		t.Errorf("afterwards: %v", err)
	}
}
