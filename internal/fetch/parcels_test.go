package fetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/recovery/diagnostics"
	"github.com/keepout-security/keepout/packaging"
)

// postbox is a control plane that takes what begins with "good".
type postbox struct {
	got   []string
	down  atomic.Bool
	calls atomic.Int64
}

func (p *postbox) SendParcel(_ context.Context, parcel []byte) error {
	p.calls.Add(1)
	switch {
	case p.down.Load():
		return errors.New("no route to host")
	case !strings.HasPrefix(string(parcel), "good"):
		return fmt.Errorf("400: %w", client.ErrRefused)
	}
	p.got = append(p.got, string(parcel))
	return nil
}

// TestParcelsAreSentOnce: what lies in the outbox is sent in order, once, also over a restart; a server that is away is
// asked again, and what it will never take keeps nothing else from being sent. Another file of the same name is another
// parcel.
func TestParcelsAreSentOnce(t *testing.T) {
	t.Parallel()
	o := &Options{StateDir: t.TempDir()}
	o.complete()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{o.own(), o.outbox()} {
		must(os.MkdirAll(dir, 0o700))
	}
	put := func(name, text string) {
		t.Helper()
		must(os.WriteFile(filepath.Join(o.outbox(), name), []byte(text), 0o600))
	}
	put("bundle-2.parcel", "good two")
	put("bundle-1.parcel", "good one")
	put("bundle-0.parcel", "torn")
	put("bundle-3.parcel.tmp", "good, and not whole yet")
	p := &postbox{}
	p.down.Store(true)
	if err := o.postOnce(t.Context(), p); err == nil {
		t.Error("a server that is away took everything")
	}
	p.down.Store(false)
	for range 2 {
		must(o.postOnce(t.Context(), p))
	}
	if want := []string{"good one", "good two"}; !slices.Equal(p.got, want) {
		t.Errorf("sent %q, want %q", p.got, want)
	}
	put("bundle-1.parcel", "good, and another one")
	must(o.postOnce(t.Context(), p))
	if len(p.got) != 3 {
		t.Errorf("sent %q", p.got)
	}
	must(os.WriteFile(filepath.Join(o.own(), sentFile), []byte("{"), 0o600))
	must(o.postOnce(t.Context(), p))
	if len(p.got) != 5 {
		t.Errorf("without its notes it sent %q", p.got)
	}
	must(o.prepareOutbox(os.Getuid()))
	left, err := os.ReadDir(o.outbox())
	must(err)
	if len(left) != 1 || left[0].Name() != "bundle-3.parcel.tmp" {
		t.Errorf("left in the outbox: %v", left)
	}
}

// TestParcelsWaitForAServer: a server that is away is asked less and less often, and as often as before once it is
// there.
func TestParcelsWaitForAServer(t *testing.T) {
	t.Parallel()
	o := &Options{StateDir: t.TempDir()}
	o.complete()
	put := func(t *testing.T, name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(o.outbox(), name), []byte("good"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{o.own(), o.outbox()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		d.down.Store(true)
		f := &fetcher{o: o, host: d}
		go f.post(t.Context())
		put(t, "bundle-1.parcel")
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		if most := 8 + int64(10*time.Hour/maxPostWait); d.calls.Load() < most/2 || d.calls.Load() > most {
			t.Errorf("it was asked %d times in ten hours, want %d at most", d.calls.Load(), most)
		}
		d.down.Store(false)
		time.Sleep(maxPostWait)
		synctest.Wait()
		put(t, "bundle-2.parcel")
		time.Sleep(postEvery)
		synctest.Wait()
		if len(d.got) != 2 {
			t.Errorf("sent %q", d.got)
		}
	})
}

// TestHostIsKnownByItsPseudonym: the control plane never hears a machine's own id, and hears what makes hosts alike.
func TestHostIsKnownByItsPseudonym(t *testing.T) {
	t.Parallel()
	o := &Options{StateDir: t.TempDir(), MachineID: "0123456789abcdef0123456789abcdef"}
	o.complete()
	if err := o.describe("", "hardware=toaster,customer=acme"); err != nil {
		t.Fatal(err)
	}
	if o.MachineID != diagnostics.Pseudonym("0123456789abcdef0123456789abcdef") {
		t.Errorf("it enrols as %q", o.MachineID)
	}
	if o.Labels["kernel"] == "" || o.Labels["hardware"] != "toaster" || o.Labels["customer"] != "acme" {
		t.Errorf("labels %v", o.Labels)
	}
}

// TestUnit: the fetcher starts before any provider can, and nothing that is wrong with the core or the network keeps it
// from starting; it is confined by systemd as well.
func TestUnit(t *testing.T) {
	t.Parallel()
	unit := string(packaging.Fetch("/opt/keepout/bin"))
	section, has := "", map[string][]string{}
	for line := range strings.Lines(unit) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		}
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			has[section+key] = append(has[section+key], strings.Fields(value)...)
		}
	}
	if !slices.Contains(has["[Unit]Before"], "keepoutd.service") {
		t.Errorf("it does not start before the core: %q", has["[Unit]Before"])
	}
	for _, key := range []string{"Requires", "BindsTo", "Requisite", "PartOf"} {
		if len(has["[Unit]"+key]) > 0 {
			t.Errorf("%s=%q: it depends on another unit", key, has["[Unit]"+key])
		}
	}
	for _, after := range has["[Unit]After"] {
		if strings.Contains(after, "network") || strings.Contains(after, "keepoutd") {
			t.Errorf("it waits for %s", after)
		}
	}
	for key, want := range map[string]string{
		"ExecStart": "/opt/keepout/bin/keepout-fetch", "Restart": "always", "NoNewPrivileges": "yes",
		"ProtectSystem": "strict", "PrivateDevices": "yes", "RestrictNamespaces": "yes", "MemoryDenyWriteExecute": "yes",
	} {
		if got := has["[Service]"+key]; len(got) == 0 || got[0] != want {
			t.Errorf("%s=%q, want %q", key, got, want)
		}
	}
	for _, c := range has["[Service]CapabilityBoundingSet"] {
		if c == "CAP_SYS_ADMIN" || c == "CAP_NET_ADMIN" || c == "CAP_SYS_PTRACE" {
			t.Errorf("it may have %s", c)
		}
	}
	if has["[Unit]StartLimitIntervalSec"][0] != "0" {
		t.Error("systemd gives it up after a few failures")
	}
}
