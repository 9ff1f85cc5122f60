//go:build unix

package folder_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/keepout-security/keepout/internal/folder"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(t.TempDir(), "secret")
	must(os.WriteFile(outside, []byte("secret"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "plain"), []byte("hello"), 0o600))
	must(os.Mkdir(filepath.Join(dir, "below"), 0o700))
	must(os.WriteFile(filepath.Join(dir, "below", "deep"), []byte("deep"), 0o600))
	must(os.Symlink(outside, filepath.Join(dir, "absolute")))
	must(os.Symlink("../"+filepath.Base(filepath.Dir(outside))+"/secret", filepath.Join(dir, "upwards")))
	must(os.Symlink(filepath.Dir(outside), filepath.Join(dir, "elsewhere")))
	must(syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	f, err := folder.Open(dir)
	must(err)
	defer func() { must(f.Close()) }()
	for name, want := range map[string]string{
		"plain": "hello", "below/deep": "deep", "absolute": "", "upwards": "", "elsewhere/secret": "", "pipe": "",
		"below": "", "../" + filepath.Base(dir) + "/plain": "", "/etc/passwd": "", "nothing": "",
	} {
		got, err := fs.ReadFile(f, name)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := f.Stat("plain"); err != nil {
		t.Error(err)
	}
	if _, err := f.Stat("absolute"); err == nil {
		t.Error("described a file outside")
	}
}

func TestOpenNothing(t *testing.T) {
	t.Parallel()
	if _, err := folder.Open(filepath.Join(t.TempDir(), "nothing")); err == nil {
		t.Error("opened a folder that is not there")
	}
}
