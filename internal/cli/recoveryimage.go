package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/diagnostics"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/image"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/modindex"
	"github.com/keepout-security/keepout/internal/recovery/settings"
)

func (a *app) recoveryImageCommand() *cobra.Command {
	return group("image", "The recovery environment on this machine's disk",
		a.recoveryImageBuildCommand(), a.recoveryImageVerifyCommand())
}

// imageFlags say what an image is built from. What is not given is taken from the running system.
type imageFlags struct {
	dir, slot, kernel, modules, init, settings, roots, keys, recipients string

	unify                  bool
	stub, signKey, signCrt string
	built                  int64
	unproven               bool
}

func (a *app) recoveryImageBuildCommand() *cobra.Command {
	var f imageFlags
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build the recovery image for the running kernel and put it on the boot file system",
		Args:  exactArgs(0, "no arguments"),
		RunE:  func(*cobra.Command, []string) error { return a.buildImage(&f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", "", "Keepout's `folder` on the ESP or /boot; without it, it is looked for")
	flags.StringVar(&f.slot, "copy", "", "write copy `a|b`; without it, what is missing or damaged, else the older one")
	flags.StringVar(&f.kernel, "kernel", "", "kernel `file` (default: that of the running system)")
	flags.StringVar(&f.modules, "modules", "", "`folder` of its modules (default: /lib/modules/RELEASE)")
	flags.StringVar(&f.init, "init", "", "the environment's `program` (default: keepout-rescue beside this one)")
	flags.StringVar(&f.settings, "settings", "/etc/keepout/recovery.json", "`file` with the server, times and networks")
	flags.StringVar(&f.roots, "roots", "/etc/ssl/certs/ca-certificates.crt", "PEM `file` of certification authorities")
	flags.StringVar(&f.keys, "keys", "", "`file` with the keys of remediations (default: trust/keys.json in the folder)")
	flags.StringVar(&f.recipients, "recipients", "/etc/keepout/recipients.txt", "`file` with the keys for diagnostics")
	flags.Int64Var(&f.built, "time", 0,
		"build time in `seconds` since 1970: the same one gives the same image (default: now)")
	flags.BoolVar(&f.unproven, "unproven", false, "use the running kernel although this boot was not judged good yet")
	f.addUnified(cmd)
	return cmd
}

func imageProblem(err error) error {
	return health.Problem{
		Code: "KO-2401", Severity: health.Failure, Title: fmt.Sprintf("the recovery image cannot be built: %v", err),
		Fix: "keepout recovery image build --help names what it is built from; docs/recovery-image.md has an example",
	}
}

func (a *app) buildImage(f *imageFlags) error {
	if f.dir == "" {
		dir, err := esp.Find("/")
		if err != nil {
			return imageProblem(fmt.Errorf("recovery is not armed here (keepout recovery arm): %w", err))
		}
		f.dir = dir
	}
	if running := f.kernel == ""; running && !f.unproven && esp.Open(f.dir).State().State.Boot != "" {
		return health.Problem{
			Code: "KO-2402", Severity: health.Failure,
			Title: "this boot was not judged good yet, so that its kernel is not proven",
			Fix:   "try again when keepout recovery status calls it good, or give --unproven",
		}
	}
	source, err := f.source()
	if err != nil {
		return imageProblem(err)
	}
	img, err := image.Build(source)
	if err != nil {
		return imageProblem(err)
	}
	slots, err := f.slots()
	if err != nil {
		return usageError{err}
	}
	for _, slot := range slots {
		if err := f.unified(&img, slot); err != nil {
			return imageProblem(err)
		}
		if err := image.Install(f.dir, slot, img); err != nil {
			return imageProblem(err)
		}
		if _, err := image.Verify(f.dir, slot); err != nil {
			return imageProblem(err)
		}
	}
	return a.tellImage(slots, img)
}

func (a *app) tellImage(slots []image.Slot, img image.Image) error {
	if a.output == "json" {
		return printJSON(a.out, map[string]any{"copies": slots, "manifest": img.Manifest})
	}
	for _, slot := range slots {
		fmt.Fprintf(a.out, "copy %s  kernel %s, image %.1f MB, kernel file %.1f MB\n", slot, img.Manifest.Release,
			megabytes(img.Manifest.Archive.Size), megabytes(img.Manifest.Kernel.Size))
	}
	fmt.Fprintf(a.out, "sha256  %s\n", img.Manifest.Archive.SHA256)
	if img.Manifest.Unified != nil {
		fmt.Fprintf(a.out, "unified image %.1f MB; systemd-boot starts it once you run: keepout recovery arm --yes\n",
			megabytes(img.Manifest.Unified.Size))
	}
	return nil
}

func megabytes(n int) float64 { return float64(n) / 1e6 }

// slots are the copies to write: never a good one while the other is not.
func (f *imageFlags) slots() ([]image.Slot, error) {
	if f.slot != "" {
		slot, err := image.ParseSlot(f.slot)
		return []image.Slot{slot}, err
	}
	var bad []image.Slot
	older, oldest := image.A, time.Time{}
	for _, slot := range image.Slots() {
		m, err := image.Verify(f.dir, slot)
		if err != nil {
			bad = append(bad, slot)
		} else if oldest.IsZero() || m.Built.Before(oldest) {
			older, oldest = slot, m.Built
		}
	}
	if len(bad) > 0 {
		return bad, nil
	}
	return []image.Slot{older}, nil
}

// source collects what the image is made of.
func (f *imageFlags) source() (image.Source, error) {
	release, err := runningKernel()
	if err != nil {
		return image.Source{}, err
	}
	s := image.Source{
		Kernel: orElse(f.kernel, "/boot/vmlinuz-"+release), Modules: orElse(f.modules, "/lib/modules/"+release),
		Init: orElse(f.init, filepath.Join(besideThis(), "keepout-rescue")), Devices: modindex.Devices("/sys/devices"),
	}
	if s.Settings, err = f.config(); err != nil {
		return s, err
	}
	for _, part := range []struct {
		to       *[]byte
		file     string
		optional bool
	}{
		{&s.Roots, f.roots, s.Settings.Server == ""},
		{&s.Recipients, f.recipients, true},
		{&s.Trust, orElse(f.keys, filepath.Join(f.dir, esp.Trust, intent.TrustFile)), s.Settings.Server == ""},
	} {
		data, err := os.ReadFile(part.file)
		if err != nil && (!part.optional || !os.IsNotExist(err)) {
			return s, err
		}
		*part.to = data
	}
	if len(s.Trust) == 0 {
		s.Trust = []byte("{}\n")
	}
	if _, err := intent.ParseTrust(s.Trust); err != nil {
		return s, err
	}
	return s, nil
}

func orElse(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func runningKernel() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("ask for the kernel's release: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// config reads the settings and completes them with what this machine knows of itself.
func (f *imageFlags) config() (settings.Config, error) {
	c := settings.Config{Version: 1}
	data, err := os.ReadFile(f.settings)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &c); err != nil {
			return c, fmt.Errorf("%s: %w", f.settings, err)
		}
	case !os.IsNotExist(err):
		return c, err
	}
	c.Built = time.Now().UTC().Truncate(time.Second)
	if f.built != 0 {
		c.Built = time.Unix(f.built, 0).UTC()
	}
	if c.Machine == "" {
		id, err := os.ReadFile("/etc/machine-id")
		if err != nil {
			return c, err
		}
		c.Machine = diagnostics.Pseudonym(string(id))
		if c.Entries == "" {
			c.Entries = strings.TrimSpace(string(id)) // what kernel-install begins the names of entries with
		}
	}
	if c.Volume.ID == "" {
		if c.Volume, err = settings.VolumeOf(f.dir); err != nil {
			return c, err
		}
	}
	if c.Boot == (settings.Volume{}) {
		c.Boot = secondBoot("/", f.dir, settings.VolumeOf)
	}
	err = c.Check()
	return c, err
}

// secondBoot is the file system beside the one of Keepout's folder on which the loader has entries, or zero. One that
// the recovery environment cannot read is left out: bootguard arms its entries at the next good boot.
func secondBoot(root, dir string, of func(string) (settings.Volume, error)) settings.Volume {
	own, err := of(dir)
	if err != nil {
		return settings.Volume{}
	}
	boot := filepath.Join(root, "boot")
	for _, folder := range []string{"loader/entries", "EFI/Linux"} {
		if _, err := os.Stat(filepath.Join(boot, folder)); err != nil {
			continue
		}
		if v, err := of(boot); err == nil && v.ID != own.ID {
			return v
		}
	}
	return settings.Volume{}
}

func (a *app) recoveryImageVerifyCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "verify", Short: "Hold both copies of the recovery image against their manifests (exit 3: one is bad, 1: both)",
		Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error { return a.verifyImage(dir) },
	}
	cmd.Flags().StringVar(&dir, "dir", "", "Keepout's `folder` on the ESP or /boot; without it, it is looked for")
	return cmd
}

