package drill

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/playground"
)

// loadTime bounds the throw-away load of an update.
const loadTime = 2 * time.Second

// The names below a performance's folder, and of the files on its playground.
const (
	playgroundDir = "playground"
	goodFiles     = 64
	badFiles      = 8
)

// good are the providers beside the hostile one: the same engine twice, so that every machine has both.
func good() []string { return []string{"hashlist", "second"} }

// scene is one drill's platform: a folder with everything but the file system that it watches.
type scene struct {
	bin        string // where the programs are
	dir        string
	playground string
	drill      *Drill
}

func goodFile(i int) string { return fmt.Sprintf("good-%02d.txt", i) }
func badFile(i int) string  { return fmt.Sprintf("bad-%d.txt", i) }

// paths lists n files of the playground.
func (s *scene) paths(n int, name func(int) string) (all []string) {
	for i := range n {
		all = append(all, filepath.Join(s.playground, name(i)))
	}
	return all
}

// furnishPlayground writes the files that are going to be opened.
func furnishPlayground(dir string) error {
	files := map[string]string{}
	for i := range goodFiles {
		files[goodFile(i)] = fmt.Sprintf("good file %d: nothing to see here\n", i)
	}
	for i := range badFiles {
		files[badFile(i)] = badText(i)
	}
	return writeAll(dir, files)
}

// badText is what the good providers deny.
func badText(i int) string { return fmt.Sprintf("bad file %d: stands for malware in a drill\n", i) }

// furnish writes the providers, their contents and the configuration.
func (s *scene) furnish() error {
	var list strings.Builder
	for i := range badFiles {
		fmt.Fprintf(&list, "%x drill-bad-%d\n", sha256.Sum256([]byte(badText(i))), i)
	}
	errs := []error{
		s.install(filepath.Join("providers", "hashlist"), "hashlist"),
		s.install(filepath.Join("providers", "hashlist"), "second"),
		s.install(filepath.Join("hostile", s.drill.Engine), s.drill.Engine),
		writeAll(s.content(s.drill.Engine), s.drill.Content),
	}
	for _, id := range good() {
		errs = append(errs, writeAll(s.content(id), map[string]string{"deny.txt": list.String()}))
	}
	return errors.Join(append(errs, writeAll(s.dir, map[string]string{playground.ConfigFile: s.configText()}))...)
}

func (s *scene) content(id string) string { return filepath.Join(s.dir, "content", id) }

func (s *scene) providers() string { return filepath.Join(s.dir, "providers") }

// install copies a provider's folder under an id, without its schema where the drill wants it so.
func (s *scene) install(from, id string) error {
	source, to := filepath.Join(s.bin, from), filepath.Join(s.providers(), id)
	entries, err := os.ReadDir(source)
	if err != nil {
		return fmt.Errorf("install %s: %w", id, err)
	}
	files := map[string]string{}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(source, e.Name()))
		if err != nil {
			return fmt.Errorf("install %s: %w", id, err)
		}
		files[e.Name()] = string(text)
	}
	manifest := strings.Replace(files[config.ManifestFile], "\nid: "+filepath.Base(from)+"\n", "\nid: "+id+"\n", 1)
	if s.drill.NoSchema && id == s.drill.Engine {
		manifest = withoutSchema(manifest)
	}
	files[config.ManifestFile] = manifest
	if err := writeAll(to, files); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(to, "keepout-"+filepath.Base(from)), 0o755); err != nil {
		return fmt.Errorf("install %s: %w", id, err)
	}
	return nil
}

// withoutSchema takes content_schema, which is indented below its key, out of a manifest.
func withoutSchema(manifest string) string {
	var out strings.Builder
	within := false
	for line := range strings.Lines(manifest) {
		within = strings.HasPrefix(line, "content_schema:") || within && strings.HasPrefix(line, " ")
		if !within {
			out.WriteString(line)
		}
	}
	return out.String()
}

// configText is the configuration: everything enforces.
func (s *scene) configText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nmode: enforce\nstall_limit: %v\nbudgets: {metadata: %v, content: %v}\n%swatch:\n"+
		"  - {path: %q, events: [open, exec]}\nproviders:\n", stallLimit, contentBudget, contentBudget, s.updates(),
		s.playground)
	for _, id := range append(good(), s.drill.Engine) {
		fmt.Fprintf(&b, "  - {id: %s, mode: enforce, content: %q", id, s.content(id))
		if set := s.drill.Settings; id == s.drill.Engine && len(set) > 0 {
			b.WriteString(", settings: {")
			for i, key := range slices.Sorted(maps.Keys(set)) {
				fmt.Fprintf(&b, "%s%s: %q", strings.Repeat(", ", min(i, 1)), key, set[key])
			}
			b.WriteString("}")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// updates lets an update come into force at once, with or without what would stop it. A platform that does not know
// the key has nothing of the kind.
func (s *scene) updates() string {
	text := fmt.Sprintf("updates: {trial: 0s, trial_idle: 0s, samples: 0, settle: 0s, soak: 1s, load_time: %v, "+
		"schema: %v, load: %v}\n", loadTime, !s.drill.NoSchema, !s.drill.NoLoad)
	if _, err := config.Parse("probe", []byte("version: 1\n"+text)); err != nil {
		return ""
	}
	return text
}

// update writes the bad content, as an installer would, and returns what the check of it says.
func (s *scene) update(ctx context.Context) (checked string, err error) {
	if err := writeAll(s.content(s.drill.Engine), s.drill.Update); err != nil {
		return "", err
	}
	manifest, err := config.LoadManifest(filepath.Join(s.providers(), s.drill.Engine))
	if err != nil {
		return "", err
	}
	in := config.Installed{Manifest: manifest, Provider: config.Provider{Content: s.content(s.drill.Engine)}}
	if err := in.CheckContent(ctx); err != nil {
		return strings.ReplaceAll(err.Error(), s.content(s.drill.Engine)+"/", ""), nil
	}
	return "", nil
}

// writeAll writes files that everybody may read into a folder, which it makes. Each appears whole, or not at all.
func writeAll(dir string, files map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("furnish: %w", err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			return fmt.Errorf("furnish: %w", err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			return fmt.Errorf("furnish: %w", err)
		}
	}
	return nil
}
