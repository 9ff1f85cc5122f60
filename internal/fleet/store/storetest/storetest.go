// Package storetest is what every store must do. A new one calls Run from its own test.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/audit"
	"github.com/keepout-security/keepout/internal/fleet/store"
)

// at is a time that survives being stored.
func at(seconds int64) time.Time { return time.Unix(1_900_000_000+seconds, 0).UTC() }

// Run checks a store that open makes, empty; again opens the same one once more after it was closed.
func Run(t *testing.T, open func(t *testing.T) (s store.Store, again func() store.Store)) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, store.Store){
		"hosts":                    hosts,
		"holds":                    holds,
		"check-ins":                checkIns,
		"tokens":                   tokens,
		"rollouts":                 rollouts,
		"rows":                     rows,
		"buckets and beacons":      buckets,
		"bundles and groups":       bundles,
		"bundles are bounded":      boundedBundles,
		"remediations":             remediations,
		"audit":                    auditTrail,
		"all or nothing":           allOrNothing,
		"updates are one by one":   serial,
		"a view is one state":      consistent,
		"a cancelled one did not":  cancelled,
		"what is not there is so":  absent,
		"meta":                     meta,
		"lists are pages in order": pages,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := open(t)
			t.Cleanup(func() { noError(t, s.Close()) })
			test(t, s)
		})
	}
	t.Run("what was written stays", func(t *testing.T) {
		t.Parallel()
		s, again := open(t)
		update(t, s, func(tx store.Tx) error {
			_, err := tx.Append(audit.Entry{At: at(0), Actor: "ann", Action: "x", Detail: "{}"})
			return errors.Join(err, tx.PutHost(sampleHost("h1")))
		})
		noError(t, s.Close())
		s = again()
		t.Cleanup(func() { noError(t, s.Close()) })
		view(t, s, func(r store.Reader) error {
			h, err := r.Host("h1")
			same(t, h, sampleHost("h1"))
			head, err2 := r.AuditHead()
			same(t, head.Seq, uint64(1))
			return errors.Join(err, err2)
		})
	})
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func update(t *testing.T, s store.Store, f func(store.Tx) error) {
	t.Helper()
	noError(t, s.Update(t.Context(), f))
}

func view(t *testing.T, s store.Store, f func(store.Reader) error) {
	t.Helper()
	noError(t, s.View(t.Context(), f))
}

func same[T any](t *testing.T, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func sampleHost(id string) store.Host {
	return store.Host{
		ID: id, Hostname: id + ".example", MachineID: "m-" + id, State: store.Active,
		Labels: map[string]string{"distro": "debian", "kernel": "6.18"}, Fixed: map[string]string{"a": "b"},
		Serial: "0a", Pending: "0b", KeyHash: "k-" + id, CertEnds: at(7), Enrolled: at(1),
		Installed: []store.Installed{{Provider: "clamav", Channel: "engine", Digest: "d1", Slot: "active", Counter: 3}},
		Scope:     []string{"site=here", "site=there"},
	}
}

func hosts(t *testing.T, s store.Store) {
	t.Helper()
	update(t, s, func(tx store.Tx) error { return tx.PutHost(sampleHost("h1")) })
	view(t, s, func(r store.Reader) error {
		h, err := r.Host("h1")
		same(t, h, sampleHost("h1"))
		for _, like := range [][2]string{{"m-h1", ""}, {"", "k-h1"}, {"m-h1", "k-h1"}} {
			found, err := r.HostsLike(like[0], like[1])
			if err != nil || len(found) != 1 {
				t.Errorf("like %v: %d hosts, %v", like, len(found), err)
			}
		}
		if found, err := r.HostsLike("", ""); err != nil || len(found) != 0 {
			t.Errorf("like nothing: %d hosts, %v", len(found), err)
		}
		return err
	})
	update(t, s, func(tx store.Tx) error {
		h := sampleHost("h1")
		h.State, h.Reason = store.Quarantined, "two of them"
		return tx.PutHost(h)
	})
	view(t, s, func(r store.Reader) error {
		active, err := r.Hosts("", store.Active, 10)
		quarantined, err2 := r.Hosts("", store.Quarantined, 10)
		if len(active) != 0 || len(quarantined) != 1 {
			t.Errorf("%d active, %d quarantined", len(active), len(quarantined))
		}
		return errors.Join(err, err2)
	})
}

func checkIns(t *testing.T, s store.Store) {
	t.Helper()
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.PutHost(sampleHost("h1")), tx.PutHost(sampleHost("h2")))
	})
	labels := map[string]string{"ring": "first"}
	update(t, s, func(tx store.Tx) error {
		return tx.CheckIns([]store.CheckIn{
			{Host: "h1", At: at(20), Instance: "i1", BootID: "b1", Labels: labels, Installed: []store.Installed{}},
			{Host: "nobody", At: at(20)},
			{Host: "h2", At: at(21), Instance: "i2", BootID: "b2"},
			{Host: "h1", At: at(19), Instance: "i1", BootID: "b1"}, // late: nobody was seen last in the past
		})
	})
	view(t, s, func(r store.Reader) error {
		one, err := r.Host("h1")
		two, err2 := r.Host("h2")
		want := sampleHost("h1")
		want.LastSeen, want.Instance, want.BootID = at(20), "i1", "b1"
		want.Labels, want.Installed = labels, []store.Installed{}
		same(t, one, want)
		want = sampleHost("h2")
		want.LastSeen, want.Instance, want.BootID = at(21), "i2", "b2"
		same(t, two, want)
		_, err3 := r.Host("nobody")
		if !errors.Is(err3, store.ErrNotFound) {
			t.Errorf("a check-in made a host: %v", err3)
		}
		return errors.Join(err, err2)
	})
}

