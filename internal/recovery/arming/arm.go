//go:build linux

package arming

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/loader"
	"github.com/keepout-security/keepout/packaging"
)

// Options say what to arm.
type Options struct {
	Root string // "/" for the running system
	Bin  string // the folder of Keepout's programs, as the system sees it
	// Installation is the machine id of the system that is meant, where the boot loader starts several.
	Installation string
	Keys         string // the folder with the public keys of fixes; "" is KeyFolder below the root
}

// WhichError says that the boot loader starts several systems, and that somebody must say which is meant.
type WhichError struct {
	Own   string   // the machine id of the system at the root, "" when it has none
	Found []string // what else the loader starts
}

func (e *WhichError) Error() string {
	return fmt.Sprintf("the boot loader starts several systems: this one (%s), and %s", e.Own, strings.Join(e.Found, ", "))
}

// Parameters are what arming adds to the kernel's command line: a panic restarts the machine, and so does a crash of
// PID 1. A parameter that is there already stays as it is.
func Parameters() []string { return []string{"panic=10", "systemd.crash_reboot=1"} }

// planner collects the changes.
type planner struct {
	Options
	own  string // machine id
	dir  string // Keepout's folder, below the root, beginning with a slash
	plan Plan

	parameters []string // for the kernel's command line
}

