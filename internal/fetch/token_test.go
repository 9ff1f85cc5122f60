package fetch

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tokenFolder is a fetcher's folder that its user has put something into, and a file of somebody else's.
func tokenFolder(t *testing.T, put func(token, secret string) error) (o *Options, secret string) {
	t.Helper()
	o = &Options{StateDir: t.TempDir(), MachineID: "m"}
	o.complete()
	if err := os.MkdirAll(o.own(), 0o700); err != nil {
		t.Fatal(err)
	}
	secret = filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := put(filepath.Join(o.own(), tokenCopy), secret); err != nil {
		t.Fatal(err)
	}
	return o, secret
}

// TestTokenIsReadFromNoLink: what the fetcher's user puts where its token was cannot make root read another file or
// wait; a token is read.
func TestTokenIsReadFromNoLink(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		put  func(token, secret string) error
		want string
	}{
		"a token": {func(token, _ string) error { return os.WriteFile(token, []byte("ko1.t\n"), 0o600) }, "ko1.t"},
		"a link":  {func(token, secret string) error { return os.Symlink(secret, token) }, ""},
		"a pipe":  {func(token, _ string) error { return syscall.Mkfifo(token, 0o600) }, ""},
		"an endless file": {func(token, _ string) error {
			return os.WriteFile(token, []byte(strings.Repeat("x", maxToken+1)), 0o600)
		}, ""},
		"nothing": {func(string, string) error { return nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, _ := tokenFolder(t, c.put)
			done := make(chan error, 1)
			go func() { done <- o.describe("", "") }()
			select {
			case err := <-done:
				if err != nil || o.Token != c.want {
					t.Errorf("%q, %v, want %q", o.Token, err, c.want)
				}
			case <-time.After(time.Minute):
				t.Fatal("it waits for the other end of a pipe")
			}
		})
	}
}

// TestTokenReplacesALink: a link that lies where the token is kept is replaced; what it leads to stays as it is.
func TestTokenReplacesALink(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(token, secret string) error{
		"a link":      func(token, secret string) error { return os.Symlink(secret, token) },
		"a hard link": func(token, secret string) error { return os.Link(secret, token) },
		"a pipe":      func(token, _ string) error { return syscall.Mkfifo(token, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, secret := tokenFolder(t, put)
			o.Token = "ko1.t"
			done := make(chan error, 1)
			go func() { done <- o.copyToken() }()
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(time.Minute):
				t.Fatal("it waits for the other end of a pipe")
			}
			if text, err := os.ReadFile(secret); err != nil || string(text) != "secret" {
				t.Errorf("the other file holds %q, %v", text, err)
			}
			if got := o.copiedToken(); got != "ko1.t" {
				t.Errorf("the token that was kept is %q", got)
			}
		})
	}
}
