package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keepout-security/keepout/provider"
)

var faults = []string{
	"", "deny", "suspect", "exit", "hang", "late", "garbage", "overlong", "unknown", "double", "signal",
	"blind", // allows everything, its self-test object too
}

func (s *subject) load(_ context.Context, set provider.Settings) (string, error) {
	s.fault = set.Values["fault"]
	if !slices.Contains(faults, s.fault) {
		return "", fmt.Errorf("fault %q is not known", s.fault)
	}
	if d := set.Values["delay"]; d != "" {
		var err error
		if s.delay, err = time.ParseDuration(d); err != nil {
			return "", fmt.Errorf("delay: %w", err)
		}
	}
	return "none", nil
}
