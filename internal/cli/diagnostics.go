package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/recovery/diagnostics"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/update"
)

// keptBundles is how many bundles stay in the folder.
const keptBundles = 16

// gathering is what the diagnostics commands share.
type gathering struct {
	level  string
	state  string
	root   string
	redact []string
	key    string
	to     string
}

func (a *app) diagnosticsCommand() *cobra.Command {
	g := &gathering{}
	preview := &cobra.Command{
		Use: "preview", Short: "Show what a bundle would hold, and the rules of redaction; nothing is kept or sent",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, encoded, err := a.makeBundle(cmd.Context(), g)
			if err != nil {
				return err
			}
			return a.printPreview(&b, encoded)
		},
	}
	collect := &cobra.Command{
		Use: "collect", Short: "Make a diagnostics bundle and keep it on this machine; nothing is sent",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, encoded, err := a.makeBundle(cmd.Context(), g)
			if err != nil {
				return err
			}
			path, err := keepBundle(g.folder(), encoded)
			if err != nil {
				return err
			}
			return a.told("kept", path, encoded)
		},
	}
	send := &cobra.Command{
		Use: "send [FILE]", Short: "Encrypt a kept bundle for the organisation and hand it over to be sent",
		Long: "Encrypt a bundle that collect has kept (by default the newest) for the organisation, and put it into the\n" +
			"outbox, from where it is sent, or into the file that --to names. The bundle stays where it is kept.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("want one file at most, got %d", len(args))}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.sendBundle(g, args) },
	}
	for _, c := range []*cobra.Command{preview, collect} {
		c.Flags().StringVar(&g.level, "level", "full", "off, minimal or full")
		c.Flags().StringArrayVar(&g.redact, "redact", nil, "take this text out as well; may be given several times")
		c.Flags().StringVar(&g.root, "root", "/", "folder in which the host's files are")
	}
	send.Flags().StringVar(&g.key, "key", "/etc/keepout/diagnostics.pub", "file with the organisation's age recipients")
	send.Flags().StringVar(&g.to, "to", "", "write the encrypted bundle to this file instead of the outbox")
	cmd := group("diagnostics", "Preview, collect and send what helps to find out why this machine failed",
		preview, collect, send)
	cmd.PersistentFlags().StringVar(&g.state, "state-dir", "/var/lib/keepout", "directory of journal and state")
	return cmd
}

func (g *gathering) folder() string { return filepath.Join(g.state, "diagnostics") }
func (g *gathering) outbox() string { return filepath.Join(g.state, update.OutboxDir) }

// makeBundle gathers what there is. Only what redaction could not do without is an error.
func (a *app) makeBundle(ctx context.Context, g *gathering) (diagnostics.Bundle, []byte, error) {
	level, err := diagnostics.ParseLevel(g.level)
	if err != nil {
		return diagnostics.Bundle{}, nil, usageError{err}
	}
	if level == diagnostics.Off {
		return diagnostics.Bundle{}, nil, health.Problem{
			Code: "KO-2511", Title: "diagnostics are off", Severity: health.Failure,
			Fix: a.command("diagnostics preview --level minimal"),
		}
	}
	in := diagnostics.Gather(os.DirFS(g.root), nil)
	in.Now, in.Versions.Keepout, in.Known.Others = time.Now(), a.version, g.redact
	in.Nonce = make([]byte, 16)
	if _, err := rand.Read(in.Nonce); err != nil {
		return diagnostics.Bundle{}, nil, fmt.Errorf("make a nonce: %w", err)
	}
	if s, err := a.fetchStatus(ctx); err == nil {
		for i := range s.Providers {
			in.Providers = append(in.Providers, providerFor(&s.Providers[i]))
		}
	}
	in.Changes, in.Crashes = changes(filepath.Join(g.state, "journal"), in.Now.Add(-7*24*time.Hour))
	if g.root == "/" {
		in.Units, in.Timings = serviceState(ctx)
	}
	records, _ := crash.Saved("") // without any, there is none to tell of
	if r, found := crash.Recent(records, in.Now); found {
		in.Failure.Attempts, in.Failure.Cause = r.Attempts, r.Cause
		if r.Starting != nil {
			in.Failure.Starting = r.Starting.ID
		}
		if r.Suspect != nil {
			in.Failure.Suspect, in.Failure.Reason = r.Suspect.ID, r.Suspect.Reason
		}
	}
	return diagnostics.Make(&in, level)
}

