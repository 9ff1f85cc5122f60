// Package fetch is the part of a host that talks to the network: it enrols, checks in, fetches metadata and packages
// into a staging folder, and tells the control plane what the core reports. It works from a folder as well.
//
// It guarantees that it activates nothing and decides nothing: what it stages, the core verifies again, and what it
// says, the core wrote. It runs as a user of its own, without capabilities, and reaches only its own folders.
package fetch

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/update"
)

// Options say what is fetched from where.
type Options struct {
	StateDir  string // of the host
	Staging   string // default: below it
	From      string // a folder instead of a server
	Once      bool   // with From: look once, and end
	Server    string // with Token: https://HOST:PORT
	Token     string // one-time, for a host that has no identity yet
	MachineID string
	Hostname  string
	Labels    map[string]string
	Log       *slog.Logger
}

// Times and bounds.
const (
	lookEvery   = 500 * time.Millisecond // at the core's report
	fromEvery   = 10 * time.Second       // at a folder
	longPoll    = 55                     // seconds
	pollSlack   = 20 * time.Second
	minPause    = 200 * time.Millisecond
	maxBackoff  = time.Minute
	refreshMeta = time.Minute      // between two looks at metadata while something is ordered
	countsEvery = 5 * time.Minute  // counts are said, unless the server wants them more often
	alarmEvery  = 10 * time.Second // and counts of what should not be
	noCore      = 10 * time.Second // without a core, the server is asked that often
	stageTurn   = time.Minute      // what to go back to is fetched for that long between two check-ins, other packages too
	renewLimit  = time.Minute      // for a new certificate
	ownDir      = "fetch"
)

