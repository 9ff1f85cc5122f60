package testvm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/testenv"
)

// Spec says what machine to start. The machine is always a q35 with an emulated processor that has RDRAND: without
// it getrandom blocks for minutes in a guest that has nothing else to draw on.
type Spec struct {
	Kernel    string   // started directly; empty: the firmware boots the disk
	Initramfs string   // with Kernel
	Cmdline   string   // with Kernel
	Disk      string   // raw image, virtio; changed in place
	Root      string   // a second one
	Firmware  Firmware // zero: BIOS
	Vars      string   // UEFI variables, changed in place; needed with UEFI
	ERST      string   // file that keeps panic logs over reboots; empty: none
	Offline   bool     // no network card
	Memory    int      // MiB; 0: 512
	Shell     bool     // the guest has ShellUnit
	Single    bool     // one processor, not two: two that a busy host starves wait for each other
	Reboots   bool     // a reboot starts the machine again; otherwise it ends the machine
	Counted   bool     // one processor, whose clock is its instructions: a nanosecond each; idle time costs nothing
	Extra     []string // further arguments
}

// Firmware is what the machine boots by.
type Firmware int

// The firmwares.
const (
	BIOS Firmware = iota
	UEFI
	SecureBoot // with Microsoft's keys, as machines are sold
)

// Where Debian's ovmf package has the firmware.
const (
	ovmfCode       = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars       = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	ovmfSecureCode = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	ovmfSecureVars = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
	erstBytes      = 64 << 10
	mib            = 1 << 20
)

// Machine is a running virtual machine.
type Machine struct {
	Serial  *Serial
	Started time.Time

	t     testing.TB
	name  string
	cmd   *exec.Cmd
	qmp   *monitor
	shell *shell
	done  chan struct{}
	err   error // of the process, after done
}

// Start starts a machine, which ends with the test. It needs testenv.QEMU.
func Start(t testing.TB, name string, spec Spec) *Machine {
	t.Helper()
	testenv.Need(t, testenv.QEMU)
	dir, err := os.MkdirTemp("", "keepout-vm-") // short: the path of a socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "qmp")
	log, err := os.Create(filepath.Join(Artefacts(t), name+".serial.log"))
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{t: t, name: name, done: make(chan struct{}), Serial: newSerial(log), Started: time.Now()}
	if spec.Shell {
		spec.Extra = append(slices.Clone(spec.Extra), "-chardev",
			"socket,id=shell,server=on,wait=off,path="+shellSocket(dir), "-serial", "chardev:shell")
	}
	args := append([]string{"-n", "5", "qemu-system-x86_64"}, arguments(spec, socket)...)
	m.cmd = exec.Command("nice", args...) //nolint:noctx // Kill ends it, with the test
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.cmd.Stdout, m.cmd.Stderr = m.Serial, m.Serial
	if err := m.cmd.Start(); err != nil {
		t.Fatalf("start the machine: %v", err)
	}
	go func() {
		m.err = m.cmd.Wait()
		m.Serial.end()
		close(m.done)
	}()
	t.Cleanup(func() {
		m.Kill()
		_ = log.Close()
		_ = os.RemoveAll(dir)
	})
	if m.qmp, err = connect(socket, m.done); err != nil {
		t.Fatalf("speak with the machine: %v\n%s", err, m.Serial.Tail())
	}
	if spec.Shell {
		m.openShell(dir)
	}
	return m
}

func (m *Machine) openShell(dir string) {
	m.t.Helper()
	log, err := os.Create(filepath.Join(Artefacts(m.t), m.name+".shell.log"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = log.Close() })
	if m.shell, err = dialShell(dir, log); err != nil {
		m.t.Fatal(err)
	}
}

