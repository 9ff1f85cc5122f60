package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
)

const (
	topPoll    = time.Second            // between two questions for the status
	topFlush   = 100 * time.Millisecond // between two deliveries of events to the view
	topAnswer  = 5 * time.Second        // for the status to arrive
	topPast    = 200                    // events from before the view began
	topKeep    = 500                    // events that the view remembers
	topBacklog = 500                    // events between two deliveries; of more, the oldest are left out
)

func (a *app) topCommand() *cobra.Command {
	return &cobra.Command{
		Use: "top", Short: "Watch mode, providers and verdicts live", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if terminalWidth(os.Stdout) == 0 {
				return usageError{errors.New("top needs a terminal; for a pipe: keepout events --follow")}
			}
			if _, err := a.fetchStatus(cmd.Context()); err != nil {
				return err // said in the usual words, before the screen is taken
			}
			return runTop(cmd.Context(), a.runDir, os.Stdout, a.paint)
		},
	}
}

// runTop shows the daemon at runDir on a terminal until ctx ends or the person quits.
func runTop(ctx context.Context, runDir string, out *os.File, p paint) error {
	inner, cancel := context.WithCancel(ctx)
	m := newTopModel(p)
	// Signals end ctx, in Main.
	program := tea.NewProgram(m, tea.WithContext(inner), tea.WithOutput(out), tea.WithoutSignalHandler())
	var wg sync.WaitGroup
	feed := topFeed{app: app{runDir: runDir}, send: program.Send}
	wg.Go(func() { feed.poll(inner) })
	wg.Go(func() { feed.follow(inner) })
	_, err := program.Run()
	cancel()
	wg.Wait()
	if ctx.Err() != nil {
		return nil //nolint:nilerr // that is how one leaves
	}
	if err != nil {
		return fmt.Errorf("live view: %w", err)
	}
	return nil
}

// topFeed brings what the daemon says to the view.
type topFeed struct {
	app  app
	send func(tea.Msg)
}

// statusMsg is an answer, or why there is none.
type statusMsg struct {
	status *control.Status
	err    error
	at     time.Time
}

// recordsMsg is a batch of events, oldest first.
type recordsMsg struct {
	records []event.Record
	fresh   bool   // the first of a connection: what was known before is in it again
	skipped uint64 // events that came too fast to be shown
}

func (f *topFeed) poll(ctx context.Context) {
	tick := time.NewTicker(topPoll)
	defer tick.Stop()
	for {
		asked, cancel := context.WithTimeout(ctx, topAnswer)
		s, err := f.app.fetchStatus(asked)
		cancel()
		if ctx.Err() != nil {
			return
		}
		f.send(statusMsg{status: s, err: err, at: time.Now()})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// follow keeps one connection and makes a new one when it ends; poll tells the person meanwhile.
func (f *topFeed) follow(ctx context.Context) {
	for ctx.Err() == nil {
		b := &topBatch{fresh: true}
		over := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { f.flush(b, over) })
		req := control.Request{Do: "events", Follow: true, Limit: topPast}
		_ = f.app.ask(ctx, req, func(r control.Reply) error { // poll reports a daemon that is away
			b.add(r)
			return nil
		})
		close(over)
		wg.Wait()
		select {
		case <-ctx.Done():
		case <-time.After(topPoll):
		}
	}
}

// flush delivers what the batch has gathered, a few times a second: drawing for each event would be the
// slowest follower of all.
func (f *topFeed) flush(b *topBatch, over <-chan struct{}) {
	tick := time.NewTicker(topFlush)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		if msg, some := b.take(); some {
			f.send(msg)
		}
	}
}

// topBatch gathers events between two deliveries.
type topBatch struct {
	mu      sync.Mutex
	records []event.Record
	skipped uint64
	fresh   bool
}

func (b *topBatch) add(r control.Reply) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.skipped += r.Lost
	if r.Record == nil {
		return
	}
	if len(b.records) >= topBacklog {
		b.records = b.records[1:]
		b.skipped++
	}
	b.records = append(b.records, *r.Record)
}

func (b *topBatch) take() (recordsMsg, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	msg := recordsMsg{records: b.records, fresh: b.fresh, skipped: b.skipped}
	if len(msg.records) == 0 && msg.skipped == 0 {
		return msg, false
	}
	b.records, b.fresh, b.skipped = nil, false, 0
	return msg, true
}
