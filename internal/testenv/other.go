//go:build !linux

package testenv

import (
	"errors"
	"os"
	"testing"
)

var errNotLinux = errors.New("this is not Linux")

func probeFanotify() error { return errNotLinux }

func probeMountNS() error { return errNotLinux }

func probeCGroup1() error { return errNotLinux }

func probeNetNS() error { return errNotLinux }

func probeLoop() error { return errNotLinux }

// PrivateMounts runs the tests where they are: only Linux has mount namespaces.
func PrivateMounts(m *testing.M) int {
	defer builds.remove()
	return m.Run()
}

// InPrivateMounts reports false: only Linux has mount namespaces.
func InPrivateMounts() bool { return false }

// Tmpfs fails the test: only Linux has it.
func Tmpfs(t testing.TB, _ string) string {
	t.Helper()
	t.Fatal(errNotLinux)
	return ""
}

// ReadOnly fails the test: only Linux has it.
func ReadOnly(t testing.TB, _ string) {
	t.Helper()
	t.Fatal(errNotLinux)
}

// lock fails, and so does Build: the programs are for Linux.
func lock(string) (*os.File, error) { return nil, errNotLinux }
