//go:build cgo && yara

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
	"github.com/keepout-security/keepout/providers/yara/libyara"
)

const (
	workers      = 4        // scans at one time, each with a scanner of its own
	maxContent   = 64 << 20 // bytes of a file that is scanned
	maxKept      = 1 << 20  // bytes of a buffer that is kept between scans
	maxLarge     = 2        // scans of more than that at one time: 128 MiB, which the grant has room for
	defaultLimit = 10 * time.Second
	maxFailures  = 3 // failed scans in a row until the provider calls itself degraded
)

// errTooLarge is a reason to abstain.
var errTooLarge = fmt.Errorf("larger than %d MiB", maxContent>>20)

// desk is the place of one scan: a scanner and a buffer.
type desk struct {
	scanner *libyara.Scanner
	buf     []byte
}

// ruleSet is one version of the rules with its desks.
type ruleSet struct {
	rules *libyara.Rules
	desks chan *desk
	large chan struct{} // holds one for each large scan

	use    sync.RWMutex // held shared by scans, so that close waits for them
	closed bool
}

// judge answers events from the rules in force.
type judge struct {
	inForce atomic.Pointer[ruleSet]
	failed  atomic.Uint64 // scans in a row without a result
	reason  atomic.Pointer[string]
}

func newEngine(j *judge) provider.Engine {
	return provider.Engine{
		Name:    "yara",
		Version: version,
		Subscription: provider.Subscription{
			Events:  []event.Type{event.Open, event.Exec},
			MinSize: 1, // whoever creates a file opens an empty one, and there is nothing to judge
			MaxSize: maxContent,
			Content: true,
			AnyType: true,
		},
		Load:    j.load,
		Vote:    j.vote,
		Check:   j.check,
		Workers: workers,
	}
}

// load compiles the rules of the folder and puts them in force. After an error those in force stay.
func (j *judge) load(_ context.Context, s provider.Settings) (string, error) {
	sources, digest, err := readRules(s.Content)
	if err != nil {
		return "", err
	}
	all := append([]libyara.Source{selftest()}, sources...)
	rules, err := libyara.Compile(all, "filename", "filepath", "extension", "filetype", "owner")
	if err != nil {
		return "", fmt.Errorf("compile rules: %w", err)
	}
	count := rules.Count() - 1 // but for our own
	if count == 0 {
		rules.Close()
		return "", noRules(s.Content)
	}
	next := &ruleSet{rules: rules, desks: make(chan *desk, workers), large: make(chan struct{}, maxLarge)}
	for range workers {
		scanner, err := rules.NewScanner()
		if err != nil {
			next.close()
			return "", err
		}
		next.desks <- &desk{scanner: scanner}
	}
	if old := j.inForce.Swap(next); old != nil {
		old.close()
	}
	return fmt.Sprintf("%s, %s, %s", plural(count, "rule"), plural(len(sources), "file"), digest), nil
}

// vote scans the object of one event.
func (j *judge) vote(ev *provider.Event) provider.Vote {
	set := j.acquire()
	if set == nil {
		return provider.Abstain()
	}
	defer set.use.RUnlock()
	d := <-set.desks // as many as workers: there is one
	defer func() { set.desks <- d }()
	rule, err := set.scan(d, ev)
	if err != nil {
		return j.abstain(err)
	}
	j.failed.Store(0)
	if rule == selftestRule {
		return provider.Deny(event.SelftestRule)
	}
	if rule != "" {
		return provider.Deny(rule)
	}
	return provider.Allow()
}

// abstain says why there is no opinion, and counts.
func (j *judge) abstain(err error) provider.Vote {
	reason := err.Error()
	if !errors.Is(err, errTooLarge) { // a property of the file, no failure of the engine
		j.reason.Store(&reason)
		j.failed.Add(1)
	}
	vote := provider.Abstain()
	vote.Rule = reason
	return vote
}

// check explains what keeps the provider from doing its work.
func (j *judge) check() error {
	if n := j.failed.Load(); n >= maxFailures {
		return fmt.Errorf("%d scans in a row failed: %s", n, *j.reason.Load())
	}
	return nil
}

// acquire returns the rules in force, held for a scan, or nil.
func (j *judge) acquire() *ruleSet {
	for {
		set := j.inForce.Load()
		if set == nil {
			return nil
		}
		set.use.RLock()
		if !set.closed {
			return set
		}
		set.use.RUnlock() // replaced between the two lines above
	}
}

// close frees the rules after the last scan.
func (set *ruleSet) close() {
	set.use.Lock()
	defer set.use.Unlock()
	set.closed = true
	for range len(set.desks) {
		(<-set.desks).scanner.Close()
	}
	set.rules.Close()
}

// scan reads the object into memory and scans it.
func (set *ruleSet) scan(d *desk, ev *provider.Event) (rule string, err error) {
	section, err := ev.Content()
	if err != nil {
		return "", err
	}
	size := max(section.Size(), 0)
	if size > maxContent {
		return "", errTooLarge
	}
	if size <= maxKept {
		if int64(len(d.buf)) < size {
			d.buf = make([]byte, max(4096, size))
		}
		return d.scanInto(d.buf[:size], section, ev.Deadline)
	}
	select {
	case set.large <- struct{}{}:
		defer func() { <-set.large }()
	case <-ev.Context().Done():
		return "", fmt.Errorf("wait for other large files: %w", ev.Context().Err())
	}
	// Not the Go heap: it would keep several of these until the next collection.
	large, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return "", fmt.Errorf("reserve %d bytes: %w", size, err)
	}
	defer unix.Munmap(large) //nolint:errcheck // fails for a wrong address only
	return d.scanInto(large, section, ev.Deadline)
}

func (d *desk) scanInto(buf []byte, content io.Reader, deadline time.Time) (rule string, err error) {
	n, err := io.ReadFull(content, buf)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) { // cut short meanwhile
		return "", fmt.Errorf("read content: %w", err)
	}
	limit := defaultLimit
	if !deadline.IsZero() {
		limit = time.Until(deadline)
	}
	return d.scanner.Scan(buf[:n], limit)
}
