package preview

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keepout-security/keepout/internal/config"
)

// makeKeys makes a vendor and an operator, and the vendor's engine.
func (f *Fleet) makeKeys(ctx context.Context) error {
	for _, args := range [][]string{
		{"keys", "init", "acme", "--as", "vendor", "--no-passphrase"},
		{"keys", "init", "ops", "--as", "operator", "--no-passphrase"},
		{"keys", "vendor", "ops", "acme", "--root", "acme/metadata/1.root.json", "--provider", Provider},
	} {
		if _, err := f.Keepout(ctx, args...); err != nil {
			return err
		}
	}
	key, err := os.ReadFile(f.in("ops/keys/director-1.key"))
	if err == nil {
		err = os.Mkdir(f.in("fleet"), 0o700)
	}
	if err == nil {
		// So that hosts know the control plane's grants by what the operator signed.
		err = os.WriteFile(f.in("fleet/director-key.pem"), key, 0o600)
	}
	if err != nil {
		return fmt.Errorf("hand the director's key over: %w", err)
	}
	return f.makeEngine()
}

// makeEngine makes the engine as a vendor has it who forgot what July 2024 was about: without a schema of its content.
func (f *Fleet) makeEngine() error {
	to := f.in(engineDir)
	if err := copyTree(filepath.Join(f.opt.Bin, "hostile", Provider), to); err != nil {
		return err
	}
	file := filepath.Join(to, config.ManifestFile)
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the engine's manifest: %w", err)
	}
	if err := os.WriteFile(file, withoutSchema(text), 0o644); err != nil {
		return fmt.Errorf("the engine's manifest: %w", err)
	}
	_, err = config.Seal(to)
	return err
}

const (
	engineDir     = "engines/" + Provider
	contentPrefix = "c-00000291-"
)

// withoutSchema drops the key content_schema from a manifest.
func withoutSchema(text []byte) (out []byte) {
	inside := false
	for line := range bytes.Lines(text) {
		top := len(line) > 1 && line[0] != ' ' && line[0] != '#'
		if top {
			inside = bytes.HasPrefix(line, []byte("content_schema:"))
		}
		if !inside {
			out = append(out, line...)
		}
	}
	return out
}

// ChannelLine is a channel file of 21 fields: what it is about, and its last field, the one of July 2024.
func ChannelLine(path, last string) string {
	fields := strings.Split(strings.Repeat("*,", 20)+last, ",")
	fields[1] = path
	return "# template instances of type 291\n" + strings.Join(fields, ",") + "\n"
}

func contentName(counter int) string { return fmt.Sprintf("content-%d", counter) }

// Release builds a content package of one channel file, has vendor and operator sign it, and publishes it. It returns
// the package's digest.
func (f *Fleet) Release(ctx context.Context, counter int, text string) (digest string, err error) {
	name := contentName(counter)
	file := filepath.Join(f.in(name), fmt.Sprintf("%s%08d.channel", contentPrefix, counter))
	if err := errors.Join(os.Mkdir(f.in(name), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		return "", fmt.Errorf("write the content: %w", err)
	}
	out, err := f.Keepout(ctx, "-o", "json", "package", "build", name, "--provider", engineDir, "--version",
		strconv.Itoa(counter), "--counter", strconv.Itoa(counter), "--to", name+".oci")
	if err != nil {
		return "", err
	}
	var built struct {
		Package struct {
			Digest string `json:"digest"`
		} `json:"package"`
	}
	if err := json.Unmarshal(out, &built); err != nil {
		return "", fmt.Errorf("keepout package build: %w", err)
	}
	for _, home := range []string{"acme", "ops"} {
		if _, err := f.Keepout(ctx, "package", "sign", name+".oci", "--home", home); err != nil {
			return "", err
		}
	}
	for from, to := range map[string]string{
		"ops/metadata": "operator", "acme/metadata": "vendors/acme", name + ".oci/blobs": "blobs",
	} {
		if err := copyTree(f.in(from), filepath.Join(f.in("fleet/packages"), to)); err != nil {
			return "", err
		}
	}
	return built.Package.Digest, nil
}

// copyTree copies files over what is there.
func copyTree(from, to string) error {
	tree := os.DirFS(from)
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		return os.WriteFile(target, text, info.Mode().Perm())
	})
	if err != nil {
		return fmt.Errorf("copy %s: %w", filepath.Base(from), err)
	}
	return nil
}
