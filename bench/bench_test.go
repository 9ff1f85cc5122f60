package bench

import (
	"os"
	"testing"

	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/testenv"
)

func TestMain(m *testing.M) {
	if sandbox.IsLauncher() {
		os.Exit(sandbox.Launch())
	}
	if act := os.Getenv(actVariable); act != "" {
		os.Exit(perform(act, os.Args[1:]))
	}
	os.Exit(testenv.PrivateMounts(m))
}
