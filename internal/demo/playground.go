package demo

import (
	"crypto/md5" //nolint:gosec // the format of ClamAV's signatures, no secret hangs on it
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/keepout-security/keepout/internal/playground"
)

// The names below the folder of a demonstration.
const (
	playgroundDir = "playground" // the file system that is watched
	contentDir    = "content"    // what the engines look for

	eicarFile = playgroundDir + "/eicar.com"
	otherFile = playgroundDir + "/invoice.com" // the EICAR with a word added, which no list of digests knows
	helloFile = playgroundDir + "/hello"
)

// notes is how many harmless files lie on the playground.
const notes = 8

// eicar returns the test file that every antivirus product knows (https://www.eicar.org). It is harmless. It
// is put together at run time: neither this source nor the program is to be taken for it.
func eicar() []byte {
	sample := []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}$`)
	sample = append(sample, eicarMarker...)
	return append(sample, `!$H+H*`...)
}

const eicarMarker = "EICAR-STANDARD-ANTIVIRUS-TEST-FILE"

// furnish writes the files of the playground, the engines' content and the configuration.
func furnish(dir string, ids []string) error {
	sample := eicar()
	files := map[string]string{
		eicarFile: string(sample),
		otherFile: string(sample) + "invoice\n",
		helloFile: "#!/bin/sh\necho \"hello, I am $0\"\n",
		contentDir + "/hashlist/deny.txt": fmt.Sprintf("%x Eicar-Test-File\n",
			sha256.Sum256(sample)),
		contentDir + "/clamav/demo.hdb": fmt.Sprintf("%x:%d:Eicar-Test-Signature\n",
			md5.Sum(sample), len(sample)), //nolint:gosec // as above
		contentDir + "/yara/demo.yar": fmt.Sprintf(
			"rule Eicar_Test_String {\n  strings:\n    $marker = %q\n  condition:\n    $marker\n}\n", eicarMarker),
		playground.ConfigFile: configText(dir, ids),
	}
	for i := range notes {
		files[noteFile(i)] = fmt.Sprintf("note %d: nothing to see here\n", i)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("furnish: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("furnish: %w", err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, helloFile), 0o755); err != nil {
		return fmt.Errorf("furnish: %w", err)
	}
	return nil
}

func noteFile(i int) string { return fmt.Sprintf("%s/note-%d.txt", playgroundDir, i%notes) }

// configText is the configuration: everything enforces.
func configText(dir string, ids []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nmode: enforce\nwatch:\n  - {path: %q, events: [open, exec]}\nproviders:\n",
		filepath.Join(dir, playgroundDir))
	for _, id := range ids {
		fmt.Fprintf(&b, "  - {id: %s, mode: enforce, content: %q}\n", id, filepath.Join(dir, contentDir, id))
	}
	return b.String()
}