func tokens(t *testing.T, s store.Store) {
	t.Helper()
	enrol := store.EnrolToken{
		ID: "e1", Hash: "h", CreatedBy: "ann", Created: at(1), Expires: at(2), Labels: map[string]string{"a": "b"}, Note: "n",
		Scope: []string{"a=b", "c=*"},
	}
	access := store.AccessToken{
		ID: "a1", Hash: "h", Person: "ann", Roles: []string{"viewer", "halter"}, Vendor: "acme",
		Created: at(1), Expires: at(2),
	}
	update(t, s, func(tx store.Tx) error { return errors.Join(tx.PutEnrolToken(enrol), tx.PutAccessToken(access)) })
	enrol.UsedBy, access.Revoked = "h1", true
	update(t, s, func(tx store.Tx) error { return errors.Join(tx.PutEnrolToken(enrol), tx.PutAccessToken(access)) })
	view(t, s, func(r store.Reader) error {
		enrolByID, err := r.EnrolToken("e1")
		enrolByHash, err2 := r.EnrolTokenByHash("h")
		noError(t, errors.Join(err, err2))
		same(t, enrolByID, enrol)
		same(t, enrolByHash, enrol)
		byID, err := r.AccessToken("a1")
		byHash, err2 := r.AccessTokenByHash("h")
		same(t, byID, access)
		same(t, byHash, access)
		enrols, err3 := r.EnrolTokens()
		accesses, err4 := r.AccessTokens()
		same(t, enrols, []store.EnrolToken{enrol})
		same(t, accesses, []store.AccessToken{access})
		return errors.Join(err, err2, err3, err4)
	})
}

func rollouts(t *testing.T, s store.Store) {
	t.Helper()
	r1 := store.Rollout{
		ID: "r1", Name: "sigs", Spec: []byte(`{"a":1}`), State: []byte{0, 1, 255}, Status: "waiting", CreatedBy: "ann",
		Created: at(1), Approvals: []store.Approval{{Person: "bob", At: at(2), Reason: "fine"}},
	}
	update(t, s, func(tx store.Tx) error { return tx.PutRollout(&r1) })
	same(t, r1.Revision, 1)
	stale := r1
	r1.Status, r1.State = "running", []byte("later")
	update(t, s, func(tx store.Tx) error { return tx.PutRollout(&r1) })
	view(t, s, func(r store.Reader) error {
		got, err := r.Rollout("r1")
		same(t, got, r1)
		list, err2 := r.Rollouts(10)
		same(t, list, []store.Rollout{r1})
		return errors.Join(err, err2)
	})
	err := s.Update(t.Context(), func(tx store.Tx) error { return tx.PutRollout(&stale) })
	if !errors.Is(err, store.ErrStale) {
		t.Errorf("an old revision: %v", err)
	}
	again := store.Rollout{ID: "r1", Spec: []byte("{}")}
	err = s.Update(t.Context(), func(tx store.Tx) error { return tx.PutRollout(&again) })
	if !errors.Is(err, store.ErrStale) {
		t.Errorf("the same id anew: %v", err)
	}
}

