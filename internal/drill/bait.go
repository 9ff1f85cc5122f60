package drill

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
)

const (
	baitPrefix = ".keepout-drill-" // of the folder's name
	baitSize   = 512               // random bytes of a good file
	baitAge    = time.Hour         // a folder of this age was left behind by a drill that was killed
	mostLooked = 512               // entries of a watched folder that are looked at for those
)

// bait is a hidden folder with files to open, below a path that the host watches. Nobody else may enter it, and it is
// held, so that what is opened and removed is in it whatever the folders around it become.
type bait struct {
	dir           string // its path
	name          string
	above, within *os.Root
	good, bad     []string // names of files
}

// layBait makes the folder, with good files. remove takes all of it away, also after an error.
func layBait(ctx context.Context, watched string) (*bait, error) {
	at, err := filepath.EvalSymlinks(watched) // the core sees a path without links
	if err != nil {
		return nil, fmt.Errorf("watched path: %w", err)
	}
	above, err := os.OpenRoot(at)
	if err != nil {
		return nil, fmt.Errorf("watched path: %w", err)
	}
	sweepBait(above, at)
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	b := &bait{above: above, name: baitPrefix + hex.EncodeToString(id[:])}
	b.dir = filepath.Join(at, b.name)
	if err = above.Mkdir(b.name, 0o700); err == nil {
		b.within, err = above.OpenRoot(b.name)
	}
	for i := 0; i < goodFiles && err == nil; i++ {
		text := make([]byte, baitSize)
		_, _ = rand.Read(text)
		b.good = append(b.good, goodFile(i))
		err = errors.Join(b.within.WriteFile(goodFile(i), text, 0o600), ctx.Err())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lay files out: %w", err), b.remove())
	}
	return b, nil
}

// poison lays bad files out, of a provider's self-test object, and reports whether they are denied. If not, it takes
// them away. They are named as canaries are, so that their denial alarms nobody.
func (b *bait) poison(object []byte) (works bool, err error) {
	for i := range badFiles {
		name := fmt.Sprintf("%sdrill-%d", event.SelftestName, i)
		b.bad = append(b.bad, name)
		fresh := fmt.Sprintf("fresh-%d", i) // so that the only acts on its own name are those of the drill
		if err := errors.Join(b.within.WriteFile(fresh, object, 0o600), b.within.Rename(fresh, name)); err != nil {
			return false, fmt.Errorf("lay bad files out: %w", err)
		}
	}
	if outcomeOf(b.open(b.bad[0])) == denied {
		return true, nil
	}
	for _, name := range b.bad {
		err = errors.Join(err, b.within.Remove(name))
	}
	b.bad = nil
	return false, err
}

// open opens one of the files, which has just changed, so that nobody answers from memory: a drill is about those who
// are asked.
func (b *bait) open(name string) (*os.File, error) {
	now := time.Now()
	if err := b.within.Chtimes(name, now, now); err != nil {
		return nil, fmt.Errorf("touch the drill's file: %w", err)
	}
	return b.within.OpenFile(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
}

// remove takes the folder away.
func (b *bait) remove() error {
	err := b.above.RemoveAll(b.name)
	if b.within != nil {
		err = errors.Join(err, b.within.Close())
	}
	if err = errors.Join(err, b.above.Close()); err != nil {
		return fmt.Errorf("remove the drill's folder: %w", err)
	}
	return nil
}

// sweepBait removes what drills left behind that were killed. It is best effort.
func sweepBait(above *os.Root, at string) {
	f, err := os.Open(at)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }() // only read
	names, _ := f.Readdirnames(mostLooked)
	for _, name := range names {
		info, err := above.Lstat(name)
		if err == nil && strings.HasPrefix(name, baitPrefix) && info.IsDir() && time.Since(info.ModTime()) > baitAge {
			_ = above.RemoveAll(name)
		}
	}
}
