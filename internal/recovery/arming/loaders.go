//go:build linux

package arming

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/loader"
	"github.com/keepout-security/keepout/packaging"
)

// room is the free room of a file system, in bytes.
func room(path string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// foreign finds the entries that grub-mkconfig made for other systems (30_os-prober names them so).
var foreign = regexp.MustCompile(`(?m)^menuentry '([^']*)'[^\n]*'osprober-`)

// grub plans GRUB's counter and kernel parameters.
func (p *planner) grub() error {
	counting, err := p.grubCounts()
	if err != nil {
		return err
	}
	if counting {
		var env loader.Env
		env.Set(loader.EnvLeft, "3")
		block, err := env.Encode()
		if err != nil {
			return err
		}
		if err := p.once(p.dir+"/"+esp.GrubEnv, block, "GRUB's counter"); err != nil {
			return err
		}
		if err := p.want("/etc/grub.d/42_keepout", p.withConsoles(packaging.Grub(p.dir)), 0o755,
			"count boots in GRUB, and start the recovery environment when none is left"); err != nil {
			return err
		}
		if strings.HasPrefix(p.dir, "/boot/keepout") {
			p.say("Keepout's folder is on /boot: if that is LVM, RAID, btrfs or another file system that GRUB cannot " +
				"write to, GRUB boots as if nothing were armed, and only the software counter works")
		}
	}
	switch mine, err := os.ReadFile(p.at("/etc/default/grub")); {
	case !p.exists("/etc/default/grub.d") && !p.mkconfigReadsFolder():
		p.say("this grub-mkconfig reads no /etc/default/grub.d: add to GRUB_CMDLINE_LINUX by hand: " +
			strings.Join(p.parameters, " "))
	default:
		var add []string
		for _, param := range p.parameters {
			if err != nil || !setInGrub(mine, keyOf(param)) {
				add = append(add, param)
			}
		}
		text := "# Written by \"keepout recovery arm\": a panic restarts the machine, and so does a crash of PID 1.\n" +
			"GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX " + strings.Join(add, " ") + "\"\n"
		if err := p.want("/etc/default/grub.d/keepout.cfg", []byte(text), 0o644,
			"kernel parameters: a machine that stops is reached by nobody"); err != nil {
			return err
		}
	}
	p.plan.Commands = append(p.plan.Commands, regenerate(p.Root))
	return nil
}

func (p *planner) mkconfigReadsFolder() bool {
	text, err := os.ReadFile(p.at("/usr/sbin/grub-mkconfig"))
	return err == nil && strings.Contains(string(text), "default/grub.d")
}

// grubCounts reports whether GRUB can count boots of this system. It cannot tell which entry was started, so that
// where its menu starts other systems, too, their boots would count.
func (p *planner) grubCounts() (bool, error) {
	text, err := os.ReadFile(p.at("/boot/grub/grub.cfg"))
	if err != nil {
		return false, err
	}
	var others []string
	for _, m := range foreign.FindAllStringSubmatch(string(text), -1) {
		others = append(others, m[1])
	}
	switch {
	case len(others) == 0:
		return true, nil
	case p.Installation == "":
		return false, &WhichError{Own: p.own, Found: others}
	case p.Installation != p.own:
		return false, &WhichError{Own: p.own, Found: append(others, "but not "+p.Installation)}
	}
	p.say("GRUB also starts " + strings.Join(others, ", ") + ": it cannot tell whose boots it counts, so that only the " +
		"software counter works")
	return false, nil
}

// regenerate is the command that writes grub.cfg anew.
func regenerate(root string) []string {
	if _, err := os.Stat(filepath.Join(root, "usr", "sbin", "update-grub")); err == nil {
		return []string{"update-grub"}
	}
	return []string{"grub-mkconfig", "-o", "/boot/grub/grub.cfg"}
}

// systemdBoot plans counters in the names of this system's entries, kernel parameters, and the recovery entries.
func (p *planner) systemdBoot() error {
	own, err := p.mine(slices.Concat(
		p.entries("/efi/loader/entries", ".conf"), p.entries("/efi/EFI/Linux", ".efi"),
		p.entries("/boot/efi/loader/entries", ".conf"), p.entries("/boot/efi/EFI/Linux", ".efi"),
		p.entries("/boot/loader/entries", ".conf"), p.entries("/boot/EFI/Linux", ".efi"),
	))
	if err != nil {
		return err
	}
	for _, e := range own {
		if err := p.count(&e); err != nil {
			return err
		}
	}
	if len(own) == 0 {
		p.say("no entry of this system was found: what fails before Keepout is started cannot be counted")
	}
	if err := p.line("/etc/kernel/cmdline", "kernel parameters of kernels to come", func(text string) string {
		return withParameters(strings.TrimRight(text, "\n"), p.parameters) + "\n"
	}); err != nil {
		return err
	}
	if err := p.want("/etc/kernel/tries", []byte("3\n"), 0o644, "count the boots of kernels to come, too"); err != nil {
		return err
	}
	if err := p.want("/etc/systemd/system/systemd-bless-boot.service.d/keepout.conf", packaging.Bless(), 0o644,
		"Keepout judges the boot, and sets the counter anew"); err != nil {
		return err
	}
	if info, err := p.vars().Get("LoaderInfo"); err == nil && !loader.Sorts(info) {
		p.say(info + " orders its entries in another way than those from 250 on, and might start the recovery environment " +
			"by itself: its entries are left out, and the menu follows safe mode")
		return nil
	}
	return p.recoveryEntries()
}

// sdEntry is an entry of systemd-boot.
type sdEntry struct {
	folder string // below the root
	name   loader.EntryName
	file   string // its name now
	state  *State // nil for a unified image, which is too large to look at
	owner  string // machine id, "" when it does not say
}

// entries lists what is in a folder.
func (p *planner) entries(folder, ext string) (out []sdEntry) {
	files, err := os.ReadDir(p.at(folder))
	if err != nil {
		return nil
	}
	for _, f := range files {
		name, err := loader.ParseEntryName(f.Name())
		if err != nil || !strings.EqualFold(name.Ext, ext) || !f.Type().IsRegular() ||
			strings.HasPrefix(name.Stem, loader.RecoveryPrefix) {
			continue
		}
		e := sdEntry{folder: folder, name: name, file: f.Name()}
		if ext == ".conf" {
			if e.state, err = look(p.Root, filepath.Join(folder, f.Name())); err != nil || e.state == nil {
				continue
			}
			e.owner = field(string(e.state.Data), "machine-id")
		}
		if token, _, ok := strings.Cut(name.Stem, "-"); e.owner == "" && ok && machineID.MatchString(token) {
			e.owner = token // as kernel-install names them
		}
		out = append(out, e)
	}
	return out
}

var machineID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// field returns the value of a key in an entry.
func field(text, key string) string {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// mine are the entries of the system that is meant. Entries that do not say whose they are stay as they are.
func (p *planner) mine(entries []sdEntry) (own []sdEntry, err error) {
	var others []string
	wanted := p.Installation
	if wanted == "" {
		wanted = p.own
	}
	unknown := 0
	for _, e := range entries {
		switch {
		case e.owner == "":
			unknown++
		case e.owner == wanted:
			own = append(own, e)
		case !slices.Contains(others, e.owner):
			others = append(others, e.owner)
		}
	}
	if len(others) > 0 && (p.Installation == "" || len(own) == 0) {
		return nil, &WhichError{Own: p.own, Found: others}
	}
	if unknown > 0 {
		p.say("entries that do not say which system they start are left alone")
	}
	return own, nil
}

// count gives an entry a counter and the kernel parameters. One that counts already keeps its counter.
func (p *planner) count(e *sdEntry) error {
	path := filepath.Join(e.folder, e.file)
	c := Change{Path: path, Why: "count the boots of this entry: 3 tries, set anew after each good boot"}
	if !e.name.Counted {
		c.To = e.name.With(boot.MaxTries)
	}
	if e.state == nil { // a unified image: only its name changes, and its bytes are not read
		if c.To != "" {
			c.Before, c.After = &State{Link: imageMark}, &State{Link: imageMark}
			p.plan.Changes = append(p.plan.Changes, c)
			p.say(path + ": its kernel parameters are part of the signed image; build it with: " +
				strings.Join(p.parameters, " "))
		}
		return nil
	}
	c.Before = e.state
	c.After = &State{Data: []byte(withOptions(string(e.state.Data), p.parameters)), Mode: e.state.Mode}
	if c.To != "" || !c.Before.equal(c.After) {
		p.plan.Changes = append(p.plan.Changes, c)
	}
	return nil
}

// imageMark stands for the bytes of a file that only gets another name.
const imageMark = "(the image as it is)"

// withOptions adds the kernel parameters to an entry.
func withOptions(text string, parameters []string) string {
	lines := strings.Split(text, "\n")
	var all string
	last := -1
	for i, line := range lines {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == "options" {
			all, last = all+" "+v, i
		}
	}
	added := strings.TrimPrefix(withParameters(all, parameters), all)
	switch {
	case added == "":
		return text
	case last >= 0:
		lines[last] = strings.TrimRight(lines[last], " ") + added
		return strings.Join(lines, "\n")
	}
	return strings.TrimRight(text, "\n") + "\noptions   " + strings.TrimSpace(added) + "\n"
}

// recoveryEntries are the two copies of the recovery environment. The loader passes over them while the images are
// not there. The first may restart after a panic, because its counter then leads to the second; a panic of the second
// stays on the screen, because nothing counts it. A copy with a unified image is started by that.
func (p *planner) recoveryEntries() error {
	folder := filepath.Join(filepath.Dir(p.dir), "loader", "entries")
	for _, e := range []struct{ id, title, copy, more, counter, unified string }{
		{loader.RecoveryEntry, "Keepout recovery environment", "a", " panic=10", "+1", esp.UnifiedA},
		{loader.RecoveryEntry2, "Keepout recovery environment (second copy)", "b", "", "", esp.UnifiedB},
	} {
		text := "title     " + e.title + "\n"
		if p.exists(p.dir + "/" + e.unified) {
			text += "efi       /keepout/" + e.unified + "\n"
		} else {
			text += "linux     /keepout/vmlinuz-" + e.copy + "\ninitrd    /keepout/recovery-" + e.copy +
				".cpio\noptions   quiet loglevel=3 cryptomgr.notests keepout.copy=" + e.copy + e.more + "\n"
		}
		name, err := loader.ParseEntryName(e.id)
		if err != nil {
			return err
		}
		file := name.Stem + e.counter + name.Ext
		if names, err := loader.NamesOf(p.at(folder), name); err == nil {
			file = names[0]
		}
		if err := p.want(filepath.Join(folder, file), p.withConsoles([]byte(text)), 0o600,
			"start the recovery environment"); err != nil {
			return err
		}
	}
	return nil
}