// copyReport is one copy as verify tells it.
type copyReport struct {
	Copy    image.Slot `json:"copy"`
	Good    bool       `json:"good"`
	Release string     `json:"release"`
	Built   time.Time  `json:"built,omitzero"`
	Size    int        `json:"size"`
	Wrong   string     `json:"wrong,omitempty"`
}

func (a *app) verifyImage(dir string) error {
	var err error
	if dir == "" {
		if dir, err = esp.Find("/"); err != nil {
			return imageProblem(fmt.Errorf("recovery is not armed here (keepout recovery arm): %w", err))
		}
	}
	var reports []copyReport
	bad := 0
	for _, slot := range image.Slots() {
		m, err := image.Verify(dir, slot)
		r := copyReport{Copy: slot, Good: err == nil, Release: m.Release, Built: m.Built, Size: m.Archive.Size}
		if err != nil {
			r.Wrong = err.Error()
			bad++
		}
		reports = append(reports, r)
	}
	if a.output == "json" {
		if err := printJSON(a.out, reports); err != nil {
			return err
		}
	} else {
		a.printCopies(reports)
	}
	switch bad {
	case 0:
		return nil
	case len(reports):
		return health.Problem{
			Code: "KO-2403", Severity: health.Failure, Title: "no copy of the recovery image is good",
			Fix: "keepout recovery image build",
		}
	}
	return exit(exitDegraded)
}

func (a *app) printCopies(reports []copyReport) {
	for _, r := range reports {
		if !r.Good {
			fmt.Fprintf(a.out, "copy %s  BAD   %s\n", r.Copy, r.Wrong)
			continue
		}
		fmt.Fprintf(a.out, "copy %s  good  kernel %s, built %s, %.1f MB\n", r.Copy, r.Release,
			r.Built.Format(time.DateOnly), megabytes(r.Size))
	}
}
