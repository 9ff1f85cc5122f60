package doctor

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
)

// collector keeps the core's records of acts on canaries, from its start on.
type collector struct {
	cancel context.CancelFunc
	ended  chan struct{}
	since  time.Time

	mu      sync.Mutex
	records map[sight]event.Record
	err     error
}

// sight is what a record is looked up by.
type sight struct {
	path string
	act  event.Type
}

// collect follows the core's records, from since on, of files whose name begins with name. Close ends it.
func collect(ctx context.Context, runDir, name string, since time.Time) (*collector, error) {
	client, err := control.Dial(ctx, runDir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &collector{cancel: cancel, ended: make(chan struct{}), since: since, records: map[sight]event.Record{}}
	go func() {
		defer close(c.ended)
		err := client.Do(ctx, control.Request{Do: "events", Follow: true, Name: name}, func(r control.Reply) error {
			if r.Record != nil {
				c.keep(r.Record)
			}
			return nil
		})
		c.mu.Lock()
		c.err = errors.Join(err, client.Close())
		c.mu.Unlock()
	}()
	return c, nil
}

func (c *collector) keep(rec *event.Record) {
	if rec.Event.Time.Before(c.since) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records[sight{rec.Event.File.Path, rec.Event.Type}] = *rec
}

// settle gives every trial its record. It waits for those that are missing until the deadline; an audit provider's
// vote may come long after the act.
func (c *collector) settle(ctx context.Context, trials []trial, deadline time.Time) {
	for ctx.Err() == nil {
		if missing := c.hand(trials); !missing || time.Now().After(deadline) {
			return
		}
		select {
		case <-ctx.Done():
		case <-c.ended:
			c.hand(trials)
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// hand gives the records that are there and reports whether some are missing.
func (c *collector) hand(trials []trial) (missing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range trials {
		t := &trials[i]
		if t.skipped != "" || t.record != nil {
			continue
		}
		if rec, ok := c.records[sight{t.path, t.act}]; ok {
			t.record = &rec
			continue
		}
		missing = true
	}
	return missing
}

// close ends the following and returns why it ended before, if it did.
func (c *collector) close() error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	c.cancel()
	<-c.ended
	return err
}
