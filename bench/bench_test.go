package bench

import (
	"os"
	"testing"

	"github.com/keepout-security/keepout/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.PrivateMounts(m)) }
