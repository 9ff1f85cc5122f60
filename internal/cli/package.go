package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/artifact"
	"github.com/keepout-security/keepout/internal/artifact/layout"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/content"
	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/sign"
)

func (a *app) packageCommand() *cobra.Command {
	return group("package", "Build, sign, verify and carry packages of engines and contents",
		a.packageBuildCommand(), a.packageSignCommand(), a.packageVerifyCommand(), a.packageInspectCommand(),
		a.packagePushCommand(), a.packagePullCommand())
}

// building is the command line of package build.
type building struct {
	kind, class, version, provider, sbom, to string

	counter, floor uint64
	hardware       []string
	shrinks        bool
}

func (a *app) packageBuildCommand() *cobra.Command {
	var b building
	cmd := &cobra.Command{
		Use: "build DIR --version V --counter N", Short: "Make a package from the files in a folder",
		Long: "Make a package from the files in a folder: an OCI image layout, with the files, the provider's manifest,\n" +
			"a bill of materials and the content's schema. The same files give the same bytes, and so the same digest.\n\n" +
			"An engine's folder is named after its provider and holds a sealed provider.yaml. For content, name that\n" +
			"folder with --provider: content that does not fit its schema is refused.",
		Args: exactArgs(1, "a folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := b.input(cmd, args[0])
			if err != nil {
				return err
			}
			to := b.to
			if to == "" {
				to = in.Release.Provider + ".oci"
			}
			built, err := artifact.Build(cmd.Context(), in, to)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.out, map[string]any{"package": built, "layout": to, "tag": artifact.Tag(built.Release)})
			}
			_, err = fmt.Fprintf(a.out, "%s in %s: %s, %d bytes, release %d, for %s\n%s\n", built.Path, to,
				plural(built.Files, "file"), built.Release.Size, built.Release.Counter,
				strings.Join(built.Release.Hardware, ", "), built.Digest)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&b.kind, "kind", "", "engine or content; default: engine when the folder holds provider.yaml")
	f.StringVar(&b.class, "class", "", "engine for content that makes an engine do what is new to it; default: the kind")
	f.StringVar(&b.version, "version", "", "the release's name, for people")
	f.Uint64Var(&b.counter, "counter", 0, "the release's number; a later release has a higher one")
	f.Uint64Var(&b.floor, "floor", 0, "no release with a lower number may run any more, where this one was seen")
	f.StringArrayVar(&b.hardware, "hardware", nil, "what it runs on, as linux/amd64; default: this machine; content: any")
	f.BoolVar(&b.shrinks, "shrinks", false, "content is meant to be empty, or less than half of the release before")
	f.StringVar(&b.provider, "provider", "", "the provider's folder, for content")
	f.StringVar(&b.sbom, "sbom", "", "bill of materials, SPDX or CycloneDX as JSON; default: made from the files")
	f.StringVar(&b.to, "to", "", "the layout's folder; default: PROVIDER.oci")
	return cmd
}

// input reads what the package is made of, and refuses what a host would refuse.
func (b *building) input(cmd *cobra.Command, dir string) (artifact.Input, error) {
	if b.version == "" || b.counter == 0 {
		return artifact.Input{}, usageError{errors.New("name the release: --version V --counter N")}
	}
	if b.kind == "" {
		b.kind = string(sign.Content)
		if _, err := os.Stat(filepath.Join(dir, config.ManifestFile)); err == nil {
			b.kind = string(sign.Engine)
		}
	}
	if b.class == "" {
		b.class = b.kind
	}
	engine := dir
	if b.kind == string(sign.Content) {
		if engine = b.provider; engine == "" {
			return artifact.Input{}, usageError{errors.New("name the folder of the content's provider: --provider DIR")}
		}
	}
	m, err := config.LoadManifest(engine)
	if err != nil {
		return artifact.Input{}, err
	}
	if b.kind == string(sign.Engine) {
		program, err := m.OpenExecutable()
		if err != nil {
			return artifact.Input{}, err
		}
		if err := program.Close(); err != nil {
			return artifact.Input{}, fmt.Errorf("close the executable: %w", err)
		}
	} else if m.Schema.Declared() {
		if err := content.Check(cmd.Context(), dir, &m.Schema); err != nil {
			return artifact.Input{}, err
		}
	}
	return b.describe(dir, engine, m.ID)
}

