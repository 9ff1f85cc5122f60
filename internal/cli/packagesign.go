package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/artifact/layout"
	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/issuer"
	"github.com/keepout-security/keepout/internal/sign"
)

func (a *app) packageSignCommand() *cobra.Command {
	var s signing
	var home, party, role, tag string
	var refresh bool
	cmd := &cobra.Command{
		Use:   "sign LAYOUT --home DIR [--as vendor|operator] | --refresh --home DIR",
		Short: "Name a package in a vendor's or an operator's repository",
		Long: "Name a package in the repository of a vendor or an operator: its digest, and what it says of itself. A\n" +
			"host activates only what both name. Where several people must sign, each runs the same command.\n\n" +
			"With --refresh, say anew that what is published is current, before it expires.",
		Args: func(_ *cobra.Command, args []string) error {
			if want := map[bool]int{false: 1, true: 0}[refresh]; len(args) != want || home == "" {
				return usageError{errors.New("want a package's folder and --home DIR, or --refresh --home DIR")}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return a.with(&s, home, func(i *issuer.Issuer) error {
				if party != "" && party != string(i.Party()) {
					return usageError{fmt.Errorf("%s is %s's, and this is to be signed as %s", home, i.Party(), party)}
				}
				if refresh {
					p, err := i.Refresh(a.today(), strings.Fields(role)...)
					return a.progress(fmt.Sprintf("%s %s is current", i.Party(), i.Name()), p, err)
				}
				return a.signPackage(i, args[0], tag, role)
			})
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&home, "home", "", "the folder of the vendor or operator")
	cmd.Flags().StringVar(&party, "as", "", "vendor or operator: only if the folder is that party's")
	cmd.Flags().StringVar(&role, "role", "", "engine or content: only if the package is of that class")
	cmd.Flags().StringVar(&tag, "tag", "", "which package of the folder")
	cmd.Flags().BoolVar(&refresh, "refresh", false, "say anew that what is published is current")
	return cmd
}

// signPackage reads the whole package before it signs it: what is named can be read by a host.
func (a *app) signPackage(i *issuer.Issuer, dir, tag, role string) (err error) {
	entry, f, err := choose(dir, tag)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	target, err := claimed(f, entry)
	if err != nil {
		return err
	}
	if _, err := layout.Verify(f, target); err != nil {
		return err
	}
	if role != "" && role != string(target.Class) {
		return usageError{fmt.Errorf("%s is of class %s, and this is to be signed as %s", target.Path, target.Class, role)}
	}
	p, err := i.Release(target.Release, target.Digest, target.Length, a.today())
	return a.progress(fmt.Sprintf("%s %s names %s: release %d, %s", i.Party(), i.Name(), target.Path, target.Counter,
		target.Digest), p, err)
}

// claimed is what a package says of itself, as a target. It proves nothing.
func claimed(dir fs.FS, entry layout.Entry) (sign.Target, error) {
	p, err := layout.Open(dir, entry.Digest, entry.Size)
	if err != nil {
		return sign.Target{}, err
	}
	config, err := p.Config()
	if err != nil {
		return sign.Target{}, err
	}
	t := sign.Target{Digest: entry.Digest, Length: entry.Size}
	if err := json.Unmarshal(config, &t.Release); err != nil {
		return sign.Target{}, fmt.Errorf("read what the package says of itself: %w", err)
	}
	t.Path = t.TargetPath()
	return t, t.Describes(config)
}

// verifying is the command line of package verify.
type verifying struct {
	vendor, operator, root, state, hardware, tag string
}

func (a *app) packageVerifyCommand() *cobra.Command {
	var v verifying
	cmd := &cobra.Command{
		Use:   "verify LAYOUT --vendor NAME=REPOSITORY --operator REPOSITORY",
		Short: "Decide as a host does whether a package may be activated",
		Long: "Decide as a host does whether a package may be activated: vendor and operator must name it, and every byte\n" +
			"of it is compared. Trust begins with the operator's root file (--root); a host got its own at enrolment.\n" +
			"With --state, what was seen is remembered, and older metadata is refused the next time.",
		Args: exactArgs(1, "a package's folder"),
		RunE: func(_ *cobra.Command, args []string) error { return a.verify(&v, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&v.vendor, "vendor", "", "the operator's name for the vendor, and the folder of its repository: NAME=DIR")
	f.StringVar(&v.operator, "operator", "", "the folder of the operator's repository")
	f.StringVar(&v.root, "root", "", "the operator's root file; default: 1.root.json of that folder, whatever it is")
	f.StringVar(&v.state, "state", "", "file that remembers what was seen")
	f.StringVar(&v.hardware, "hardware", thisHardware(), "for which hardware")
	f.StringVar(&v.tag, "tag", "", "which package of the folder")
	return cmd
}

func (a *app) verify(v *verifying, dir string) (err error) {
	name, repository, ok := strings.Cut(v.vendor, "=")
	if !ok || v.operator == "" {
		return usageError{errors.New("name --vendor NAME=DIR and --operator DIR")}
	}
	entry, f, err := choose(dir, v.tag)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	claim, err := claimed(f, entry)
	if err != nil {
		return err
	}
	target, err := v.decide(a.today(), claim.Path, name, repository)
	if err != nil {
		return err
	}
	if _, err := layout.Verify(f, target); err != nil {
		return err
	}
	if a.output == "json" {
		return printJSON(a.out, map[string]any{
			"path": target.Path, "digest": target.Digest, "length": target.Length, "vendor": target.Vendor,
			"release": target.Release,
		})
	}
	_, err = fmt.Fprintf(a.out, "%s is good: %s and the operator both name it (release %d, for %s)\n%s\n", target.Path,
		target.Vendor, target.Counter, strings.Join(target.Hardware, ", "), target.Digest)
	return err
}

// decide asks what is signed about a path, and remembers what it saw.
func (v *verifying) decide(now time.Time, path, name, repository string) (target sign.Target, err error) {
	if v.root == "" {
		v.root = filepath.Join(v.operator, "1.root.json")
	}
	trust := sign.Trust{Vendor: name, Hardware: v.hardware}
	if trust.OperatorRoot, err = os.ReadFile(v.root); err != nil {
		return sign.Target{}, fmt.Errorf("read the operator's root: %w", err)
	}
	var state sign.State
	if raw, err := os.ReadFile(v.state); err == nil {
		if state, err = sign.DecodeState(raw); err != nil {
			return sign.Target{}, err
		}
	} else if v.state != "" && !errors.Is(err, fs.ErrNotExist) {
		return sign.Target{}, fmt.Errorf("read the state: %w", err)
	}
	vendor, err := folder.Open(repository)
	if err != nil {
		return sign.Target{}, err
	}
	defer func() { err = errors.Join(err, vendor.Close()) }()
	operator, err := folder.Open(v.operator)
	if err != nil {
		return sign.Target{}, err
	}
	defer func() { err = errors.Join(err, operator.Close()) }()
	target, state, err = sign.Verify(trust, state, now, vendor, operator, path)
	if v.state != "" {
		raw, encodeErr := state.Encode()
		if encodeErr == nil {
			encodeErr = durable.WriteFileOn(durable.OS(), v.state, raw, 0o600)
		}
		err = errors.Join(err, encodeErr)
	}
	return target, err
}

// inspection is what package inspect prints. Field names are stable.
type inspection struct {
	Digest  string              `json:"digest"`
	Length  int64               `json:"length"`
	Type    string              `json:"type"`
	Path    string              `json:"path"`
	Release sign.Release        `json:"release"`
	Layers  []layout.Descriptor `json:"layers"`
	Files   []layout.File       `json:"files"`
}

func (a *app) inspect(dir fs.FS, entry layout.Entry) error {
	claim, err := claimed(dir, entry)
	if err != nil {
		return err
	}
	p, err := layout.Open(dir, entry.Digest, entry.Size)
	if err != nil {
		return err
	}
	out := inspection{
		Digest: p.Digest(), Length: entry.Size, Type: p.Type(), Path: claim.Path, Release: claim.Release, Layers: p.Layers(),
	}
	_, err = p.Files(func(f layout.File, _ io.Reader) error {
		out.Files = append(out.Files, f)
		return nil
	})
	if err != nil {
		return err
	}
	if a.output == "json" {
		return printJSON(a.out, out)
	}
	r := out.Release
	fmt.Fprintf(a.out, "%s\n  digest    %s\n  release   %d (%s, class %s), floor %d\n", out.Path, out.Digest, r.Counter,
		r.Kind, r.Class, r.Floor)
	fmt.Fprintf(a.out, "  for       %s\n  holds     %s, %d bytes\n", strings.Join(r.Hardware, ", "),
		plural(len(out.Files), "file"), r.Size)
	for _, l := range out.Layers {
		fmt.Fprintf(a.out, "  layer     %s, %d bytes\n", l.MediaType, l.Size)
	}
	for _, f := range out.Files {
		kind := map[bool]string{true: ", executable"}[f.Executable]
		fmt.Fprintf(a.out, "  file      %s, %d bytes%s\n", f.Name, f.Size, kind)
	}
	_, err = fmt.Fprintln(a.out, "Who signed it is for keepout package verify to say.")
	return err
}
