package drill

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/config"
)

// fakeBin lays out what "make build" leaves, with manifests of the tree and programs that are none.
func fakeBin(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	for _, from := range []string{"providers/hashlist", "hostile/faulty", "hostile/channel291"} {
		source := filepath.Join("..", "..", "providers", strings.TrimPrefix(from, "providers/"))
		text, err := os.ReadFile(filepath.Join(source, config.ManifestFile))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(bin, from)
		files := map[string]string{config.ManifestFile: string(text), "keepout-" + filepath.Base(from): "#!/bin/true\n"}
		if err := writeAll(to, files); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Seal(to); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// TestScenes: every drill starts from a configuration, manifests and contents that the platform accepts.
func TestScenes(t *testing.T) {
	t.Parallel()
	bin := fakeBin(t)
	for _, d := range Catalogue() {
		s := &scene{bin: bin, dir: filepath.Join(t.TempDir(), d.Name), playground: "/playground", drill: &d}
		if err := s.furnish(); err != nil {
			t.Fatal(err)
		}
		loaded, err := config.Load(filepath.Join(s.dir, "keepout.yaml"))
		if err != nil {
			t.Fatalf("%s: %v", d.Name, err)
		}
		installed, err := loaded.Resolve(s.providers())
		if err != nil || len(installed) != 3 {
			t.Fatalf("%s: %d providers, %v", d.Name, len(installed), err)
		}
		for i := range installed {
			if err := installed[i].CheckContent(t.Context()); err != nil {
				t.Errorf("%s: %s starts from content that is refused: %v", d.Name, installed[i].ID, err)
			}
		}
		if declared := installed[2].Manifest.Schema.Declared(); declared == d.NoSchema {
			t.Errorf("%s: it declares a schema: %v", d.Name, declared)
		}
		checked, err := s.update(t.Context())
		if err != nil || (checked != "") != (d.Name == "channel-file-291") {
			t.Errorf("%s: the update is refused: %q, %v", d.Name, checked, err)
		}
	}
}
