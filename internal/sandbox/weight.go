package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// The weight of an ordinary group beside its neighbours, in version 1 and 2 (cpu.shares, cpu.weight), and the most.
const (
	splitWeight       = 1024
	unifiedWeight     = 100
	mostUnifiedWeight = 10_000
)

// weigh gives the folder of version 2 the weight that its groups would have beside each other: in one that weighs as
// much as one of them, all providers would pay for what one of them burns. An error leaves it as it was.
func (g *Groups) weigh(more int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live += more
	groups := max(g.live, 1)
	if g.usable[cpuController] == nil && g.unified != "" {
		weight := strconv.Itoa(min(groups*unifiedWeight, mostUnifiedWeight))
		_ = write(filepath.Join(cgroupRoot, g.unified, g.name, "cpu.weight"), weight)
	}
}

// idle makes the group one that runs when its neighbours do not want to (cpu.idle, since Linux 5.15), or else gives it
// the least weight beside them. With version 1 these are all that runs on the host, with version 2 the other providers.
// A group that is gone needs neither.
func (g *group) idle(on bool) error {
	choose := func(yes, no string) string {
		if on {
			return yes
		}
		return no
	}
	err := write(filepath.Join(g.cpu, "cpu.idle"), choose("1", "0"))
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case g.unified != nil:
		err = write(filepath.Join(g.cpu, "cpu.weight"), choose("1", strconv.Itoa(unifiedWeight)))
	default:
		err = write(filepath.Join(g.cpu, "cpu.shares"), choose("2", strconv.Itoa(splitWeight)))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// write writes a file of a control group. It makes none: a group has the files that the kernel gives it.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	if _, err := f.WriteString(text); err != nil {
		return errors.Join(fmt.Errorf("control group: %w", err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	return nil
}