// changes reads the change journal's newest entries, and how providers ended.
func changes(dir string, since time.Time) ([]diagnostics.Change, []diagnostics.Crash) {
	const most = 1000
	var out []diagnostics.Change
	ends := map[[2]string]*diagnostics.Crash{}
	// A journal that is damaged or not there is no reason to send nothing.
	_ = journal.Read(dir, since, func(e *journal.Entry) bool {
		if e.Kind != journal.KindNote {
			return true
		}
		n := &e.Note
		out = append(out, diagnostics.Change{
			At: n.Time.UTC(), Code: n.Code, Provider: n.Provider, What: strings.TrimSpace(n.Title + ": " + n.Detail),
		})
		out = out[max(len(out)-most, 0):]
		if n.Code == "provider.ended" {
			cause, _, _ := strings.Cut(n.Detail, "; restart in ")
			key := [2]string{n.Provider, cause}
			if ends[key] == nil && len(ends) < most {
				ends[key] = &diagnostics.Crash{Provider: n.Provider, Signature: cause}
			}
			if c := ends[key]; c != nil {
				c.Count++
				c.Last = n.Time.UTC()
			}
		}
		return true
	})
	crashes := make([]diagnostics.Crash, 0, len(ends))
	for _, c := range ends {
		crashes = append(crashes, *c)
	}
	slices.SortFunc(crashes, func(a, b diagnostics.Crash) int { return a.Last.Compare(b.Last) })
	return out, crashes
}

// serviceState asks the service manager what failed and how long the boot took. Without one there is no answer.
func serviceState(ctx context.Context) ([]diagnostics.Unit, []diagnostics.Timing) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var units []diagnostics.Unit
	if text, err := exec.CommandContext(ctx, "systemctl", "list-units", "--failed", "--output=json").Output(); err == nil {
		units, _ = diagnostics.ParseUnits(text) // an old systemctl knows no JSON
	}
	var timings []diagnostics.Timing
	wanted := "--property=" + strings.Join(diagnostics.TimingProperties(), ",")
	if text, err := exec.CommandContext(ctx, "systemctl", "show", wanted).Output(); err == nil {
		timings = diagnostics.ParseTimings(text)
	}
	return units, timings
}

func (a *app) printPreview(b *diagnostics.Bundle, encoded []byte) error {
	rules := diagnostics.Rules()
	if a.output == "json" {
		return printJSON(a.out, struct {
			Bytes  int                 `json:"bytes"`
			Rules  []diagnostics.Rule  `json:"rules"`
			Bundle *diagnostics.Bundle `json:"bundle"`
		}{len(encoded), rules, b})
	}
	fmt.Fprintln(a.out, a.paint.in(bold, fmt.Sprintf("A bundle of level %s, %d bytes. Nothing was kept or sent.",
		b.Level, len(encoded))))
	fmt.Fprintln(a.out, "\nWhat the rules take out, and how often they did here")
	for i := range rules {
		n := 0
		for _, r := range b.Redacted {
			if r.Rule == rules[i].Name {
				n = r.Count
			}
		}
		fmt.Fprintf(a.out, "  %5d  %-24s %s\n", n, rules[i].Name, rules[i].What)
	}
	if len(b.Cuts) > 0 {
		fmt.Fprintln(a.out, "\nWhat did not fit")
		for _, c := range b.Cuts {
			fmt.Fprintf(a.out, "  %s: %d of %d %s kept\n", c.What, c.Kept, c.Of, c.Unit)
		}
	}
	fmt.Fprintln(a.out, "\nWhat is in it")
	_, err := a.out.Write(encoded)
	return err
}

// Names of the files of bundles and parcels.
const (
	bundlePrefix = "bundle-"
	bundleSuffix = ".json"
	parcelSuffix = ".parcel"
)

