package vm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/image"
	"github.com/keepout-security/keepout/internal/recovery/settings"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// built is the time at which every test's image was built: now, to the hour, so that certificates are valid.
func built() time.Time { return time.Now().UTC().Truncate(time.Hour) }

// machineID is the pseudonym of every test machine.
const machineID = "0123456789abcdef0123456789abcdef"

func baseSettings() settings.Config {
	return settings.Config{
		Version: 1, Built: built(), Machine: machineID,
		Volume:   settings.Volume{Type: "vfat", ID: testvm.EFIVolume, Dir: "keepout"},
		Products: map[string]string{"channel-file-291": "ACME AV"},
	}
}

// building keeps two parallel stories from reading all modules at the same time.
var building sync.Mutex

// buildImage builds a recovery image for the cloud kernel.
func buildImage(t testing.TB, source image.Source) image.Image {
	t.Helper()
	return buildFrom(t, testvm.DebianKernel(t, testvm.Cloud), source)
}

func buildFrom(t testing.TB, kernel testvm.Kernel, source image.Source) image.Image {
	t.Helper()
	source.Kernel, source.Modules = kernel.Image, kernel.Modules
	source.Init = filepath.Join(testenv.Build(t, "./cmd/keepout-rescue"), "keepout-rescue")
	if source.Trust == nil {
		source.Trust = []byte("{}")
	}
	building.Lock()
	defer building.Unlock()
	img, err := image.Build(source)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// espFiles is what lies in Keepout's folder of a machine that was armed.
func espFiles(t testing.TB, state boot.State) map[string][]byte {
	t.Helper()
	copyA, err := boot.Encode(&state, 1)
	if err != nil {
		t.Fatal(err)
	}
	copyB, err := boot.Encode(&state, 2)
	if err != nil {
		t.Fatal(err)
	}
	crumb, err := boot.EncodeCrumb(boot.Crumb{})
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"keepout/" + esp.StateA: copyA, "keepout/" + esp.StateB: copyB, "keepout/" + esp.CrumbFile: crumb,
	}
}

// stateOf reads the boot state of a machine that does not run.
func stateOf(t testing.TB, d *testvm.Disk) boot.State {
	t.Helper()
	a, _ := d.Get("keepout/" + esp.StateA)
	b, _ := d.Get("keepout/" + esp.StateB)
	return boot.Pick(a, b).State
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// inFile writes bytes to a file of the test.
func inFile(t testing.TB, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
