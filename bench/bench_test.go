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
	os.Exit(testenv.PrivateMounts(m))
}
