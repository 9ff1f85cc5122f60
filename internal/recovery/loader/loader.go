//go:build linux

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/recovery/esp"
)

// Kinds of loader.
const (
	GRUB        = "GRUB"
	SystemdBoot = "systemd-boot"
	Unknown     = "unknown"
)

// Loader is the boot loader that started this system, as far as it is armed.
type Loader interface {
	// Kind is one of the kinds above.
	Kind() string
	// Left is what the counter stands at, -1 when the loader does not count.
	Left() int
	// Arm sets the counter, and how often the recovery environment was started.
	Arm(tries, visits int) error
	// CanRecover reports whether ToRecovery can work.
	CanRecover() bool
	// ToRecovery makes the recovery environment what is started next, once.
	ToRecovery() error
	// ToMenu makes the loader wait for a person at its menu, at least once.
	ToMenu() error
}

// Detect finds the loader below root, which is "/" on a running system.
func Detect(root string, dir *esp.Dir) Loader {
	if _, err := os.Stat(dir.Join(esp.GrubEnv)); err == nil {
		return &grub{dir: dir}
	}
	vars := Variables{Dir: filepath.Join(root, "sys", "firmware", "efi", "efivars")}
	if info, err := vars.Get("LoaderInfo"); err == nil && strings.HasPrefix(info, "systemd-boot") {
		return &systemdBoot{vars: vars, dir: dir, root: root}
	}
	return none{}
}

// none is a loader that nobody here knows.
type none struct{}

var errUnknown = errors.New("this boot loader is not known: only the software counter works")

func (none) Kind() string       { return Unknown }
func (none) Left() int          { return -1 }
func (none) Arm(int, int) error { return nil }
func (none) CanRecover() bool   { return false }
func (none) ToRecovery() error  { return errUnknown }
func (none) ToMenu() error      { return errUnknown }

// Names in GRUB's block; the snippet that arming installs reads them.
const (
	EnvLeft   = "keepout_left"   // tries left
	EnvVisits = "keepout_visits" // starts of the recovery environment
	EnvNext   = "keepout_next"   // "recovery": start that, once
)

// grub is GRUB with Keepout's snippet.
type grub struct{ dir *esp.Dir }

func (*grub) Kind() string { return GRUB }

func (g *grub) read() (Env, error) {
	data, err := os.ReadFile(g.dir.Join(esp.GrubEnv))
	if err != nil {
		return Env{}, fmt.Errorf("GRUB's counter: %w", err)
	}
	return ParseEnv(data)
}

func (g *grub) Left() int {
	env, err := g.read()
	if err != nil {
		return -1
	}
	n, ok := number(env.Get(EnvLeft))
	if !ok {
		return -1
	}
	return n
}

func (g *grub) Arm(tries, visits int) error {
	return g.write(map[string]string{EnvLeft: strconv.Itoa(tries), EnvVisits: strconv.Itoa(visits), EnvNext: ""})
}

func (g *grub) CanRecover() bool {
	_, err := g.read()
	return err == nil && g.dir.Recoverable()
}

func (g *grub) ToRecovery() error { return g.write(map[string]string{EnvNext: "recovery"}) }

// ToMenu: at no tries and the last visit, the snippet stops at the menu.
func (g *grub) ToMenu() error {
	return g.write(map[string]string{EnvLeft: "0", EnvVisits: maxVisits, EnvNext: ""})
}

// maxVisits is boot.MaxRecoveries as the snippet compares it.
const maxVisits = "2"

// write changes the block in place; one that GRUB would not accept is made anew.
func (g *grub) write(change map[string]string) error {
	env, err := g.read()
	if err != nil {
		env = Env{}
	}
	for name, value := range change {
		env.Set(name, value)
	}
	block, err := env.Encode()
	if err != nil {
		return err
	}
	path := g.dir.Join(esp.GrubEnv)
	if err := durable.Overwrite(path, block); err == nil {
		if info, err := os.Stat(path); err == nil && info.Size() == EnvSize {
			return nil
		}
	}
	return durable.WriteFileOn(esp.Disk(), path, block, 0o600)
}