func rows(t *testing.T, s store.Store) {
	t.Helper()
	row := func(rollout, host string, due time.Duration) store.Row {
		return store.Row{Rollout: rollout, Host: host, Data: []byte(`{"ring":1}`), Due: due}
	}
	update(t, s, func(tx store.Tx) error {
		return tx.PutRows([]store.Row{
			row("r1", "h1", 5), row("r1", "h2", 3), row("r1", "h3", 0), row("r1", "h4", 9), row("r2", "h1", 1),
		})
	})
	update(t, s, func(tx store.Tx) error { return tx.PutRows([]store.Row{row("r1", "h1", 6)}) })
	view(t, s, func(r store.Reader) error {
		got, err := r.Row("r1", "h1")
		same(t, got, row("r1", "h1", 6))
		due, err2 := r.RowsDue("r1", 6, 10)
		same(t, due, []store.Row{row("r1", "h2", 3), row("r1", "h1", 6)})
		return errors.Join(err, err2)
	})
}

func buckets(t *testing.T, s store.Store) {
	t.Helper()
	report := func(host, digest string, n uint64, seconds int64) store.BucketReport {
		return store.BucketReport{
			Host: host, Provider: "p", Digest: digest, Signature: "s", Kind: "crash", Count: n, At: at(seconds), Sample: host,
		}
	}
	update(t, s, func(tx store.Tx) error {
		return tx.AddBuckets([]store.BucketReport{
			report("h1", "d1", 2, 10), report("h1", "d1", 3, 20), report("h2", "d1", 1, 15), report("h1", "d2", 1, 30),
		})
	})
	update(t, s, func(tx store.Tx) error {
		b := store.Beacon{Host: "h1", Digest: "d1", At: at(1), Signature: "s", Detail: "old"}
		first := tx.PutBeacon(b)
		b.Detail = "new"
		return errors.Join(first, tx.PutBeacon(b))
	})
	view(t, s, func(r store.Reader) error {
		all, err := r.Buckets("", "", 10)
		same(t, all, []store.Bucket{
			{
				Provider: "p", Digest: "d1", Signature: "s", Kind: "crash", Count: 6, Hosts: 2, FirstSeen: at(10), LastSeen: at(20),
				Sample: "h1",
			},
			{
				Provider: "p", Digest: "d2", Signature: "s", Kind: "crash", Count: 1, Hosts: 1, FirstSeen: at(30), LastSeen: at(30),
				Sample: "h1",
			},
		})
		some, err2 := r.Buckets("p", "d2", 10)
		same(t, len(some), 1)
		before, err3 := r.KnownSignature("p", "s", "d2", at(30))
		same(t, before, true)
		newer, err4 := r.KnownSignature("p", "s", "d1", at(10))
		same(t, newer, false)
		known, err6 := r.Signatures("p", "d1", 10)
		same(t, known, []string{"s"})
		noError(t, err6)
		beacons, err5 := r.Beacons(10)
		same(t, beacons, []store.Beacon{{Host: "h1", Digest: "d1", At: at(1), Signature: "s", Detail: "new"}})
		return errors.Join(err, err2, err3, err4, err5)
	})
}

func auditTrail(t *testing.T, s store.Store) {
	t.Helper()
	for i := range 3 {
		update(t, s, func(tx store.Tx) error {
			e, err := tx.Append(audit.Entry{At: at(int64(i)), Actor: "ann", Action: "a", Subject: "s", Detail: `{"i":1}`})
			same(t, e.Seq, uint64(i)+1)
			return err
		})
	}
	view(t, s, func(r store.Reader) error {
		list, err := r.Audit(0, 10)
		var chain audit.Chain
		for _, e := range list {
			noError(t, chain.Check(e))
		}
		head, err2 := r.AuditHead()
		same(t, list[2], head)
		tail, err3 := r.Audit(2, 10)
		same(t, tail, list[2:])
		return errors.Join(err, err2, err3)
	})
}

