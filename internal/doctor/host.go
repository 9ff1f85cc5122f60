package doctor

import (
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/crash"
)

// Limits of what the host must have left.
const (
	leastFree   = 64 << 20 // bytes beside what the journal may still grow by
	leastInodes = 1000
	mostUsed    = 80 // percent of a table of open files
	mostJump    = 5 * time.Second
	firstYear   = 2026 // nothing of this program is older
	lastYear    = 2100
)

// checkHost looks at disk, clock and descriptors.
func checkHost(f *facts) []Finding {
	n := notes{section: Host}
	checkDisk(&n, f)
	checkClock(&n, f)
	checkFiles(&n, f)
	if p, found := crash.Problem(f.host.crashes, f.now); found {
		n.warning("start", p.Code, p.Title, p.Fix).Subject = p.Subject
	}
	return n.all
}

func checkDisk(n *notes, f *facts) {
	if f.checkup == nil || !f.host.stateFound {
		n.info("disk", "disk: not checked: only the core knows where it writes")
		return
	}
	d, s := &f.checkup.Disk, &f.host.state
	if s.err != nil {
		n.info("disk", "disk: not checked: "+s.err.Error()).Subject = s.path
		return
	}
	// What the journal has is on the disk already.
	grow := uint64(max(d.JournalMax-d.JournalBytes, 0))
	const fix = "make room on that file system, or lower journal.file_size and journal.files in the configuration"
	switch {
	case s.free < leastFree:
		n.failure("disk.space", "KO-1813", fmt.Sprintf("only %s are free under %s", size(s.free), s.path), fix)
	case s.free < grow+leastFree:
		n.warning("disk.space", "KO-1813", fmt.Sprintf("the journal may still grow by %s, but only %s are free under %s",
			size(grow), size(s.free), s.path), fix)
	default:
		n.ok("disk.space", fmt.Sprintf("%s free under %s, journal %s of %s", size(s.free), s.path,
			size(uint64(max(d.JournalBytes, 0))), size(uint64(max(d.JournalMax, 0)))))
	}
	if s.maxInode > 0 && s.freeInodes < leastInodes {
		n.failure("disk.inodes", "KO-1813", fmt.Sprintf("only %d inodes are free under %s", s.freeInodes, s.path),
			"remove files on that file system")
	} else if s.maxInode > 0 {
		n.ok("disk.inodes", fmt.Sprintf("%d inodes free", s.freeInodes))
	}
}

func checkClock(n *notes, f *facts) {
	c := &f.host.clock
	if y := f.now.Year(); y < firstYear || y > lastYear {
		n.failure("clock.year", "KO-1814", "the clock says "+f.now.UTC().Format(time.RFC3339)+", which cannot be",
			"set it, for example with timedatectl; allowances and the journal depend on it")
	} else {
		n.ok("clock.year", "the clock says "+f.now.UTC().Format(time.RFC3339))
	}
	if f.status != nil && f.checkup != nil {
		wall := f.now.Sub(f.status.Since)
		jump := wall - time.Duration(f.checkup.ElapsedMS)*time.Millisecond
		// The monotonic clock stands still while the host sleeps, and it may have slept before the core started.
		asleep := jump > 0 && jump <= c.suspended+mostJump
		if jump.Abs() > mostJump && !asleep {
			n.warning("clock.jump", "KO-1814", fmt.Sprintf("the clock was set by %v since the core started",
				jump.Round(time.Second)), "find out who sets it; times in the journal before and after do not compare")
		} else {
			n.ok("clock.jump", "the clock was not set since the core started")
		}
	}
	switch {
	case c.syncErr != nil:
		n.info("clock.sync", "clock synchronisation: not known: "+c.syncErr.Error())
	case !c.synced:
		n.info("clock.sync", "the kernel does not know of anybody who keeps the clock right (NTP)")
	default:
		n.ok("clock.sync", "the clock is kept right (NTP)")
	}
}

func checkFiles(n *notes, f *facts) {
	if f.checkup == nil {
		n.info("files", "descriptors of the core: not checked: only the core knows")
	} else {
		coreFiles(n, f.checkup.Files)
	}
	switch h := &f.host; {
	case h.fileNrErr != nil:
		n.info("files.host", "open files of the host: not known: "+h.fileNrErr.Error())
	case h.fileOpen > h.fileMax/100*mostUsed:
		n.warning("files.host", "KO-1815", fmt.Sprintf("the host has %d of %d files open", h.fileOpen, h.fileMax),
			"raise fs.file-max: with no descriptor left the kernel refuses opens by itself")
	default:
		n.ok("files.host", fmt.Sprintf("the host has %d files open, far below its limit", h.fileOpen))
	}
}

func coreFiles(n *notes, c control.CheckupFiles) {
	const fix = "raise the service's LimitNOFILE: with no descriptor left the kernel refuses opens by itself"
	switch {
	case c.Limit < c.Wanted:
		n.warning("files.core", "KO-1815", fmt.Sprintf("the core may open %d files, which is less than %d", c.Limit,
			c.Wanted), fix)
	case uint64(max(c.Open, 0)) > c.Limit/100*mostUsed:
		n.warning("files.core", "KO-1815", fmt.Sprintf("the core has %d of %d files open", c.Open, c.Limit), fix)
	default:
		n.ok("files.core", fmt.Sprintf("the core has %d of %d files open", c.Open, c.Limit))
	}
}

// size renders bytes as people read them.
func size(b uint64) string {
	switch {
	case b >= 10<<30:
		return fmt.Sprintf("%d GiB", b>>30)
	case b >= 10<<20:
		return fmt.Sprintf("%d MiB", b>>20)
	default:
		return fmt.Sprintf("%d KiB", b>>10)
	}
}
