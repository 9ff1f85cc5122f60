package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
)

const (
	pattern = "c-00000291-*.channel" // the content's file; the newest name wins
	maxLine = 4096
)

// engine evaluates the instances of the content that was loaded last.
type engine struct {
	instances atomic.Pointer[[]instance]
}

// load reads, validates and, unless the setting self_test is off, tries the content on an event of its own.
func (e *engine) load(_ context.Context, set provider.Settings) (string, error) {
	if set.Content == "" {
		return "", errors.New("no content: set content: to a folder with " + pattern)
	}
	files, err := filepath.Glob(filepath.Join(set.Content, pattern)) // sorted
	if err != nil || len(files) == 0 {
		return "", errors.Join(fmt.Errorf("no %s in %s", pattern, set.Content), err)
	}
	path := files[len(files)-1]
	instances, err := read(path)
	if err != nil {
		return "", err
	}
	if set.Values["self_test"] != "off" {
		own := inputs(&provider.Event{Event: event.Event{Type: event.Open, Time: time.Now()}})
		for _, in := range instances {
			interpret(in, own)
		}
	}
	e.instances.Store(&instances)
	return filepath.Base(path), nil
}

// read reads a channel file: fields separated by commas, one instance a line.
func read(path string) ([]instance, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open channel file: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	var out []instance
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		in := instance{
			name: fmt.Sprintf("%s:%d", filepath.Base(path), number), criteria: strings.Split(line, ","),
		}
		if err := validate(in); err != nil {
			return nil, err
		}
		out = append(out, in)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read channel file: %w", err)
	}
	return out, nil
}

// vote denies what an instance describes.
func (e *engine) vote(ev *provider.Event) provider.Vote {
	all := e.instances.Load()
	if all == nil {
		return provider.Abstain()
	}
	supplied := inputs(ev)
	for _, in := range *all {
		if interpret(in, supplied) {
			return provider.Deny(in.name)
		}
	}
	return provider.Allow()
}
