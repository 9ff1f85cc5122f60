package demo

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/playground"
)

func TestEngines(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	here := func(string) error { return nil }
	nowhere := func(string) error { return os.ErrNotExist }
	build := func(id string) {
		dir := filepath.Join(bin, "providers", id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "keepout-"+id), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if got := present(engines(bin, here)); got != nil {
		t.Errorf("nothing is built, yet %v take part", got)
	}
	build("hashlist")
	build("clamav")
	if got := present(engines(bin, nowhere)); !slices.Equal(got, []string{"hashlist"}) {
		t.Errorf("without clamd: %v", got)
	}
	if got := present(engines(bin, here)); !slices.Equal(got, []string{"hashlist", "clamav"}) {
		t.Errorf("with clamd: %v", got)
	}
	build("yara")
	list := engines(bin, here)
	if got := present(list); len(got) != 3 || list[2].lacks != "" {
		t.Errorf("all: %v", list)
	}
}

// TestConfigurationIsValid: the daemon's own reader accepts what the demonstration writes.
func TestConfigurationIsValid(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a folder: with #signs")
	if err := furnish(dir, []string{"hashlist", "clamav", "yara"}); err != nil {
		t.Fatal(err)
	}
	loaded, err := config.Load(filepath.Join(dir, playground.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded.Providers) != 3 || loaded.Watch[0].Path != filepath.Join(dir, playgroundDir) {
		t.Errorf("%+v", loaded)
	}
	for _, p := range loaded.Providers {
		if files, err := os.ReadDir(p.Content); err != nil || len(files) == 0 {
			t.Errorf("content of %s: %v, %v", p.ID, files, err)
		}
	}
}