func allOrNothing(t *testing.T, s store.Store) {
	t.Helper()
	boom := errors.New("boom")
	err := s.Update(t.Context(), func(tx store.Tx) error {
		_, err := tx.Append(audit.Entry{At: at(0), Detail: "{}"})
		return errors.Join(err, tx.PutHost(sampleHost("h1")), boom)
	})
	if !errors.Is(err, boom) {
		t.Fatalf("the function's error became %v", err)
	}
	view(t, s, func(r store.Reader) error {
		if _, err := r.Host("h1"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("half of it happened: %v", err)
		}
		head, err := r.AuditHead()
		same(t, head, audit.Entry{})
		return err
	})
}

func serial(t *testing.T, s store.Store) {
	t.Helper()
	const writers, each = 4, 25
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				err := s.Update(t.Context(), func(tx store.Tx) error {
					old, err := tx.Meta("n")
					if err != nil && !errors.Is(err, store.ErrNotFound) {
						return err
					}
					_, err = tx.Append(audit.Entry{At: at(0), Detail: "{}"})
					return errors.Join(err, tx.SetMeta("n", old+"x"))
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	view(t, s, func(r store.Reader) error {
		n, err := r.Meta("n")
		same(t, len(n), writers*each)
		head, err2 := r.AuditHead()
		same(t, head.Seq, uint64(writers*each))
		return errors.Join(err, err2)
	})
}

func consistent(t *testing.T, s store.Store) {
	t.Helper()
	update(t, s, func(tx store.Tx) error { return tx.SetMeta("a", "1") })
	view(t, s, func(r store.Reader) error {
		before, err := r.Meta("a")
		update(t, s, func(tx store.Tx) error { return tx.SetMeta("a", "2") })
		after, err2 := r.Meta("a")
		same(t, after, before)
		return errors.Join(err, err2)
	})
}

func cancelled(t *testing.T, s store.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Update(ctx, func(tx store.Tx) error {
		err := tx.SetMeta("a", "1")
		cancel()
		return err
	})
	if err == nil {
		t.Fatal("a cancelled update is reported as done")
	}
	view(t, s, func(r store.Reader) error {
		if _, err := r.Meta("a"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("it happened: %v", err)
		}
		return nil
	})
}

func absent(t *testing.T, s store.Store) {
	t.Helper()
	view(t, s, func(r store.Reader) error {
		for name, read := range map[string]func() error{
			"meta":    func() error { _, err := r.Meta("x"); return err },
			"host":    func() error { _, err := r.Host("x"); return err },
			"rollout": func() error { _, err := r.Rollout("x"); return err },
			"row":     func() error { _, err := r.Row("x", "y"); return err },
			"enrol":   func() error { _, err := r.EnrolTokenByHash("x"); return err },
			"access":  func() error { _, err := r.AccessTokenByHash("x"); return err },
		} {
			if err := read(); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
}

func meta(t *testing.T, s store.Store) {
	t.Helper()
	update(t, s, func(tx store.Tx) error { return errors.Join(tx.SetMeta("a", "1"), tx.SetMeta("a", "2")) })
	view(t, s, func(r store.Reader) error {
		v, err := r.Meta("a")
		same(t, v, "2")
		return err
	})
}

func pages(t *testing.T, s store.Store) {
	t.Helper()
	update(t, s, func(tx store.Tx) error {
		for i := range 30 {
			if err := tx.PutHost(sampleHost(fmt.Sprintf("h%02d", 29-i))); err != nil {
				return err
			}
		}
		return nil
	})
	view(t, s, func(r store.Reader) error {
		after, seen := "", 0
		for {
			page, err := r.Hosts(after, "", 7)
			if err != nil || len(page) == 0 {
				same(t, seen, 30)
				return err
			}
			for i := range page {
				same(t, page[i].ID, fmt.Sprintf("h%02d", seen))
				seen++
			}
			after = page[len(page)-1].ID
		}
	})
}