func arguments(s Spec, socket string) []string {
	args := []string{
		"-cpu", "qemu64,+rdrand", "-m", strconv.Itoa(memory(s)),
		"-nodefaults", "-display", display(), "-vga", "std", "-serial", "stdio",
		"-qmp", "unix:" + socket + ",server=on,wait=off",
	}
	add := func(more ...string) { args = append(args, more...) }
	if s.Counted { // also what the clock says is the same in every run; with -seed in Extra, what RDRAND says
		add("-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=0,align=off,sleep=off",
			"-rtc", "base=2026-01-01T00:00:00,clock=vm")
	} else {
		add("-accel", "tcg,thread=multi", "-smp", strconv.Itoa(processors(s)))
	}
	switch s.Firmware {
	case UEFI:
		add("-M", "q35")
		add(flash(ovmfCode, s.Vars)...)
	case SecureBoot:
		add("-M", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on")
		add(flash(ovmfSecureCode, s.Vars)...)
	default:
		add("-M", "q35")
	}
	if s.Kernel != "" {
		add("-kernel", s.Kernel, "-initrd", s.Initramfs, "-append", s.Cmdline)
	}
	if s.Disk != "" {
		add("-drive", "file="+s.Disk+",format=raw,if=virtio,cache=unsafe")
	}
	if s.Root != "" {
		add("-drive", "file="+s.Root+",format=raw,if=virtio,cache=unsafe")
	}
	if !s.Offline {
		add("-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile=")
	}
	if s.ERST != "" {
		add("-object", fmt.Sprintf("memory-backend-file,id=erst,mem-path=%s,size=%#x,share=on", s.ERST, erstBytes),
			"-device", "acpi-erst,memdev=erst")
	}
	if !s.Reboots {
		add("-no-reboot")
	}
	return append(args, s.Extra...)
}

// WindowVariable is the environment variable that shows machines in a window, where QEMU can.
const WindowVariable = "KEEPOUT_VM_WINDOW"

// display is how QEMU shows the screen: not at all, unless somebody asks for a window and there is a part of QEMU for
// it.
func display() string {
	if os.Getenv(WindowVariable) == "" {
		return "none"
	}
	ctx, cancel := context.WithTimeout(context.Background(), qmpTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-display", "help").Output()
	for _, kind := range []string{"gtk", "sdl"} {
		if err == nil && slices.Contains(strings.Fields(string(out)), kind) {
			return kind
		}
	}
	return "none"
}

func processors(s Spec) int {
	if s.Single {
		return 1
	}
	return 2
}

func memory(s Spec) int {
	if s.Memory == 0 {
		return 512
	}
	return s.Memory
}

func flash(code, vars string) []string {
	return []string{
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + code,
		"-drive", "if=pflash,format=raw,unit=1,file=" + vars,
	}
}

// Vars makes a fresh store of UEFI variables for the firmware.
func Vars(t testing.TB, f Firmware) string {
	t.Helper()
	source := ovmfVars
	if f == SecureBoot {
		source = ovmfSecureVars
	}
	content, err := os.ReadFile(source)
	if err != nil {
		t.Fatalf("read the firmware's variables: %v", err)
	}
	file := filepath.Join(t.TempDir(), "vars.fd")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// NewERST makes an empty store for panic logs, which a BIOS machine keeps over reboots.
func NewERST(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "erst.bin")
	if err := os.WriteFile(file, make([]byte, erstBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Artefacts returns the folder for what a test leaves behind.
func Artefacts(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(testenv.ModuleRoot(t), "bin", "vm-artefacts", strings.ReplaceAll(t.Name(), "/", "-"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Kill ends the machine as a power cut does. It may be called again.
func (m *Machine) Kill() {
	select {
	case <-m.done:
	default:
		_ = m.cmd.Process.Kill()
		<-m.done
	}
	if m.qmp != nil {
		m.qmp.close()
	}
}

// WaitExit waits until the machine has switched itself off.
func (m *Machine) WaitExit(within time.Duration) {
	m.t.Helper()
	select {
	case <-m.done:
	case <-time.After(within):
		m.t.Fatalf("the machine still runs after %v:\n%s", within, m.Serial.Tail())
	}
}

// Expect waits for a line on the serial port that matches, after the last that matched, and returns it. Two minutes
// without it, or the machine's end, fail the test.
func (m *Machine) Expect(pattern string) string {
	m.t.Helper()
	return m.ExpectWithin(pattern, 2*time.Minute)
}

// ExpectWithin is Expect with a deadline of its own.
func (m *Machine) ExpectWithin(pattern string, within time.Duration) string {
	m.t.Helper()
	line, err := m.Serial.expect(pattern, within)
	if err != nil {
		m.fail(err)
	}
	return line
}

// ExpectText waits for a text that the serial port writes from now on, wherever it stands.
func (m *Machine) ExpectText(text string, within time.Duration) {
	m.t.Helper()
	if err := m.Serial.expectText(m.Serial.mark(), text, within); err != nil {
		m.fail(err)
	}
}

// fail ends the test with what can be seen of a machine that did not do what it should: its last lines, its screen
// among the artefacts, and where its processor is, which tells who hangs where nothing is written any more. What was
// missed comes last: whoever shortens a long message keeps its end.
func (m *Machine) fail(err error) {
	m.t.Helper()
	m.Screenshot("failed")
	m.t.Fatalf("%s\n%s\n%v", m.Serial.Tail(), m.where(), err)
}

// where is where the first processor is, looked at a few times: one that loops is seen to.
func (m *Machine) where() string {
	var b strings.Builder
	for range 8 {
		registers, err := m.qmp.ask("info registers")
		if err != nil {
			return fmt.Sprintf("registers: %v", err)
		}
		const upToItsFlags = 5 // lines
		for i, line := range strings.SplitN(registers, "\n", upToItsFlags+3) {
			if i > 1 && i < upToItsFlags+2 { // it begins with an empty line and the processor's number
				b.WriteString(line + "\n")
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return b.String()
}

// Screenshot keeps a picture of the machine's screen among the artefacts and returns its file, or "" with a log line.
func (m *Machine) Screenshot(name string) string {
	m.t.Helper()
	file := filepath.Join(Artefacts(m.t), m.name+"-"+name+".png")
	err := m.qmp.do("screendump", map[string]any{"filename": file, "format": "png"})
	if err != nil {
		m.t.Logf("screenshot %s: %v", name, err)
		return ""
	}
	return file
}

// Reset starts the machine again, as its reset button does: whatever it was doing is lost.
func (m *Machine) Reset() {
	m.t.Helper()
	if err := m.qmp.do("system_reset", nil); err != nil {
		m.t.Fatalf("reset: %v", err)
	}
}

// Press presses and releases a key, by QEMU's name: "f2", "ret".
func (m *Machine) Press(key string) {
	m.t.Helper()
	if _, err := m.qmp.ask("sendkey " + key); err != nil {
		m.t.Fatalf("press %s: %v", key, err)
	}
}

// pressPause is how long PressUntil waits for an answer: a loader draws slowly, and may lose keys while it does.
const pressPause = 20 * time.Second

// PressUntil presses a key, again when nothing comes of it, until the serial port writes a text.
func (m *Machine) PressUntil(key, text string, within time.Duration) {
	m.t.Helper()
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); {
		from := m.Serial.mark()
		m.Press(key)
		if err = m.Serial.expectText(from, text, pressPause); err == nil {
			return
		}
	}
	m.fail(fmt.Errorf("pressed %s: %w", key, err))
}

// CPU is the processor time that the machine has used. Unlike time by the clock it hardly depends on what else this
// host does, so that it can be compared.
func (m *Machine) CPU() time.Duration {
	m.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
	if err != nil {
		m.t.Fatalf("the machine's processor time: %v", err)
	}
	// proc(5): utime and stime are fields 14 and 15; the name in field 2 may hold spaces and ends with ")".
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const utime, stime, before, perSecond = 14, 15, 3, 100
	var ticks int
	for _, i := range []int{utime, stime} {
		n, err := strconv.Atoi(fields[i-before])
		if err != nil {
			m.t.Fatalf("the machine's processor time: %v", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / perSecond
}
