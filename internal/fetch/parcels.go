package fetch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/update"
)

// Bounds and times of what is sent.
const (
	parcelSuffix = ".parcel"
	maxParcels   = 256 // looked at, in the order of their names: that of their making
	postEvery    = 10 * time.Second
	maxPostWait  = 10 * time.Minute
	sentFile     = "sent.json"
)

// parcel is one file of the outbox. Another file of the same name is another parcel.
type parcel struct {
	Name string    `json:"name"`
	Size int64     `json:"size"`
	Made time.Time `json:"made"`
}

// post sends what is put into the outbox, until ctx ends; while that fails, less and less often. The fetcher may not
// remove what was sent: that is written down, and removed when this program starts as root.
func (f *fetcher) post(ctx context.Context) {
	wait := postEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		err := f.o.postOnce(ctx, f.host)
		if err == nil {
			wait = postEvery
			continue
		}
		if wait = min(2*wait, maxPostWait); ctx.Err() == nil {
			f.o.Log.Warn("diagnostics were not sent", slog.Any("error", err), slog.Duration("again_in", wait))
		}
	}
}

// sender is the control plane.
type sender interface {
	SendParcel(ctx context.Context, parcel []byte) error
}

// postOnce sends what was not sent before.
func (o *Options) postOnce(ctx context.Context, to sender) error {
	list, err := o.parcels()
	if err != nil {
		return err
	}
	sent, err := o.sent()
	if err != nil {
		o.Log.Warn("all of the outbox is sent again", slog.Any("error", err))
	}
	sent = slices.DeleteFunc(sent, func(p parcel) bool { return !slices.ContainsFunc(list, p.equal) })
	for _, p := range list {
		if slices.ContainsFunc(sent, p.equal) {
			continue
		}
		if err := o.send(ctx, to, p.Name); err != nil {
			return err
		}
		sent = append(sent, p)
		text, err := json.Marshal(sent)
		if err != nil {
			return fmt.Errorf("note what was sent: %w", err)
		}
		if err := durable.WriteFile(filepath.Join(o.own(), sentFile), text, 0o600); err != nil {
			return fmt.Errorf("note what was sent: %w", err)
		}
	}
	return nil
}

func (p parcel) equal(q parcel) bool {
	return p.Name == q.Name && p.Size == q.Size && p.Made.Equal(q.Made)
}

// send sends one. What the server will never take is left alone from then on.
func (o *Options) send(ctx context.Context, to sender, name string) error {
	f, err := os.Open(filepath.Join(o.outbox(), name))
	if errors.Is(err, os.ErrNotExist) {
		return nil // somebody took it back
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, protocol.MaxBundle+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	call, cancel := context.WithTimeout(ctx, maxPostWait)
	defer cancel()
	err = to.SendParcel(call, text)
	if errors.Is(err, client.ErrRefused) || len(text) > protocol.MaxBundle {
		o.Log.Warn("the control plane does not take it", slog.String("parcel", name), slog.Any("error", err))
		return nil
	}
	if err == nil {
		o.Log.Info("sent", slog.String("parcel", name))
	}
	return err
}

// parcels lists the outbox, the oldest first; without one it is empty.
func (o *Options) parcels() (list []parcel, err error) {
	entries, err := os.ReadDir(o.outbox())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !strings.HasSuffix(e.Name(), parcelSuffix) {
			continue // being written, taken back, or not ours
		}
		list = append(list, parcel{Name: e.Name(), Size: info.Size(), Made: info.ModTime()})
	}
	slices.SortFunc(list, func(a, b parcel) int { return cmp.Compare(a.Name, b.Name) })
	return list[:min(len(list), maxParcels)], nil
}

// sent is what was sent of the outbox. Root reads it, too, in a folder that the fetcher's user can fill with anything.
func (o *Options) sent() (list []parcel, err error) {
	dir, err := folder.Open(o.own())
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // only read
	f, err := dir.Open(sentFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	if err := json.NewDecoder(io.LimitReader(f, 1<<20)).Decode(&list); err != nil {
		return nil, fmt.Errorf("what was sent: %w", err)
	}
	return list, nil
}

// prepareOutbox makes the outbox readable for the fetcher and removes what was sent. It runs as root and believes no
// name: what the fetcher wrote down can only make parcels go that lie there.
func (o *Options) prepareOutbox(user int) error {
	if err := update.MakeOutbox(o.outbox(), user); err != nil {
		return err
	}
	list, err := o.parcels()
	if err != nil {
		return err
	}
	sent, err := o.sent()
	errs := []error{err}
	for _, p := range list {
		path := filepath.Join(o.outbox(), p.Name)
		if slices.ContainsFunc(sent, p.equal) {
			errs = append(errs, os.Remove(path))
			continue
		}
		errs = append(errs, os.Lchown(path, 0, user), os.Chmod(path, 0o640))
	}
	return errors.Join(errs...)
}
