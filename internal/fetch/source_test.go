package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/update"
)

// faulty is a source with something wrong: what it says about one file, after so many bytes of it.
type faulty struct {
	from  source
	name  func(name string) bool
	each  int64 // bytes that one call gives
	then  func(ctx context.Context) (byte, error)
	opens []int64 // offsets
}

func (f *faulty) open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	r, err := f.from.open(ctx, name, offset)
	if err != nil || !f.name(name) {
		return r, err
	}
	f.opens = append(f.opens, offset)
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(r, f.each), &tail{ctx, f.then}), r}, nil
}

type tail struct {
	ctx  context.Context
	then func(ctx context.Context) (byte, error)
}

func (t *tail) Read(p []byte) (int, error) {
	c, err := t.then(t.ctx)
	if err != nil {
		return 0, err
	}
	return copy(p, bytes.Repeat([]byte{c}, len(p))), nil
}

// stall says nothing more, and breaks off with the call.
func stall(ctx context.Context) (byte, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func endless(context.Context) (byte, error) { return 'x', nil }
func ended(context.Context) (byte, error)   { return 0, io.EOF }

// text is a source of one file.
type text string

func (s text) open(_ context.Context, _ string, offset int64) (io.ReadCloser, error) {
	if offset > int64(len(s)) {
		return nil, client.ErrNoRest
	}
	return io.NopCloser(strings.NewReader(string(s[offset:]))), nil
}

func all(string) bool { return true }

func blobOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "blobs/sha256/" + hex.EncodeToString(sum[:])
}

// TestBadSources: whatever a source does, a file is whole and as long as it may be, or not there; only what an
// interrupted call got of a blob is kept.
func TestBadSources(t *testing.T) {
	t.Parallel()
	const good = "the bytes of a package"
	for name, c := range map[string]struct {
		from source
		had  string // of it, from an earlier call
		want error
		part string // that is left
	}{
		"as it should be": {from: text(good)},
		"the rest of it":  {from: text(good), had: good[:7]},
		"nothing of it":   {from: text(good), had: good},
		"other bytes":     {from: text(strings.ToUpper(good)), want: errOther},
		"cut":             {from: text(good[:9]), want: errOther},
		"empty":           {from: text(""), want: errOther},
		"had other bytes": {from: text(good), had: "something", want: errOther},
		"had too much":    {from: text(good), had: good + good, want: client.ErrNoRest},
		"endless":         {from: &faulty{from: text(good), name: all, each: 5, then: endless}, want: errLong},
		"not there":       {from: disk{nothing{t}.open()}, want: fs.ErrNotExist},
		"slow": {
			from: &faulty{from: text(good), name: all, each: 5, then: stall}, want: context.DeadlineExceeded,
			part: good[:5],
		},
		"slow again": {
			from: &faulty{from: text(good), name: all, each: 5, then: stall}, had: good[:5],
			want: context.DeadlineExceeded, part: good[:10],
		},
		"broken off": {
			from: &faulty{from: text(good), name: all, each: 5, then: func(context.Context) (byte, error) {
				return 0, io.ErrUnexpectedEOF
			}},
			want: io.ErrUnexpectedEOF, part: good[:5],
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := filepath.Join(t.TempDir(), "blob")
			if c.had != "" {
				if err := os.WriteFile(to+partSuffix, []byte(c.had), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if c.want == nil || !errors.Is(c.want, context.DeadlineExceeded) {
				ctx = t.Context()
			}
			err := downloadBlob(ctx, c.from, blobOf(good), to, 1<<16)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%v, want %v", err, c.want)
			}
			got, err := os.ReadFile(to)
			if (err == nil) != (c.want == nil) || err == nil && string(got) != good {
				t.Errorf("it is there with %q, %v", got, err)
			}
			if part, _ := os.ReadFile(to + partSuffix); string(part) != c.part {
				t.Errorf("%q is left, want %q", part, c.part)
			}
		})
	}
}

