// Command guest is the init of the test machines: a system small enough to boot in two seconds. It does what a real one
// does as far as recovery is concerned: it mounts the EFI system partition, lets bootguard count the boot, starts a
// provider that ends the machine, and is healthy when that provider was disabled.
//
// Kernel parameters: guest.provider=ID starts that provider, which panics the kernel. The provider stands for one
// that a vendor's own unit starts early: it knows what the platform disabled, and nothing of safe mode.
// guest.stubborn=1 starts it whatever the platform says. guest.rehearse=1 starts none, and rehearses a recovery.
// guest.ruin=1 starts none; a broken configuration ends the machine (config.go). guest.boot=DEVICE is a boot partition
// of its own.
//
// On a Debian system it is not the init but the provider's own early unit: "guest early ID ENGINE CONTENT" (early.go).
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/bootguard"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/loader"
	"github.com/keepout-security/keepout/internal/recovery/rehearsal"
	"github.com/keepout-security/keepout/internal/rescue"
)

const (
	runDir = "/run/keepout"
	efi    = "/efi"
	settle = 30 * time.Second // until a machine that shall restart has done so
)

func main() {
	if len(os.Args) == earlyArgs && os.Args[1] == "early" {
		if err := early(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			say("guest: error: %v", err)
		}
		return
	}
	say("guest: init runs")
	mount("proc", "/proc", "proc")
	if provider := parameter("guest.provider"); provider != "" {
		if err := system(provider); err != nil {
			say("guest: error: %v", err)
		}
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	time.Sleep(settle)
}

// say writes to the console, which the kernel gives init as its standard output, and waits until it is sent
// (tcdrain(3)): a panic cuts off what the line has not sent, and the kernel's own messages break into it.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stdout, format+"\n", args...)
	_ = unix.IoctlSetInt(int(os.Stdout.Fd()), unix.TCSBRK, 1) // refused where it is no terminal, which sends at once
}

func parameter(name string) string {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return ""
	}
	for field := range strings.FieldsSeq(string(text)) {
		if value, ok := strings.CutPrefix(field, name+"="); ok {
			return value
		}
	}
	return ""
}

func mount(source, target, kind string) {
	_ = os.MkdirAll(target, 0o755)
	if err := unix.Mount(source, target, kind, 0, ""); err != nil {
		say("guest: mount %s: %v", target, err)
	}
}

func system(provider string) error {
	mount("sysfs", "/sys", "sysfs")
	mount("devtmpfs", "/dev", "devtmpfs")
	mount("tmpfs", "/run", "tmpfs")
	rescue.LoadModules("/", say)
	if _, err := os.Stat("/sys/firmware/efi"); err == nil {
		mount("efivarfs", "/sys/firmware/efi/efivars", "efivarfs")
	}
	mount("/dev/vda2", efi, "vfat")
	if device := parameter("guest.boot"); device != "" {
		mount(device, "/boot", "vfat")
	}
	if parameter("guest.ruin") != "" {
		if err := keepState(); err != nil {
			return err
		}
	}

	begun := time.Now()
	first := exec.CommandContext(context.Background(), "/bin/keepout-bootguard", "--run-dir", runDir, "begin")
	out, err := first.CombinedOutput()
	say("guest: bootguard: %s (%v, %v)", strings.TrimSpace(string(out)), err, time.Since(begun).Round(time.Millisecond))
	text, err := os.ReadFile(runDir + "/" + bootguard.InstructionFile)
	if err != nil {
		time.Sleep(settle) // it restarts the machine into the recovery environment
		return fmt.Errorf("bootguard left no instruction and did not restart: %w", err)
	}
	in, err := boot.ParseInstruction(text)
	if err != nil {
		return err
	}
	tell(in)
	switch {
	case parameter("guest.rehearse") != "":
		return rehearse()
	case parameter("guest.ruin") != "":
		return configured()
	}
	if slices.Contains(in.Orders.Disabled, provider) && parameter("guest.stubborn") == "" {
		return healthy()
	}
	return start(provider, in)
}

func tell(in boot.Instruction) {
	say("guest: boot is %s, attempt %d, disabled %q: %s", in.Mode, in.Attempt, in.Orders.Disabled, in.Reason)
}

// start is the provider's early start: it ends the machine.
func start(provider string, in boot.Instruction) error {
	if err := leaveCrumb(in, boot.Crumb{Provider: provider, Engine: "7.2", Content: "291"}); err != nil {
		return err
	}
	say("guest: starting %s", provider)
	unix.Sync()
	return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0o600)
}

// leaveCrumb notes what is being started, as the core does: it starts nothing that this boot forbids, and then notes
// nothing either, whatever a vendor's own unit does.
func leaveCrumb(in boot.Instruction, c boot.Crumb) error {
	if in.Disables(c.Provider) {
		return nil
	}
	c.Boot = in.Boot
	return esp.Open(in.Dir).LeaveCrumb(c)
}

// rehearse asks for a visit to the recovery environment, as "keepout recovery test" does, and tells after it what the
// report says.
func rehearse() error {
	if err := good(); err != nil {
		return err
	}
	dir := esp.Open(efi + "/keepout")
	r, err := rehearsal.Read(dir)
	if err == nil {
		say("guest: rehearsal passed %v, fix %q, %d steps, screen: %.2f s, whole: %.2f s, trouble %q", r.Passed, r.Fix,
			len(r.Steps), r.Screen, r.Whole, r.Trouble)
		return nil
	}
	if err := rehearsal.Ask(dir, loader.Detect("/", dir)); err != nil {
		return err
	}
	say("guest: asks for a rehearsal")
	unix.Sync()
	if err := unix.Unmount(efi, 0); err != nil {
		return err
	}
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func good() error {
	g := bootguard.Guard{Root: "/", RunDir: runDir, Now: time.Now, Verify: intent.Verify}
	if err := g.Good(); err != nil {
		return fmt.Errorf("mark the boot as good: %w", err)
	}
	return nil
}

func healthy() error {
	if err := good(); err != nil {
		return err
	}
	say("guest: healthy")
	return nil
}