// keepBundle writes a bundle into the folder and removes what is too many.
func keepBundle(dir string, encoded []byte) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", unkept(dir, err)
	}
	path := filepath.Join(dir, bundlePrefix+time.Now().UTC().Format("20060102-150405")+"-"+
		crash.CodeOf(diagnostics.Digest(encoded))+bundleSuffix)
	if err := durable.WriteFile(path, encoded, 0o600); err != nil {
		return "", unkept(dir, err)
	}
	names, err := bundles(dir)
	for _, old := range names[:max(len(names)-keptBundles, 0)] {
		err = errors.Join(err, os.Remove(filepath.Join(dir, old)))
	}
	if err != nil {
		return "", unkept(dir, err)
	}
	return path, nil
}

func unkept(dir string, err error) error {
	return health.Problem{
		Code: "KO-2512", Title: fmt.Sprintf("the bundle cannot be kept in %s: %v", dir, err), Severity: health.Failure,
		Fix: "make room there, or use sudo or another --state-dir",
	}
}

// bundles lists the kept bundles, the oldest first.
func bundles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list bundles: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), bundlePrefix) && strings.HasSuffix(e.Name(), bundleSuffix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// told prints where a file is, and by which code people call it.
func (a *app) told(what, path string, encoded []byte) error {
	digest := diagnostics.Digest(encoded)
	if a.output == "json" {
		return printJSON(a.out, struct {
			Path   string `json:"path"`
			Report string `json:"report"`
			Digest string `json:"digest"`
		}{path, crash.CodeOf(digest), digest})
	}
	_, err := fmt.Fprintf(a.out, "Report %s: %s in %s\n", crash.CodeOf(digest), what, path)
	return err
}

// bundleToSend is the file that was named, or the newest bundle that is kept.
func (a *app) bundleToSend(g *gathering, args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	names, err := bundles(g.folder())
	if err != nil {
		return "", err
	}
	if len(names) == 0 {
		return "", health.Problem{
			Code: "KO-2513", Title: "no bundle is kept in " + g.folder(), Severity: health.Failure,
			Fix: a.command("diagnostics collect"),
		}
	}
	return filepath.Join(g.folder(), names[len(names)-1]), nil
}

func (a *app) sendBundle(g *gathering, args []string) error {
	file, err := a.bundleToSend(g, args)
	if err != nil {
		return err
	}
	encoded, err := readBounded(file, diagnostics.MaxBundle)
	if err != nil {
		return err
	}
	key, err := readBounded(g.key, 64<<10)
	if err != nil {
		return health.Problem{
			Code: "KO-2514", Title: fmt.Sprintf("no key of the organisation: %v; nothing leaves this machine unencrypted", err),
			Severity: health.Failure, Fix: "put the organisation's age recipients into " + g.key +
				", or name the file with --key",
		}
	}
	recipients, err := diagnostics.ParseRecipients(key)
	if err != nil {
		return fmt.Errorf("%s: %w", g.key, err)
	}
	parcel, err := diagnostics.Seal(encoded, recipients)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	to, what := g.to, "encrypted"
	if to == "" {
		if err := update.MakeOutbox(g.outbox(), update.FetchUser); err != nil {
			return unkept(g.outbox(), err)
		}
		to = filepath.Join(g.outbox(), strings.TrimSuffix(filepath.Base(file), bundleSuffix)+parcelSuffix)
		what = "encrypted and ready to be sent"
	}
	if err := durable.WriteFile(to, parcel, 0o640); err != nil {
		return unkept(filepath.Dir(to), err)
	}
	return a.told(what, to, encoded)
}

// readBounded reads a file that must not be longer than limit.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, limit)
	}
	return os.ReadFile(path)
}

// providerFor is a provider of the daemon's status as a bundle has it.
func providerFor(p *roster.Status) diagnostics.Provider {
	out := diagnostics.Provider{
		ID: p.ID, State: string(p.State), Engine: diagnostics.Slots{Active: p.Engine},
		Content: diagnostics.Slots{Active: p.Content},
	}
	if v := p.Versions; v != nil {
		out.Engine, out.Content = diagnostics.Slots(v.Engine), diagnostics.Slots(v.Content)
	}
	return out
}