func (b *building) describe(dir, engine, provider string) (in artifact.Input, err error) {
	in = artifact.Input{Files: dir, Release: sign.Release{
		Provider: provider, Kind: sign.Class(b.kind), Class: sign.Class(b.class), Version: b.version, Counter: b.counter,
		Floor: b.floor, Hardware: b.hardware, Shrinks: b.shrinks,
	}}
	if len(b.hardware) == 0 {
		in.Release.Hardware = []string{thisHardware()}
		if b.kind == string(sign.Content) {
			in.Release.Hardware = []string{"any"}
		}
	}
	if in.Manifest, err = artifact.ReadManifest(engine); err != nil {
		return in, err
	}
	in.Schema = section(in.Manifest, "content_schema")
	if b.sbom != "" {
		if in.SBOM, err = os.ReadFile(b.sbom); err != nil {
			return in, fmt.Errorf("read the bill of materials: %w", err)
		}
	}
	if err := in.Release.Check(); err != nil {
		return in, usageError{err}
	}
	return in, nil
}

func thisHardware() string { return runtime.GOOS + "/" + runtime.GOARCH }

// section cuts a top-level key with its value out of YAML, as it is written; nil when it is not there.
func section(text []byte, key string) []byte {
	var out strings.Builder
	inside := false
	for line := range strings.Lines(string(text)) {
		if top := strings.TrimLeft(line, " \t#\r\n-") != "" && !strings.ContainsAny(line[:1], " \t#-\r\n"); top {
			inside = strings.HasPrefix(line, key+":")
		}
		if inside {
			out.WriteString(line)
		}
	}
	if out.Len() == 0 {
		return nil
	}
	return []byte(out.String())
}

// choose finds the package that is meant in a layout.
func choose(dir, tag string) (layout.Entry, *folder.Folder, error) {
	f, err := folder.Open(dir)
	if err != nil {
		return layout.Entry{}, nil, err
	}
	list, err := layout.List(f)
	if err != nil {
		return layout.Entry{}, nil, errors.Join(err, f.Close())
	}
	var names []string
	for _, e := range list {
		if tag == e.Tag() || tag == e.Digest || tag == "" && len(list) == 1 {
			return e, f, nil
		}
		names = append(names, e.Tag())
	}
	return layout.Entry{}, nil, errors.Join(f.Close(), usageError{fmt.Errorf("%s holds %s; name one with --tag: %s", dir,
		plural(len(list), "package"), strings.Join(names, ", "))})
}

func (a *app) packageInspectCommand() *cobra.Command {
	var tag string
	cmd := &cobra.Command{
		Use: "inspect LAYOUT", Short: "Show what a package says of itself and holds. Nothing of that is trusted",
		Args: exactArgs(1, "a package's folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			entry, f, err := choose(args[0], tag)
			if err != nil {
				return err
			}
			return errors.Join(a.inspect(f, entry), f.Close())
		},
	}
	cmd.Flags().StringVar(&tag, "tag", "", "which package of the folder")
	return cmd
}

func (a *app) packagePushCommand() *cobra.Command {
	var tag string
	var plain bool
	cmd := &cobra.Command{
		Use: "push LAYOUT HOST/REPOSITORY[:TAG]", Short: "Copy a package to an OCI registry",
		Args: exactArgs(2, "a package's folder and a repository"),
		RunE: func(cmd *cobra.Command, args []string) error {
			entry, f, err := choose(args[0], tag)
			if err != nil {
				return err
			}
			name := entry.Tag()
			if name == "" {
				name = entry.Digest
			}
			digest, err := artifact.Push(cmd.Context(), args[0], name, artifact.Remote{Reference: args[1], PlainHTTP: plain})
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
			return a.carried("pushed", args[1], digest)
		},
	}
	cmd.Flags().StringVar(&tag, "tag", "", "which package of the folder")
	cmd.Flags().BoolVar(&plain, "plain-http", false, "without TLS: for a registry on this machine")
	return cmd
}

func (a *app) packagePullCommand() *cobra.Command {
	var want string
	var plain bool
	cmd := &cobra.Command{
		Use: "pull HOST/REPOSITORY:TAG LAYOUT", Short: "Copy a package from an OCI registry into a folder",
		Args: exactArgs(2, "a repository with a tag, and a folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			digest, err := artifact.Pull(cmd.Context(), artifact.Remote{Reference: args[0], PlainHTTP: plain}, args[1], want)
			if err != nil {
				return err
			}
			return a.carried("pulled", args[0], digest)
		},
	}
	cmd.Flags().StringVar(&want, "digest", "", "take it only if it has this digest")
	cmd.Flags().BoolVar(&plain, "plain-http", false, "without TLS: for a registry on this machine")
	return cmd
}

func (a *app) carried(how, reference, digest string) error {
	if a.output == "json" {
		return printJSON(a.out, map[string]string{how: reference, "digest": digest})
	}
	_, err := fmt.Fprintf(a.out, "%s %s: %s\n", how, reference, digest)
	return err
}
