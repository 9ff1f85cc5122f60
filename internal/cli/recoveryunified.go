package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/recovery/image"
)

// defaultStub is where Debian's systemd-boot-efi has the stub.
const defaultStub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

const (
	maxStub  = 4 << 20
	signTime = time.Minute
)

func (f *imageFlags) addUnified(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.unify, "unified", false,
		"also put kernel, archive and parameters into one file, which your own key signs for Secure Boot")
	flags.StringVar(&f.stub, "stub", defaultStub, "systemd's stub `file` for --unified")
	flags.StringVar(&f.signKey, "sign-key", "", "private key `file` that signs the unified image (with sbsign)")
	flags.StringVar(&f.signCrt, "sign-cert", "", "certificate `file` of that key")
}

// unified makes a slot's unified image where that is wanted. A copy that has one is not built without one: the loader's
// entry would start the old one for ever.
func (f *imageFlags) unified(img *image.Image, slot image.Slot) error {
	img.Unified, img.Manifest.Unified = nil, nil
	if !f.unify {
		if image.Unified(f.dir, slot) {
			return fmt.Errorf("copy %s is a unified image: give --unified, or remove its .efi file and arm again", slot)
		}
		return nil
	}
	if (f.signKey == "") != (f.signCrt == "") {
		return errors.New("--sign-key and --sign-cert go together")
	}
	stub, err := readBounded(f.stub, maxStub)
	if err != nil {
		return fmt.Errorf("systemd's stub (Debian: systemd-boot-efi): %w", err)
	}
	unified, err := image.Unify(*img, slot, stub, "")
	if err == nil && f.signKey != "" {
		unified, err = f.sign(unified)
	}
	if err != nil {
		return err
	}
	img.SetUnified(unified)
	return nil
}

// sign lets sbsign sign an image: the key may lie in a token that only it can reach.
func (f *imageFlags) sign(unified []byte) ([]byte, error) {
	if _, err := exec.LookPath("sbsign"); err != nil {
		return nil, errors.New("sbsign is not installed (Debian: sbsigntool)")
	}
	dir, err := os.MkdirTemp("", "keepout-sign-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	in, out := filepath.Join(dir, "image.efi"), filepath.Join(dir, "signed.efi")
	if err := os.WriteFile(in, unified, 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), signTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sbsign", "--key", f.signKey, "--cert", f.signCrt, "--output", out, in)
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("sbsign: %w: %.400s", err, text)
	}
	return os.ReadFile(out)
}
