package rescue

import (
	"context"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/recovery/settings"
	"github.com/keepout-security/keepout/internal/rescue/plan"
)

// Where the environment mounts.
const (
	volumeDir = "/esp"
	pstoreDir = "/sys/fs/pstore"
	bootDir   = "/xbootldr"
)

// openLimit is how long the boot file system has to be found, mounted and read: with systemd-boot there may be two.
const openLimit = 3 * volumeWait

// Init is the recovery environment, as the first process of a machine. It does not return: where nothing else is left,
// it waits for a person to switch the machine off.
func Init() {
	defer standStill()
	mountBasics()
	screen := openScreen()
	log := screen.log
	log("recovery environment: %.2f s after the kernel's start", uptime())
	screen.show(&crash.Record{Format: crash.Format, Steps: []crash.Step{
		{Progress: crash.Running, Text: "Looking at this machine"},
	}}, false)
	drawn := uptime()
	log("screen: %.2f s after the kernel's start", drawn)

	config, err := readConfig()
	if err != nil {
		log("configuration: %v", err)
		screen.show(broken(err), false)
		waitForPowerOff()
	}
	wrong := raiseClock(config.Built, log)
	LoadModules("/", log)
	screen.reopen()
	m := machine(config, screen, wrong)
	m.Uptime, m.Drawn = uptime, drawn
	ctx := context.Background()
	visit, facts := openWithin(openLimit, m, func(m *Machine) { m.findVolume(ctx) })
	ticker := time.NewTicker(500 * time.Millisecond)
	keys := listen(screen.consoles...)
	Run(ctx, visit, Clock{Now: monotonic(), Tick: ticker.C}, keys, pace(&config), facts)
}

// findVolume mounts the boot file system and finds the boot loader's counter.
func (m *Machine) findVolume(ctx context.Context) {
	dir, err := openDir(ctx, m.Config.Volume)
	if err != nil {
		m.Log("boot file system: %v", err)
		m.Absent = err.Error()
	}
	m.Dir = dir
	if m.Left, err = left(ctx, dir, &m.Config); err != nil {
		m.Log("boot loader's counter: %v", err)
	}
	m.Arm = func(tries, visits int) error { return arm(ctx, dir, &m.Config, tries, visits) }
}

// monotonic gives times that a change of the clock does not move.
func monotonic() func() time.Time {
	start := time.Now()
	return func() time.Time { return start.Add(time.Since(start)) }
}

func mountBasics() {
	for _, m := range []struct{ source, target, kind string }{
		{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"},
	} {
		_ = os.MkdirAll(m.target, 0o755)
		_ = unix.Mount(m.source, m.target, m.kind, unix.MS_NOSUID, "")
	}
}

// inImage is the path of one of the image's files.
func inImage(name string) string { return "/" + name }

func readConfig() (settings.Config, error) {
	data, err := os.ReadFile(inImage(settings.ConfigFile))
	if err != nil {
		return settings.Config{}, err
	}
	return settings.Parse(data)
}

// raiseClock sets the clock to a time that has certainly passed, when it shows an earlier one: FAT keeps times, and
// certificates are judged by it.
func raiseClock(floor time.Time, log func(string, ...any)) (wrong bool) {
	if !time.Now().Before(floor) {
		return false
	}
	log("the clock shows %v and is set to the time when this environment was built", time.Now().UTC().Year())
	t := unix.NsecToTimeval(floor.UnixNano())
	if err := unix.Settimeofday(&t); err != nil {
		log("clock: %v", err)
	}
	return true
}

func machine(config settings.Config, screen *screen, wrongClock bool) Machine {
	m := Machine{
		Config: config, BootID: bootID(), Now: time.Now, Log: screen.log,
		Connect: func(ctx context.Context) (string, error) { return connect(ctx, config.Network, screen.log) },
		Screen:  screen.show,
		Leave:   screen.leave,
		Forget:  func(name string) error { return os.Remove(filepath.Join(pstoreDir, name)) },
		Panics:  openPstore(screen.log),
	}
	bundles, err := newBundler(config, "/")
	if err != nil {
		screen.log("the organisation's key for diagnostics: %v", err)
	}
	m.Bundle = bundles.make
	if m.Trust, err = readTrust(); err != nil {
		screen.log("no fix will be believed: %v", err)
	}
	if config.Server == "" {
		return m
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(inImage(settings.RootsFile))
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		screen.log("certification authorities: none could be read (%v)", err)
	}
	server, err := NewServer(config.Server, ServerOptions{
		Roots: roots, Proxy: config.Network.Proxy, Floor: config.Built, Wrong: wrongClock, Now: time.Now,
	})
	if err != nil {
		screen.log("server: %v", err)
		return m
	}
	m.Server = server
	return m
}

func readTrust() (remediation.Trust, error) {
	data, err := os.ReadFile(inImage(settings.TrustFile))
	if err != nil {
		return remediation.Trust{}, err
	}
	return intent.ParseTrust(data)
}

func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Sprintf("unknown-%d", time.Now().UnixNano())
	}
	return strings.TrimSpace(string(id))
}

func openPstore(log func(string, ...any)) fs.FS {
	if err := unix.Mount("pstore", pstoreDir, "pstore", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		log("panic logs: %v", err)
		return nil
	}
	return os.DirFS(pstoreDir)
}

func openDir(ctx context.Context, v settings.Volume) (*esp.Dir, error) {
	if err := mountVolume(ctx, v, volumeDir); err != nil {
		return nil, err
	}
	return esp.Open(filepath.Join(volumeDir, v.Dir)), nil
}

// uptime is how long the kernel has been running, in seconds.
func uptime() float64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return float64(t.Nano()) / float64(time.Second)
}

func broken(err error) *crash.Record {
	return &crash.Record{
		Format:  crash.Format,
		Steps:   []crash.Step{{Progress: crash.Failed, Text: "This recovery environment is damaged", Detail: err.Error()}},
		Choices: []crash.Key{{Name: "F10", Text: "power off"}},
	}
}

// restart ends the machine. It returns only where the kernel refuses.
func restart(a plan.Act) {
	within(lastWait, func() {
		unix.Sync()
		_ = unix.Unmount(volumeDir, 0)
	})
	command := unix.LINUX_REBOOT_CMD_RESTART
	if a == plan.PowerOff {
		command = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	_ = unix.Reboot(command)
	_ = os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0o600)
}

// waitForPowerOff is the last resort: F10 still works.
func waitForPowerOff() {
	for key := range listen("/dev/console") {
		if key == plan.Off {
			restart(plan.PowerOff)
		}
	}
}

// standStill keeps the first process alive whatever happened: its end would be a panic, and the next start would come
// here again.
func standStill() {
	if p := recover(); p != nil {
		fmt.Fprintf(os.Stderr, "keepout-rescue: %v\n", p)
	}
	for {
		time.Sleep(time.Hour)
	}
}
