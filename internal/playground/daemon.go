package playground

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/roster"
)

// Daemon is a keepoutd that runs: that of a Platform, or this host's. It is safe for concurrent use.
type Daemon struct {
	Run    string          // directory of its admin socket
	Exited <-chan struct{} // closed when it has ended, for whatever reason; nil: nobody knows
}

// Ask sends one request and returns its last reply.
func (d Daemon) Ask(ctx context.Context, req control.Request) (last control.Reply, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := control.Dial(ctx, d.Run)
	if err != nil {
		return last, err
	}
	err = c.Do(ctx, req, func(r control.Reply) error { last = r; return nil })
	return last, errors.Join(err, ctx.Err(), c.Close())
}

// Status asks for the status.
func (d Daemon) Status(ctx context.Context) (*control.Status, error) {
	r, err := d.Ask(ctx, control.Request{Do: "status"})
	if err == nil && r.Status == nil {
		err = errors.New("the daemon sent no status")
	}
	return r.Status, err
}

// Until polls the status until good accepts it, and returns it. last says what was wrong in the end.
func (d Daemon) Until(
	ctx context.Context, what string, good func(*control.Status) error,
) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		s, err := d.Status(ctx)
		if err == nil {
			err = good(s)
		}
		if err == nil {
			return s, nil
		}
		select {
		case <-d.Exited:
			return nil, fmt.Errorf("wait until %s: keepoutd has ended", what)
		case <-ctx.Done():
			return nil, fmt.Errorf("wait until %s: %w: %w", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// Denied waits until the daemon knows a denial of an act on path: the kernel is answered before it is written
// down.
func (d Daemon) Denied(ctx context.Context, path string, act event.Type) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for {
		found := false
		err := d.Each(ctx, control.Request{Do: "events", Denied: true}, func(rec *event.Record) {
			found = found || rec.Event.File.Path == path && rec.Event.Type == act
		})
		if found || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no %s of %s is recorded as denied", act, path)
		case <-time.After(pollEvery):
		}
	}
}

// Each sends one request and shows see every record of the answer.
func (d Daemon) Each(ctx context.Context, req control.Request, see func(*event.Record)) error {
	c, err := control.Dial(ctx, d.Run)
	if err != nil {
		return err
	}
	err = c.Do(ctx, req, func(r control.Reply) error {
		if r.Record != nil {
			see(r.Record)
		}
		return nil
	})
	return errors.Join(err, c.Close())
}

// Find returns one provider of a status, or nil.
func Find(s *control.Status, id string) *roster.Status {
	for i := range s.Providers {
		if s.Providers[i].ID == id {
			return &s.Providers[i]
		}
	}
	return nil
}
