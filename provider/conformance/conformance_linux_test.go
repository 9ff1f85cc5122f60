package conformance_test

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
	"github.com/keepout-security/keepout/provider/conformance"
)

// roleVariable makes this test binary play a provider.
const roleVariable = "KEEPOUT_TEST_PROVIDER"

const marker = "EVIL"

const selftestObject = "the self-test object"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		os.Exit(m.Run())
	case "good":
		provider.Main(good)
	default:
		misbehave(role)
	}
}

// good is a correct provider, on the SDK.
var good = provider.Engine{
	Name: "good", Version: "1",
	Subscription: provider.Subscription{Events: event.Types(), Content: true, Under: []string{"/srv", "/home"}},
	Vote: func(ev *provider.Event) provider.Vote {
		content, err := ev.Content()
		if err != nil {
			return provider.Abstain()
		}
		if object, err := io.ReadAll(io.LimitReader(content, 64)); err == nil && string(object) == selftestObject {
			return provider.Deny(event.SelftestRule)
		}
		first := make([]byte, len(marker))
		if n, _ := content.ReadAt(first, 0); string(first[:n]) == marker {
			return provider.Deny("marker")
		}
		return provider.Allow()
	},
}

func command(t *testing.T, role string) conformance.Command {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return conformance.Command{
		// The race detector would wait a second at the exit of every process.
		Path: self, Env: []string{roleVariable + "=" + role, "GORACE=atexit_sleep_ms=0"},
		Deny: []byte(marker + " and more"), Allow: []byte("harmless"), Selftest: []byte(selftestObject),
	}
}

// TestGoodProvider wants more than Run: every case has to apply, so that none passes unchecked.
func TestGoodProvider(t *testing.T) {
	t.Parallel()
	cmd := command(t, "good")
	for _, c := range conformance.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			if err := conformance.Check(t.Context(), cmd, c); err != nil {
				t.Errorf("%s: %v", c.Title, err)
			}
		})
	}
}

// faults names, for each case, providers that must fail it, and a word of the report.
var faults = []struct{ name, role, says string }{
	{"handshake", "subscribes-to-nothing", "no known event type"},
	{"handshake", "votes-early", "voted before it subscribed"},
	{"handshake", "ready-early", "before it subscribed"},
	{"handshake", "never-ready", "never became"},
	{"handshake", "garbage", "protocol violation"},
	{"handshake", "wrong-version", "offers versions"},
	{"handshake", "exits", "ended"},
	{"refused", "refused-exit-0", "exited with 0"},
	{"refused", "ignores-refused", "still runs"},
	{"unknown-major", "any-major", "still runs"},
	{"heartbeat", "one-heartbeat", "no Heartbeat"},
	{"heartbeat", "slow-heartbeat", "heartbeats took"},
	{"heartbeat", "counts-nothing", "processed is 0"},
	{"heartbeat", "counts-backwards", "processed fell"},
	{"vote-deny", "allows-all", "want ACTION_DENY"},
	{"selftest", "allows-all", "want a denial"},
	{"selftest", "denies-all", "want a denial with rule"},
	{"vote-allow", "denies-all", "want ACTION_ALLOW"},
	{"one-vote", "never-votes", "without a vote"},
	{"one-vote", "votes-twice", "voted twice"},
	{"one-vote", "votes-on-others", "was not delivered"},
	{"pipelining", "loses-some", "without a vote"},
	{"notify", "votes-on-notify", "voted on notify event"},
	{"cancel-unknown", "crashes-on-cancel", "ended"},
	{"reload", "crashes-on-second-reload", "ended"},
	{"drain", "ignores-drain", "still runs"},
	{"drain", "drops-on-drain", "without a vote"},
	{"drain", "drain-exit-1", "exited with 1"},
	{"closed", "outlives-sockets", "still runs"},
	{"paused", "crashes-after-pause", "ended"},
	{"unknown-fields", "crashes-on-unknown-field", "ended"},
	{"unknown-body", "crashes-on-unknown-body", "ended"},
	{"unknown-event-type", "denies-all", "on an unknown type"},
	{"unknown-event-type", "crashes-on-unknown-type", "ended"},
	{"bare-event", "crashes-on-bare-event", "ended"},
	{"no-descriptor", "crashes-without-descriptor", "ended"},
	{"dropped", "crashes-on-dropped", "ended"},
	{"largest-packet", "small-buffer", "ended"},
	{"descriptor-leak", "leaks", "descriptors open"},
}

// TestEveryCaseCanFail runs each case against a provider with one fault.
func TestEveryCaseCanFail(t *testing.T) {
	t.Parallel()
	cases := map[string]conformance.Case{}
	for _, c := range conformance.Cases() {
		cases[c.Name] = c
	}
	covered := map[string]bool{}
	for _, f := range faults {
		covered[f.name] = true
		t.Run(f.name+"/"+f.role, func(t *testing.T) {
			t.Parallel()
			c, ok := cases[f.name]
			if !ok {
				t.Fatal("no such case")
			}
			cmd := command(t, f.role)
			cmd.Patience = 2 * time.Second
			err := conformance.Check(t.Context(), cmd, c)
			if err == nil || errors.Is(err, conformance.ErrNotApplicable) || !strings.Contains(err.Error(), f.says) {
				t.Errorf("reported %v, want a failure that says %q", err, f.says)
			}
		})
	}
	for name := range cases {
		if !covered[name] {
			t.Errorf("no provider fails %s", name)
		}
	}
}

// TestNoFaultIsNoFailure proves that the failures above come from the faults: the same loop passes without.
func TestNoFaultIsNoFailure(t *testing.T) {
	t.Parallel()
	conformance.Run(t, command(t, "none"))
}

func TestMissingProgram(t *testing.T) {
	cmd := conformance.Command{Path: t.TempDir() + "/none"}
	if err := conformance.Check(t.Context(), cmd, conformance.Cases()[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want os.ErrNotExist", err)
	}
}

func TestCaseNamesAreUnique(t *testing.T) {
	var names []string
	for _, c := range conformance.Cases() {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("names %q", names)
	}
}