// Arm plans what arming would change. It changes nothing.
func Arm(opt Options) (*Plan, error) {
	rec, err := readRecord(opt.Root)
	if err != nil {
		return nil, err
	}
	p := &planner{Options: opt, plan: Plan{root: opt.Root, record: rec}, parameters: Parameters()}
	p.own = p.machineID()
	p.dir = p.below(esp.Place(opt.Root))
	p.plan.Loader = p.detect()
	p.panicScreen()
	steps := []func() error{p.state, p.trust, p.units, p.pstore}
	switch p.plan.Loader {
	case loader.GRUB:
		steps = append(steps, p.grub)
	case loader.SystemdBoot:
		steps = append(steps, p.systemdBoot)
	default:
		p.say("this boot loader is not known: what fails before Keepout is started cannot be counted, and the recovery " +
			"environment cannot be started; the software counter works")
		p.say("add to the kernel's command line by hand: " + strings.Join(p.parameters, " "))
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	p.plan.record.Loader = p.plan.Loader
	if p.plan.Empty() {
		p.plan.Commands = nil
	}
	return &p.plan, nil
}

func (p *planner) say(note string) { p.plan.Notes = append(p.plan.Notes, note) }

func (p *planner) below(path string) string {
	return "/" + strings.TrimPrefix(strings.TrimPrefix(path, filepath.Clean(p.Root)), "/")
}

func (p *planner) at(path string) string { return filepath.Join(p.Root, path) }

func (p *planner) exists(path string) bool {
	_, err := os.Stat(p.at(path))
	return err == nil
}

func (p *planner) machineID() string {
	data, err := os.ReadFile(p.at("/etc/machine-id"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// want plans that a file has these bytes.
func (p *planner) want(path string, data []byte, mode fs.FileMode, why string) error {
	return p.become(path, &State{Data: data, Mode: mode}, why)
}

func (p *planner) become(path string, s *State, why string) error {
	now, err := look(p.Root, path)
	if err != nil {
		return err
	}
	if !now.equal(s) {
		p.plan.Changes = append(p.plan.Changes, Change{Path: path, Before: now, After: s, Why: why})
	}
	return nil
}

// once plans a file that others write to later: it is made where it is not there.
func (p *planner) once(path string, data []byte, why string) error {
	if p.exists(path) {
		return nil
	}
	return p.want(path, data, 0o600, why)
}

func (p *planner) vars() loader.Variables {
	return loader.Variables{Dir: p.at("/sys/firmware/efi/efivars")}
}

// detect finds the boot loader by what is on the disk, and by what it told the system that runs.
func (p *planner) detect() string {
	info, err := p.vars().Get("LoaderInfo")
	switch {
	case err == nil && strings.HasPrefix(info, "systemd-boot"):
		return loader.SystemdBoot
	case p.exists("/boot/grub/grub.cfg") && p.exists("/etc/grub.d"):
		return loader.GRUB
	}
	for _, mount := range []string{"efi", "boot/efi", "boot"} {
		if found, err := filepath.Glob(p.at(mount + "/EFI/systemd/systemd-boot*.efi")); err == nil && len(found) > 0 {
			return loader.SystemdBoot
		}
	}
	return loader.Unknown
}

// state makes Keepout's folder, with everything that must be there before the disk is full.
func (p *planner) state() error {
	if free, err := room(p.at(filepath.Dir(p.dir))); err == nil && free < needed {
		p.say(fmt.Sprintf("%s has only %d KiB of room: a recovery image does not fit", filepath.Dir(p.dir), free>>10))
	}
	s := boot.New()
	for i, name := range []string{esp.StateA, esp.StateB} {
		data, err := boot.Encode(&s, uint64(i+1))
		if err != nil {
			return err
		}
		if err := p.once(p.dir+"/"+name, data, "the count of boots, copy "+name[6:7]); err != nil {
			return err
		}
	}
	data, err := boot.EncodeCrumb(boot.Crumb{})
	if err != nil {
		return err
	}
	return p.once(p.dir+"/"+esp.CrumbFile, data, "what is being started, for whoever comes after a crash")
}

// needed is the room of two recovery images with their kernels, in bytes.
const needed = 64 << 20

// units installs what counts, judges and limits a boot.
func (p *planner) units() error {
	if !p.exists("/lib/systemd/systemd") && !p.exists("/usr/lib/systemd/systemd") {
		p.say("there is no systemd: start \"keepout-bootguard begin\" first in each boot, \"good\" when it is up, " +
			"\"shutdown\" last")
		return nil
	}
	if p.exists("/etc/update-motd.d") {
		if err := p.want("/etc/update-motd.d/60-keepout", packaging.Login(p.Bin), 0o755,
			"tell who logs in about a start that failed"); err != nil {
			return err
		}
	}
	const folder = "/etc/systemd/system/"
	for _, name := range packaging.Units() {
		if err := p.want(folder+name, packaging.Unit(name, p.Bin), 0o644, whyUnit(name)); err != nil {
			return err
		}
	}
	for target, unit := range map[string]string{
		"multi-user.target": "keepout-boot-good.service", "sysinit.target": "keepout-bootguard.service",
		"timers.target": "keepout-boot-deadline.timer", "paths.target": "keepout-revocations.path",
	} {
		link := &State{Link: folder + unit}
		if err := p.become(folder+target+".wants/"+unit, link, "start it with "+target); err != nil {
			return err
		}
	}
	slices.SortStableFunc(p.plan.Changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	p.plan.Commands = append(p.plan.Commands, []string{"systemctl", "daemon-reload"})
	return nil
}

func whyUnit(name string) string {
	switch name {
	case "keepout-bootguard.service":
		return "count each boot, and decide how it runs"
	case "keepout-boot-good.service":
		return "judge the boot, and set the counter anew when it is good"
	case "keepout-revocations.service", "keepout-revocations.path":
		return "remember fixes that were taken back, where the next start looks"
	case "sysinit.target.d/keepout.conf":
		return "restart when the system hangs early: after 10 minutes"
	default:
		return "restart when the system has not come up after 10 minutes"
	}
}

// pstore keeps what a panic leaves, and clears it from the firmware's memory.
func (p *planner) pstore() error {
	if err := p.want("/etc/systemd/pstore.conf.d/keepout.conf", packaging.Pstore(), 0o644,
		"keep what a panic leaves, and clear the firmware's memory of it"); err != nil {
		return err
	}
	return p.want("/etc/modules-load.d/keepout.conf", []byte("# Written by \"keepout recovery arm\".\nefi_pstore\n"),
		0o644, "a panic leaves its text only when this module is there")
}

// line edits one file that must be there.
func (p *planner) line(path, why string, edit func(text string) string) error {
	now, err := look(p.Root, path)
	if err != nil || now == nil || now.Link != "" {
		return err
	}
	after := &State{Data: []byte(edit(string(now.Data))), Mode: now.Mode}
	return p.become(path, after, why)
}

// withParameters adds what is missing to a command line.
func withParameters(line string, parameters []string) string {
	have := strings.Fields(line)
	for _, param := range parameters {
		key := keyOf(param)
		if !slices.ContainsFunc(have, func(f string) bool { return strings.Contains(f, "=") && keyOf(f) == key }) {
			line = strings.TrimRight(line, " ") + " " + param
		}
	}
	return line
}

// Disarm plans to take back what was armed.
func Disarm(opt Options) (*Plan, error) {
	rec, err := readRecord(opt.Root)
	if err != nil {
		return nil, err
	}
	plan := &Plan{root: opt.Root, Loader: rec.Loader, record: rec}
	left := rec.Files[:0:0]
	for _, e := range slices.Backward(rec.Files) {
		c, err := undo(opt.Root, &e)
		switch {
		case err != nil:
			plan.Notes = append(plan.Notes, err.Error())
			left = append(left, e)
		case c != nil:
			plan.Changes = append(plan.Changes, *c)
		}
	}
	plan.disarms, plan.left = true, left
	if len(plan.Changes) > 0 {
		plan.Commands = [][]string{{"systemctl", "daemon-reload"}}
		if rec.Loader == loader.GRUB {
			plan.Commands = append(plan.Commands, regenerate(opt.Root))
		}
	}
	return plan, nil
}

var errChanged = errors.New("somebody else changed it since: take Keepout's lines out by hand")

// undo is the change that takes one back; nil when nothing is left to do.
func undo(root string, e *recordEntry) (*Change, error) {
	path := e.find(root)
	now, err := look(root, path)
	if e.Before != nil && e.Before.Link == imageMark {
		now, err = e.After, nil
	}
	if err != nil {
		return nil, err
	}
	if now.equal(e.Before) && (path == e.Path || now == nil) {
		return nil, nil
	}
	if !now.equal(e.After) && !now.equal(e.Before) && !e.data() {
		return nil, fmt.Errorf("%s: %w", path, errChanged)
	}
	c := &Change{Path: path, Before: now, After: e.Before, Why: "as it was before"}
	if path != e.Path && e.Before != nil {
		c.To = filepath.Base(e.Path)
	}
	return c, nil
}

// data reports whether the file is one that changes all the time and is nobody else's.
func (e *recordEntry) data() bool {
	return e.Before == nil && slices.Contains([]string{esp.StateA, esp.StateB, esp.CrumbFile, esp.GrubEnv},
		filepath.Base(e.Path))
}
