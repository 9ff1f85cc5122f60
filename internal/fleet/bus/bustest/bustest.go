// Package bustest is what every bus must do. A new one calls Run from its own test.
package bustest

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/bus"
)

// patience is how long a hint may take on a busy machine before a test gives up.
const patience = 30 * time.Second

// Run checks a bus that open makes; each test opens its own.
func Run(t *testing.T, open func(t *testing.T) bus.Bus) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, bus.Bus){
		"every subscriber of the topic": everySubscriber,
		"order and batches":             order,
		"overflow is said":              overflow,
		"close":                         closing,
		"cancel":                        cancelling,
		"concurrent":                    concurrent,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func wait(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// collect reads until n hints came or some were missed.
func collect(t *testing.T, s bus.Subscription, n int) (hints []bus.Hint, missed bool) {
	t.Helper()
	for len(hints) < n && !missed {
		more, m, err := s.Next(wait(t))
		if err != nil {
			t.Fatalf("after %d hints: %v", len(hints), err)
		}
		hints, missed = append(hints, more...), m
	}
	return hints, missed
}

func everySubscriber(t *testing.T, b bus.Bus) {
	t.Helper()
	one, two, other := b.Subscribe("a"), b.Subscribe("a"), b.Subscribe("b")
	b.Publish(bus.Hint{Topic: "a", Key: "1"})
	b.Publish(bus.Hint{Topic: "b", Key: "2"})
	for s, want := range map[bus.Subscription]string{one: "1", two: "1", other: "2"} {
		if got, _ := collect(t, s, 1); len(got) != 1 || got[0].Key != want {
			t.Errorf("got %+v, want key %s alone", got, want)
		}
	}
}

func order(t *testing.T, b bus.Bus) {
	t.Helper()
	s := b.Subscribe("a")
	for i := range 100 {
		b.Publish(bus.Hint{Topic: "a", Key: strconv.Itoa(i)})
	}
	got, missed := collect(t, s, 100)
	for i, h := range got {
		if h.Key != strconv.Itoa(i) {
			t.Fatalf("hint %d is %+v", i, h)
		}
	}
	if missed || len(got) != 100 {
		t.Errorf("%d hints, missed %v", len(got), missed)
	}
}

func overflow(t *testing.T, b bus.Bus) {
	t.Helper()
	s := b.Subscribe("a")
	for range 100 * bus.Queued {
		b.Publish(bus.Hint{Topic: "a", Key: "x"})
	}
	if got, missed := collect(t, s, 100*bus.Queued); !missed {
		t.Errorf("%d hints came, and no word about the others", len(got))
	}
	b.Publish(bus.Hint{Topic: "a", Key: "after"})
	for {
		got, _, err := s.Next(wait(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) > 0 && got[len(got)-1].Key == "after" {
			return
		}
	}
}

func closing(t *testing.T, b bus.Bus) {
	t.Helper()
	s := b.Subscribe("a")
	done := make(chan error, 1)
	go func() {
		_, _, err := s.Next(wait(t))
		done <- err
	}()
	s.Close()
	s.Close()
	if err := <-done; !errors.Is(err, bus.ErrClosed) {
		t.Errorf("a closed subscription ends with %v", err)
	}
	b.Publish(bus.Hint{Topic: "a"})
}

func cancelling(t *testing.T, b bus.Bus) {
	t.Helper()
	s := b.Subscribe("a")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled wait ends with %v", err)
	}
	b.Publish(bus.Hint{Topic: "a", Key: "later"})
	if got, _ := collect(t, s, 1); len(got) != 1 {
		t.Errorf("after it: %+v", got)
	}
}

func concurrent(t *testing.T, b bus.Bus) {
	t.Helper()
	s := b.Subscribe("a")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				b.Publish(bus.Hint{Topic: "a", Key: "k"})
				b.Subscribe("a").Close()
			}
		})
	}
	wg.Wait()
	if got, missed := collect(t, s, 400); missed || len(got) != 400 {
		t.Errorf("%d hints, missed %v", len(got), missed)
	}
}