// nothing is an empty folder.
type nothing struct{ t *testing.T }

func (n nothing) open() *folder.Folder {
	n.t.Helper()
	dir, err := folder.Open(n.t.TempDir())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = dir.Close() })
	return dir
}

// TestMetadataIsBounded: metadata that never ends is not taken, and neither is what came of it.
func TestMetadataIsBounded(t *testing.T) {
	t.Parallel()
	to := filepath.Join(t.TempDir(), "timestamp.json")
	from := &faulty{from: text("{"), name: all, each: 1, then: endless}
	if err := download(t.Context(), from, "operator/timestamp.json", to, maxMeta); !errors.Is(err, errLong) {
		t.Errorf("%v", err)
	}
	left, err := os.ReadDir(filepath.Dir(to))
	if err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestSlowSource: a source that gives a few bytes and then says nothing takes one turn from each check-in, and no more;
// what it gave is kept, so that the package is whole one day. Metadata that stalls never is, and costs no more either.
func TestSlowSource(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]func(string) bool{
		"packages": func(name string) bool { return strings.HasPrefix(name, "blobs/") },
		"metadata": func(name string) bool { return strings.HasSuffix(name, "timestamp.json") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, digests := stick(t)
			from, err := folder.Open(filepath.Join(dir, "stick"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = from.Close() }()
			drip := &faulty{from: disk{from}, name: slow, each: 300, then: stall}
			o := &Options{StateDir: dir}
			o.complete()
			f := &fetcher{o: o, turn: 100 * time.Millisecond, mirror: mirror{from: drip, to: o.Staging}}
			order := &fleetpb.Order{Act: fleetpb.Order_ACT_STAGE, Rollout: "r1", Release: &fleetpb.Release{
				Provider: "acme-edr", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: digests["one"],
			}}
			turns := 0
			for unfinished := true; unfinished && turns < 100; turns++ {
				unfinished, err = f.obey(t.Context(), []*fleetpb.Order{order}, nil)
				if err != nil {
					t.Fatal(err)
				}
				if len(drip.opens) > 5 && name == "metadata" {
					return
				}
			}
			if turns < 3 || turns == 100 {
				t.Fatalf("%d turns", turns)
			}
			orders, err := update.ReadOrders(os.DirFS(o.Staging))
			if err != nil || len(orders.Orders) != 1 || orders.Orders[0].Digest != digests["one"] {
				t.Errorf("orders %+v, %v", orders, err)
			}
			left, err := filepath.Glob(filepath.Join(o.Staging, "blobs", "sha256", "*"+partSuffix))
			if err != nil || len(left) > 0 {
				t.Errorf("parts are left: %v", left)
			}
		})
	}
}

// TestLyingSource: a source that gives other bytes for a package gives none.
func TestLyingSource(t *testing.T) {
	t.Parallel()
	dir, digests := stick(t)
	from, err := folder.Open(filepath.Join(dir, "stick"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	liar := &faulty{from: disk{from}, name: func(n string) bool { return strings.HasPrefix(n, "blobs/") }, then: ended}
	o := &Options{StateDir: dir}
	o.complete()
	f := &fetcher{o: o, turn: time.Minute, mirror: mirror{from: liar, to: o.Staging}}
	_, err = f.obey(t.Context(), []*fleetpb.Order{{
		Act: fleetpb.Order_ACT_STAGE, Rollout: "r1", Release: &fleetpb.Release{Digest: digests["one"]},
	}}, nil)
	if !errors.Is(err, errOther) {
		t.Error(err)
	}
	orders, err := update.ReadOrders(os.DirFS(o.Staging))
	if err != nil || len(orders.Orders) > 0 {
		t.Errorf("orders %+v, %v", orders, err)
	}
	if _, err := os.Stat(filepath.Join(o.Staging, fmt.Sprintf("blobs/sha256/%.64s", digests["one"][7:]))); err == nil {
		t.Error("it was staged")
	}
}
