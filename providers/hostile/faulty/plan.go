package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/provider"
)

// planFile is the content: lines of a key and a value, such as "fault hang". Every load reads it again.
const planFile = "plan.txt"

// onEvent are the faults that a vote commits, atOnce those that begin with the load.
var (
	onEvent = []string{
		"deny", "lie", "crash", "hang", "late", "garbage", "overlong", "unknown", "double", "fdleak",
	}
	atOnce = []string{"crash-on-load", "hang-on-load", "flap", "spin", "leak", "forkbomb"}
)

// plan is what the engine is going to do wrong.
type plan struct {
	fault string
	delay time.Duration // of every vote
	every bool          // every event meets the fault, not only files that begin with the trigger
}

// faulty replaces its plan with each load.
type faulty struct {
	inForce atomic.Pointer[plan]
}

// load reads the settings, then the content, which wins.
func (f *faulty) load(ctx context.Context, set provider.Settings) (string, error) {
	p := &plan{}
	for _, key := range []string{"fault", "delay", "on"} {
		if err := p.set(key, set.Values[key]); err != nil {
			return "", err
		}
	}
	if set.Content != "" {
		if err := p.read(filepath.Join(set.Content, planFile)); err != nil {
			return "", err
		}
	}
	if p.fault != "" {
		if err := caged(); err != nil {
			return "", err
		}
	}
	switch p.fault {
	case "crash-on-load":
		panic("the content was too much for this engine")
	case "hang-on-load":
		<-ctx.Done()
	}
	f.inForce.Store(p)
	if slices.Contains(atOnce, p.fault) {
		go p.begin()
	}
	return strings.TrimSpace("plan " + p.fault), nil
}

func (p *plan) read(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open plan: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	lines := bufio.NewScanner(io.LimitReader(file, 4096))
	for number := 1; lines.Scan(); number++ {
		key, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if key == "" || strings.HasPrefix(key, "#") {
			continue
		}
		if err := p.set(key, strings.TrimSpace(value)); err != nil {
			return fmt.Errorf("%s:%d: %w", path, number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	return nil
}

// set takes one key; an empty value changes nothing.
func (p *plan) set(key, value string) (err error) {
	switch {
	case value == "":
	case key == "fault" && value == "none":
		p.fault = ""
	case key == "fault" && (slices.Contains(onEvent, value) || slices.Contains(atOnce, value)):
		p.fault = value
	case key == "delay":
		p.delay, err = time.ParseDuration(value)
	case key == "on" && (value == "every" || value == "marked"):
		p.every = value == "every"
	default:
		return fmt.Errorf("%s %q is not known", key, value)
	}
	return err
}
