//go:build unix

package esp

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/durable"
)

// Bounds of what is read from the partition.
const (
	MaxIntent  = 64 << 10 // bytes of an intent
	MaxIntents = 16       // intents; more are not looked at
)

// Dir is Keepout's folder. One process writes the state at a time: bootguard while the system runs, the recovery
// environment otherwise. It is not safe for concurrent use.
type Dir struct {
	path   string
	picked boot.Picked
	read   bool
}

// Open returns the folder at path, which need not exist yet.
func Open(path string) *Dir { return &Dir{path: path} }

// Path returns where it is.
func (d *Dir) Path() string { return d.path }

// Join returns the path of what lies in it.
func (d *Dir) Join(name string) string { return filepath.Join(d.path, name) }

// State reads the state. It always has one: Picked says what is wrong with the copies.
func (d *Dir) State() boot.Picked {
	var copies [2][]byte
	var errs [2]error
	for i, name := range []string{StateA, StateB} {
		copies[i], errs[i] = d.load(name, boot.Size)
	}
	d.picked, d.read = boot.Pick(copies[0], copies[1]), true
	for i, err := range errs {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.picked.Errs[i], d.picked.Lost = err, d.picked.Lost || d.picked.Sequence == 0
		}
	}
	return d.picked
}

// Keep writes the state over the older copy and syncs it. On an error the newer copy is as it was.
func (d *Dir) Keep(s *boot.State) error {
	if !d.read {
		d.State()
	}
	next := d.picked.Sequence + 1
	data, err := boot.Encode(s, next)
	if err != nil {
		return err
	}
	if err := d.put([]string{StateA, StateB}[d.picked.Write], data); err != nil {
		return fmt.Errorf("keep boot state: %w", err)
	}
	d.picked.State, d.picked.Sequence, d.picked.Write = *s, next, 1-d.picked.Write
	return nil
}

// Crumb reads what was being started last; the zero value when that is not known.
func (d *Dir) Crumb() boot.Crumb {
	data, err := d.load(CrumbFile, boot.CrumbSize)
	if err != nil {
		return boot.Crumb{}
	}
	c, err := boot.DecodeCrumb(data)
	if err != nil {
		return boot.Crumb{}
	}
	return c
}

// LeaveCrumb says what is being started now, and returns when that is on the disk.
func (d *Dir) LeaveCrumb(c boot.Crumb) error {
	data, err := boot.EncodeCrumb(c)
	if err != nil {
		return err
	}
	return d.put(CrumbFile, data)
}

// Prepare makes the folder and everything in it that must be there before the disk is full: both copies of the state
// and the crumb. The folders in it are made by whoever puts the first file there, as on a machine that was armed.
func (d *Dir) Prepare() error {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fmt.Errorf("make Keepout's folder: %w", err)
	}
	p := d.State()
	for _, err := range p.Errs {
		if err == nil {
			continue
		}
		if err := d.Keep(&p.State); err != nil {
			return err
		}
	}
	if d.Crumb() == (boot.Crumb{}) {
		return d.LeaveCrumb(boot.Crumb{})
	}
	return nil
}

// put writes a file of a fixed size: in place where it is there, otherwise as a new one.
func (d *Dir) put(name string, data []byte) error {
	err := durable.Overwrite(d.Join(name), data)
	if err == nil || errors.Is(err, syscall.EROFS) {
		return err
	}
	if err := durable.WriteFileOn(Disk(), d.Join(name), data, 0o600); err != nil {
		return err
	}
	return nil
}

// load reads at most limit bytes.
func (d *Dir) load(name string, limit int64) ([]byte, error) {
	return readSome(d.Join(name), limit)
}

func readSome(path string, limit int64) ([]byte, error) {
	r, err := Disk().Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, limit))
	return data, errors.Join(err, r.Close())
}

// Intent is a remediation that the recovery environment verified and left to bootguard. It is verified again before
// it is applied: anybody may have written to the partition since.
type Intent struct {
	Name string // of its file
	Data []byte // the envelope, as it was signed
}

// Intents reads what lies in the intents folder, in the order of the names. What is too large is left out and named
// in the error; the others are returned all the same.
func (d *Dir) Intents() ([]Intent, error) {
	entries, err := os.ReadDir(d.Join(Intents))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []Intent
	errs := []error{err}
	for _, e := range entries {
		if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if len(out) == MaxIntents {
			errs = append(errs, fmt.Errorf("more than %d intents", MaxIntents))
			break
		}
		data, err := readSome(filepath.Join(d.Join(Intents), e.Name()), MaxIntent+1)
		if err == nil && len(data) > MaxIntent {
			err = fmt.Errorf("%s: more than %d bytes", e.Name(), MaxIntent)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, Intent{Name: e.Name(), Data: data})
	}
	slices.SortFunc(out, func(a, b Intent) int { return strings.Compare(a.Name, b.Name) })
	return out, errors.Join(errs...)
}

// LeaveIntent writes an intent, durably. The name is a file name without a folder.
func (d *Dir) LeaveIntent(in Intent) error {
	if in.Name != filepath.Base(in.Name) || strings.HasPrefix(in.Name, ".") || len(in.Data) > MaxIntent {
		return fmt.Errorf("intent %q cannot be kept", in.Name)
	}
	if err := os.MkdirAll(d.Join(Intents), 0o700); err != nil {
		return fmt.Errorf("make the folder of intents: %w", err)
	}
	return durable.WriteFileOn(Disk(), filepath.Join(d.Join(Intents), in.Name), in.Data, 0o600)
}

// RemoveIntent removes an intent that was applied or refused.
func (d *Dir) RemoveIntent(name string) error {
	if name != filepath.Base(name) {
		return fmt.Errorf("%q is no intent", name)
	}
	if err := os.Remove(filepath.Join(d.Join(Intents), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove intent: %w", err)
	}
	return durable.SyncDir(d.Join(Intents))
}

// ForgetIntents removes all intents, those that cannot be read as well, and returns their names.
func (d *Dir) ForgetIntents() (gone []string, err error) {
	entries, err := os.ReadDir(d.Join(Intents))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if removed := os.Remove(filepath.Join(d.Join(Intents), e.Name())); removed != nil {
			err = errors.Join(err, fmt.Errorf("remove intent: %w", removed))
			continue
		}
		gone = append(gone, e.Name())
	}
	if len(gone) > 0 {
		err = errors.Join(err, durable.SyncDir(d.Join(Intents)))
	}
	return gone, err
}

// Recoverable reports whether a recovery environment is there: an image and its kernel.
func (d *Dir) Recoverable() bool {
	for _, pair := range [][2]string{{KernelA, ImageA}, {KernelB, ImageB}} {
		whole := true
		for _, name := range pair {
			info, err := os.Stat(d.Join(name))
			whole = whole && err == nil && info.Mode().IsRegular() && info.Size() > 0
		}
		if whole {
			return true
		}
	}
	return false
}
