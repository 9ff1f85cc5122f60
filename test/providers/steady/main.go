// Command steady is the provider that benchmarks ask: it allows everything but its self-test object, after the time
// that its setting "delay" says. As with a real engine, and unlike subject's, its votes on unchanged objects are
// remembered. It is not installed.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
)

func main() {
	s := &steady{}
	provider.Main(provider.Engine{
		Name: "steady", Version: "1", Load: s.load, Vote: s.vote, Workers: 2,
		// Whoever creates a file opens an empty one, in which an engine that looks at the content has nothing to judge.
		Subscription: provider.Subscription{
			Events: []event.Type{event.Open, event.Exec}, MinSize: 1, Content: true, AnyType: true,
		},
	})
}

type steady struct{ delay time.Duration }

func (s *steady) load(_ context.Context, set provider.Settings) (string, error) {
	if d := set.Values["delay"]; d != "" {
		var err error
		if s.delay, err = time.ParseDuration(d); err != nil {
			return "", fmt.Errorf("delay: %w", err)
		}
	}
	return "none", nil
}

//go:embed selftest.txt
var selftest string

func (s *steady) vote(ev *provider.Event) provider.Vote {
	if s.delay > 0 {
		time.Sleep(s.delay)
	}
	if ev.File.Size != int64(len(selftest)) {
		return provider.Allow()
	}
	content, err := ev.Content()
	if err != nil {
		return provider.Abstain()
	}
	object := make([]byte, len(selftest))
	if _, err := content.ReadAt(object, 0); err == nil && string(object) == selftest {
		return provider.Deny(event.SelftestRule)
	}
	return provider.Allow()
}
