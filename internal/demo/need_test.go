package demo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/health"
)

func TestWhatIsMissing(t *testing.T) {
	t.Parallel()
	wrap := func(errno error) error { return fmt.Errorf("fanotify_init: %w", errno) }
	for _, c := range []struct {
		name string
		err  error
		want []string
	}{
		{"no root", needsRoot("/opt/bin/keepout"), []string{"KO-1102", "root", "sudo /opt/bin/keepout demo"}},
		{"container", noGroup(wrap(unix.EPERM)), []string{"KO-1102", "CAP_SYS_ADMIN", "docker run --privileged"}},
		{"no fanotify", noGroup(wrap(unix.ENOSYS)), []string{"KO-1102", "CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y"}},
		{"old", noGroup(wrap(unix.EINVAL)), []string{"KO-1102", "5.15"}},
		{"other", noGroup(wrap(unix.EMFILE)), []string{"KO-1102", "too many open files"}},
		{"no permission events", noMark(wrap(unix.EINVAL)), []string{
			"KO-1102", "CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y", "zgrep FANOTIFY /proc/config.gz",
		}},
	} {
		var p health.Problem
		if !errors.As(c.err, &p) {
			t.Errorf("%s: %v is no problem as data", c.name, c.err)
		}
		for _, want := range c.want {
			if !strings.Contains(c.err.Error(), want) {
				t.Errorf("%s: no %q in %q", c.name, want, c.err)
			}
		}
	}
}

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
	loaded, err := config.Load(filepath.Join(dir, configFile))
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
