package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/keepout-security/keepout/internal/fleet/store"
)

// bundle is one of a machine; the digests begin with different digits.
func bundle(i int, machine, host string) store.Bundle {
	return store.Bundle{
		Digest: fmt.Sprintf("%08x%056d", i, 0), Machine: machine, Signature: "s1", Level: "full", Received: at(int64(i)),
		Host: host, Size: 6,
	}
}

func put(t *testing.T, s store.Store, b store.Bundle, parcel string) (added bool) {
	t.Helper()
	update(t, s, func(tx store.Tx) (err error) {
		added, err = tx.PutBundle(&b, []byte(parcel))
		return err
	})
	return added
}

func bundles(t *testing.T, s store.Store) {
	t.Helper()
	one, two, drill := bundle(1, "m1", "h1"), bundle(2, "m2", ""), bundle(3, "m1", "h1")
	one.Versions = []store.BundleVersion{{Version: "a content 1"}, {Version: "a engine 2", Changed: true}}
	drill.Test = true
	off := bundle(4, "m2", "")
	off.Signature, off.Size = "", 0 // only a question
	for _, b := range []store.Bundle{one, two, drill, off} {
		if !put(t, s, b, "sealed"[:b.Size]) {
			t.Errorf("%s is not new", b.Digest)
		}
	}
	if put(t, s, one, "sealed") {
		t.Error("the same bundle counts twice")
	}
	stolen := bundle(4, "m3", "")
	if put(t, s, stolen, "sealed") {
		t.Error("another machine filled in a question")
	}
	update(t, s, func(tx store.Tx) error { return tx.MarkBundle(one.Digest, "a") })
	one.Suspect, one.Asked = "a", true
	view(t, s, func(r store.Reader) error {
		got, err := r.Bundle(one.Digest)
		same(t, got, one)
		like, err2 := r.BundleLike(one.Digest[:8])
		same(t, like, one)
		if _, err := r.BundleLike("0000000"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("several begin so: %v", err)
		}
		parcel, err3 := r.Parcel(one.Digest)
		same(t, string(parcel), "sealed")
		if _, err := r.Parcel(off.Digest); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a question has a parcel: %v", err)
		}
		list, err4 := r.Bundles("s1", "m1", 10)
		same(t, len(list), 2)
		same(t, list[0].Digest, drill.Digest)
		groups, err5 := r.Groups(10)
		same(t, groups, []store.Group{{
			Signature: "s1", Bundles: 2, Machines: 2, First: at(1), Last: at(2), Known: 1,
			Versions: map[string]uint64{"a content 1": 1, "a engine 2": 1}, Changed: map[string]uint64{"a engine 2": 1},
		}})
		return errors.Join(err, err2, err3, err4, err5)
	})
	full := bundle(4, "m2", "")
	if !put(t, s, full, "sealed") {
		t.Error("the question's own machine could not fill it in")
	}
	err := s.Update(t.Context(), func(tx store.Tx) error { return tx.MarkBundle("none", "") })
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a bundle that is not there was marked: %v", err)
	}
}

// boundedBundles: a flood of strangers, and one machine, push out only their own.
func boundedBundles(t *testing.T, s store.Store) {
	t.Helper()
	put(t, s, bundle(1, "m1", "h1"), "sealed")
	update(t, s, func(tx store.Tx) error {
		for i := range store.KeptStranger + 5 {
			b := bundle(100+i, fmt.Sprint("stranger", i), "")
			if _, err := tx.PutBundle(&b, []byte("sealed")); err != nil {
				return err
			}
		}
		for i := range store.KeptMachine + 5 {
			b := bundle(1000+i, "m2", "h2")
			if _, err := tx.PutBundle(&b, []byte("sealed")); err != nil {
				return err
			}
		}
		return nil
	})
	view(t, s, func(r store.Reader) error {
		all, err := r.Bundles("", "", store.Page)
		same(t, len(all), 1+store.KeptStranger+store.KeptMachine)
		_, err2 := r.Bundle(bundle(1, "m1", "h1").Digest)
		newest, err3 := r.Bundles("", "m2", 1)
		same(t, newest[0].Digest, bundle(1000+store.KeptMachine+4, "m2", "h2").Digest)
		return errors.Join(err, err2, err3)
	})
}

func remediations(t *testing.T, s store.Store) {
	t.Helper()
	fix := store.Remediation{
		ID: "f1", Status: store.FixWaiting, Envelope: []byte{1, 2}, Signers: []string{"k1"}, CreatedBy: "ann",
		Created: at(1),
	}
	newer := store.Remediation{
		ID: "f2", Status: store.FixActive, Envelope: []byte{3}, Signers: []string{"k1", "k2"}, CreatedBy: "ann",
		Created:    at(2),
		ApprovedBy: "bob", Approved: at(3), Served: 7,
	}
	update(t, s, func(tx store.Tx) error { return errors.Join(tx.PutRemediation(&fix), tx.PutRemediation(&newer)) })
	fix.Status, fix.RevokedBy, fix.Because = store.FixRevoked, "bob", "bad"
	update(t, s, func(tx store.Tx) error { return tx.PutRemediation(&fix) })
	view(t, s, func(r store.Reader) error {
		got, err := r.Remediation("f1")
		same(t, got, fix)
		all, err2 := r.Remediations("", 10)
		same(t, all, []store.Remediation{newer, fix})
		active, err3 := r.Remediations(store.FixActive, 10)
		same(t, active, []store.Remediation{newer})
		if _, err := r.Remediation("none"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a fix that is not there: %v", err)
		}
		return errors.Join(err, err2, err3)
	})
}
