package store

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/simdisk"
)

// FuzzArchive: whatever an archive holds, it is stored and verified, or refused with a code; nothing of it is left
// in the latter case, and nothing of it is anywhere but in the store.
func FuzzArchive(f *testing.F) {
	for _, seed := range archiveSeeds(f) {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, archive []byte, isEngine bool) {
		disk := simdisk.New()
		s, err := Open(Config{Dir: "/store", Disk: disk, Limits: Limits{Bytes: 1 << 16, Entries: 20, Depth: 3}})
		if err != nil {
			t.Fatal(err)
		}
		part := rollback.Content
		if isEngine {
			part = rollback.Engine
		}
		p, err := s.ImportArchive(part, "fuzz", bytes.NewReader(archive))
		objects, rerr := disk.ReadDir("/store/objects")
		top, terr := disk.ReadDir("/")
		if rerr != nil || terr != nil || len(top) != 1 {
			t.Fatalf("%v, %v, %v", top, rerr, terr)
		}
		if err != nil {
			var problem health.Problem
			if !errors.As(err, &problem) || !strings.HasPrefix(problem.Code, "KO-17") || len(objects) != 0 {
				t.Fatalf("%v, left %v", err, objects)
			}
			return
		}
		if err := s.Verify(p.Digest); err != nil || len(objects) != 1 || p.Bytes > 1<<16 || p.Files > 20 {
			t.Fatalf("took %+v as %v: %v", p, objects, err)
		}
	})
}

// FuzzListing: what is accepted is canonical.
func FuzzListing(f *testing.F) {
	l := listing{part: rollback.Content, entries: []entry{
		{path: "a", class: folder}, {path: "a/b", class: plain, size: 7},
	}}
	f.Add(l.text())
	f.Add([]byte("keepout-package 1 engine file\nx 1 " + strings.Repeat("0", 64) + " acme\n"))
	f.Add([]byte("keepout-package 1 content folder\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := parseListing(text)
		if err == nil && !bytes.Equal(l.text(), text) {
			t.Fatalf("accepted %q, writes %q", text, l.text())
		}
	})
}

// FuzzRecord: what is accepted has the right checksum, and is written back the same.
func FuzzRecord(f *testing.F) {
	text, err := record{generation: 7, state: rollback.New("acme")}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:len(text)-1])
	f.Add([]byte("keepout-slots 2 7 x\n{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := decodeRecord(text, "acme")
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeRecord(again, "acme"); err != nil || back.generation != r.generation {
			t.Fatalf("accepted %q, cannot read what it writes: %v", text, err)
		}
	})
}
