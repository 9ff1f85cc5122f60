package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/roster"
)

// bootFile is what bootguard writes into the run folder; it is its InstructionFile.
const bootFile = "boot.json"

// bootOrder is what bootguard said about this boot. Without bootguard nothing is said, and everything runs as
// configured.
type bootOrder struct {
	file string
	in   boot.Instruction
	err  error // why there is none although there should be
}

// readBoot reads the instruction. One of another boot is not in force: the run folder is emptied with each boot, but
// --run-dir may be anywhere.
func readBoot(runDir string) bootOrder {
	b := bootOrder{file: filepath.Join(runDir, bootFile)}
	data, err := os.ReadFile(b.file)
	if errors.Is(err, fs.ErrNotExist) {
		return b
	}
	if err == nil {
		b.in, err = boot.ParseInstruction(data)
	}
	if err != nil {
		b.err = err
		return b
	}
	if id := bootID(); id != b.in.Boot {
		b.in = boot.Instruction{}
	}
	return b
}

// bootID is the kernel's name for this boot.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// given reports whether there is an instruction for this boot.
func (b *bootOrder) given() bool { return b.in.Version != 0 }

// failOpen reports whether nothing may be denied in this boot.
func (b *bootOrder) failOpen() bool { return b.given() && (b.in.Mode == boot.Safe || b.in.Orders.Safe) }

// caution is what this boot wants of a provider.
func (b *bootOrder) caution(id string) roster.Caution {
	if !b.given() {
		return roster.Caution{}
	}
	return roster.Caution{Off: b.in.Disables(id), Pinned: b.in.Pins(id)}
}

// problems says how this boot runs, where that is not as configured.
func (b *bootOrder) problems(command func(string) string) (out []health.Problem) {
	add := func(code string, severity health.Severity, title, fix string) {
		out = append(out, health.Problem{Code: code, Severity: severity, Title: title, Fix: fix})
	}
	release := command("recovery release") + ", then restart the machine"
	why := ""
	if b.in.Reason != "" {
		why = ": " + b.in.Reason
	}
	switch {
	case b.err != nil:
		add("KO-2304", health.Warning, fmt.Sprintf("what bootguard said about this boot cannot be read: %v", b.err),
			"keepout-bootguard status")
	case !b.given():
		return nil
	case b.failOpen():
		add("KO-2301", health.Failure, "safe mode: no provider is started and nothing is denied"+why, release)
	case b.in.Mode == boot.LastKnownGood:
		add("KO-2302", health.Warning, "every provider runs its last-known-good versions"+why, release)
	case !b.in.Orders.None():
		add("KO-2303", health.Warning, fmt.Sprintf("by order of %s, these are not started: %s; these run last-known-good: %s",
			orNobody(b.in.Orders.Source), list(b.in.Orders.Disabled), list(b.in.Orders.LastKnownGood)), release)
	}
	if b.in.Menu {
		add("KO-2305", health.Failure, "every way to start was tried and failed; nothing restarts by itself any more",
			"mend the cause ("+command("recovery status")+"), then "+release)
	}
	if b.in.Trouble != "" {
		add("KO-2306", health.Warning, "this boot had trouble, and went on: "+brief(b.in.Trouble),
			command("recovery status")+"; make the EFI system partition writable and give it room")
	}
	return append(out, b.told(time.Now())...)
}

// told is the story of a recent failure to start. It is read anew: bootguard brings it to its end once the boot is
// good.
func (b *bootOrder) told(now time.Time) []health.Problem {
	latest := readBoot(filepath.Dir(b.file))
	t := latest.in.Told
	if !latest.given() || t == nil || now.After(t.Until) {
		return nil
	}
	return []health.Problem{{
		Code: t.Code, Severity: health.Warning, Title: t.Title, Fix: t.Fix, Provider: t.Provider,
	}}
}

func orNobody(name string) string {
	if name == "" {
		return "nobody known"
	}
	return name
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// leaveCrumb keeps what is being started, until the boot is good: whoever comes after a crash reads it. It waits for
// the disk, because a crash that comes at once is what it is for.
func (d *Daemon) leaveCrumb(c boot.Crumb) {
	if !d.boot.given() || d.boot.in.Dir == "" {
		return
	}
	if now := readBoot(d.opt.RunDir); now.in.Good {
		return
	}
	c.Boot = d.boot.in.Boot
	if err := esp.Open(d.boot.in.Dir).LeaveCrumb(c); err != nil {
		d.log.Warn("what is being started could not be noted", slog.Any("error", err))
	}
}