func (o *Options) complete() {
	if o.Staging == "" {
		o.Staging = filepath.Join(o.StateDir, update.StagingDir)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

func (o *Options) own() string    { return filepath.Join(o.StateDir, ownDir) }
func (o *Options) outbox() string { return filepath.Join(o.StateDir, update.OutboxDir) }
func (o *Options) report() string { return filepath.Join(o.StateDir, update.ReportDir) }

// Run fetches until ctx ends.
func Run(ctx context.Context, o Options) error {
	o.complete()
	hold, err := o.begin(ctx)
	if err != nil {
		o.Log.Warn("what a power cut left stays", slog.Any("error", err))
	}
	if hold != nil {
		defer func() { _ = hold.Close() }() // it ends with the process all the same
	}
	if o.From != "" {
		return fromFolder(ctx, &o)
	}
	id, err := identityOf(ctx, &o)
	if err != nil {
		return err
	}
	host, err := client.NewHostHTTP1(id) // docs/decisions/0011-check-ins-over-http1.md
	if err != nil {
		return err
	}
	defer host.Close()
	instance := make([]byte, 8)
	if _, err := rand.Read(instance); err != nil {
		return fmt.Errorf("name this instance: %w", err)
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without one, the instance tells clones apart
	f := &fetcher{
		o: &o, host: host, instance: hex.EncodeToString(instance), boot: strings.TrimSpace(string(boot)),
		mirror: mirror{from: server{host}, to: o.Staging, whole: map[string]bool{}}, pause: minPause, turn: stageTurn,
		staged: stagedBefore(o.Staging),
	}
	go f.post(ctx)
	return f.run(ctx)
}

// fromFolder stages what a folder names.
func fromFolder(ctx context.Context, o *Options) error {
	whole := map[string]bool{}
	for {
		err := stageFrom(ctx, o, whole)
		if o.Once {
			return err
		}
		if err != nil {
			o.Log.Warn("not all was staged", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(fromEvery):
		}
	}
}

// stageFrom stages the newest of each provider. The error may be about one vendor's; the others' are staged then.
func stageFrom(ctx context.Context, o *Options, whole map[string]bool) error {
	dir, err := folder.Open(o.From)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // only read
	m := mirror{from: disk{dir}, to: o.Staging, whole: whole}
	c, err := m.catalog(ctx)
	if err != nil {
		return err
	}
	var orders []update.Order
	var wanted []string
	for _, order := range c.newest() {
		wanted = append(wanted, order.Digest)
		if err := m.blobs(ctx, order.Digest); err != nil {
			c.trouble(order.Vendor, fmt.Errorf("its package %s: %w", order.Path, err))
			continue
		}
		orders = append(orders, order)
	}
	err = update.WriteOrders(o.Staging, &update.Orders{Orders: orders, Troubles: c.toldTroubles()})
	if err == nil { // the next look goes on with what cannot go now
		if _, err := m.sweep(wanted); err != nil {
			o.Log.Warn("what is no longer needed was not removed", slog.Any("error", err))
		}
	}
	return errors.Join(c.err(), err)
}

// identityOf reads the host's identity, or enrols.
func identityOf(ctx context.Context, o *Options) (*client.Identity, error) {
	var id client.Identity
	text, err := os.ReadFile(o.identityFile())
	switch {
	case err == nil:
		if err := json.Unmarshal(text, &id); err != nil {
			return nil, fmt.Errorf("read this host's identity: %w", err)
		}
		return &id, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read this host's identity: %w", err)
	case o.Token == "" || o.Server == "":
		return nil, errors.New("this host is not enrolled: give --server and --token-file, or --from DIR")
	}
	key, err := keyOf(o)
	if err != nil {
		return nil, err
	}
	got, err := client.Enrol(ctx, o.Server, o.Token, client.About{
		MachineID: o.MachineID, Hostname: o.Hostname, Labels: o.Labels,
	}, key)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	o.Log.Info("enrolled", slog.String("host", got.HostID))
	return got, o.keepIdentity(got)
}

func (o *Options) identityFile() string { return filepath.Join(o.own(), "identity.json") }

func (o *Options) keepIdentity(id *client.Identity) error {
	text, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("keep the identity: %w", err)
	}
	return durable.WriteFile(o.identityFile(), text, 0o600)
}

// keyOf makes the host's key and keeps it before it is used: when the answer to the enrolment is lost, the same key
// gets the same host again.
func keyOf(o *Options) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(o.own(), "enrolment.key")
	if der, err := os.ReadFile(path); err == nil {
		if key, err := x509.ParseECPrivateKey(der); err == nil {
			return key, nil
		}
	}
	key, err := client.NewKey()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("the host's key: %w", err)
	}
	return key, durable.WriteFile(path, der, 0o600)
}

// plane is the control plane; client.Host reaches one. Each call ends with its context.
type plane interface {
	sender
	CheckIn(ctx context.Context, req *fleetpb.CheckInRequest) (*fleetpb.CheckInResponse, error)
	Renew(ctx context.Context, keep func(*client.Identity) error) error
}

// fetcher is the loop of an enrolled host.
type fetcher struct {
	o        *Options
	host     plane
	mirror   mirror
	instance string
	boot     string

	told     told
	revision uint64
	revoked  uint64 // the mark of the revocations that were staged
	pause    time.Duration
	turn     time.Duration // stageTurn
	spread   time.Duration
	catalog  catalog
	fetched  time.Time               // the catalog
	looks    uint64                  // at metadata
	tidied   string                  // what the staging folder was swept for
	staged   map[string]update.Order // by digest
	grants   []held
}

func (f *fetcher) run(ctx context.Context) error {
	for ctx.Err() == nil {
		wait, err := f.once(ctx)
		if err != nil && ctx.Err() == nil {
			f.o.Log.Warn("not checked in", slog.Any("error", err))
			f.pause = min(2*f.pause, maxBackoff)
			wait = f.pause/2 + mrand.N(f.pause+f.spread) //nolint:gosec // it spreads load
		} else if err == nil {
			f.pause = minPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// told is what the control plane has heard, and when.
type told struct {
	said

	at    time.Time     // when counts were said last
	again time.Duration // how often the server wants them; 0 before it said so
}

// heard is what the core says. A core that has said nothing for long is none that is well, and one that never said
// anything has no say: the host is heard of nevertheless, so that whatever helps it can arrive.
func (f *fetcher) heard() (r update.Report, alive bool, err error) {
	r, err = update.ReadReport(f.o.report())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return update.Report{}, false, nil
	case err != nil && update.Stale(f.o.report(), time.Now()):
		return update.Report{}, false, nil // torn by a power cut, and no core has come up since
	case err != nil:
		return r, false, err
	case update.Stale(f.o.report(), time.Now()):
		return without(r), false, nil
	}
	return r, true, nil
}

// due is how long it takes until counts are to be said; less than a second is now.
func (t *told) due(r *update.Report) time.Duration {
	every := countsEvery
	if t.again > 0 {
		every = min(every, t.again)
	}
	if t.alarming(r) {
		every = min(every, alarmEvery)
	}
	return every - time.Since(t.at)
}

// once checks in once. What is new is said at once; otherwise the server may keep the call open, until the core has
// something new.
func (f *fetcher) once(ctx context.Context) (wait time.Duration, err error) {
	r, alive, err := f.heard()
	if err != nil {
		return 0, err
	}
	left := f.told.due(&r)
	m, next := f.told.news(&r, left < time.Second)
	m.Instance, m.BootId, m.Revision, m.RevocationsMark = f.instance, f.boot, f.revision, f.revoked
	counts := len(m.GetBuckets()) > 0 || len(m.GetCounters()) > 0
	if !counts && left >= time.Second {
		m.WaitSeconds = uint32(min(left, longPoll*time.Second) / time.Second)
	}
	call, cancel := context.WithTimeout(ctx, longPoll*time.Second+pollSlack)
	defer cancel()
	if m.GetWaitSeconds() > 0 {
		go f.interrupt(call, cancel, m, f.told)
	}
	begun := time.Now()
	out, err := f.host.CheckIn(call, m)
	if err != nil {
		if m.GetWaitSeconds() > 0 && errors.Is(call.Err(), context.Canceled) && ctx.Err() == nil {
			return minPause, nil // the core has news
		}
		if errors.Is(err, client.ErrCertificate) {
			f.renew(ctx) // it may have ended while the machine was off, and is good for that yet
		}
		return 0, err
	}
	f.spread = time.Duration(out.GetSpreadMs()) * time.Millisecond
	f.told.said, f.told.again = next, time.Duration(out.GetAgainMs())*time.Millisecond
	if counts || left < time.Second {
		f.told.at = time.Now()
	}
	unfinished, err := f.obey(ctx, out.GetOrders(), out.GetGrants())
	err = errors.Join(f.revoke(out), err)
	if out.GetRenew() {
		f.renew(ctx)
	}
	if err != nil {
		return 0, err
	}
	if f.revision = out.GetRevision(); unfinished {
		f.revision = 0 // so that the rest is ordered again at once
	}
	switch {
	case !alive && time.Since(begun) < noCore:
		return min(time.Duration(out.GetAgainMs())*time.Millisecond, noCore), nil
	case time.Since(begun) < time.Second && m.GetWaitSeconds() > 0 && len(out.GetGrants()) == 0:
		return min(time.Duration(out.GetAgainMs())*time.Millisecond, time.Second), nil
	}
	return minPause, nil
}

// renew asks for a new certificate. That is done after all that was ordered, and not for long: who does not answer must
// not keep the host from checking in.
func (f *fetcher) renew(ctx context.Context) {
	call, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	if err := f.host.Renew(call, f.o.keepIdentity); err != nil {
		f.o.Log.Warn("the certificate was not renewed", slog.Any("error", err))
	}
}

// interrupt ends a call when the core's report says something that should be told now.
func (f *fetcher) interrupt(ctx context.Context, cancel func(), m *fleetpb.CheckInRequest, before told) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r, _, err := f.heard()
		if err != nil {
			continue // the next call says so
		}
		more, _ := before.news(&r, before.due(&r) < time.Second)
		if !same(m, more) || len(more.GetBuckets()) > 0 || len(more.GetCounters()) > 0 {
			cancel()
			return
		}
	}
}
