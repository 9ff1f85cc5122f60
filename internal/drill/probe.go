package drill

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	goodOpeners = 4
	badOpeners  = 1
	goodEvery   = 8 * time.Millisecond  // pause of each between two opens
	badEvery    = 50 * time.Millisecond // each is a denial, and a line in the journal
	mostOpens   = 100_000               // that one opener remembers
)

// openers open files all the while and remember how that went.
type openers struct {
	open  func(path string) (*os.File, error)
	began time.Time
	over  chan struct{}
	all   sync.WaitGroup

	mu   sync.Mutex
	seen []opened
}

// openAll begins to open good and bad files.
func openAll(how func(string) (*os.File, error), good, bad []string, began time.Time) *openers {
	o := &openers{open: how, began: began, over: make(chan struct{})}
	for i := range goodOpeners {
		o.all.Go(func() { o.keepOpening(good, i, false, goodEvery) })
	}
	for i := range min(badOpeners, len(bad)) {
		o.all.Go(func() { o.keepOpening(bad, i, true, badEvery) })
	}
	return o
}

// keepOpening is one opener. Files take turns, so that most questions are not shared.
func (o *openers) keepOpening(files []string, first int, bad bool, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := first; n < mostOpens; n++ {
		select {
		case <-o.over:
			return
		case <-tick.C:
		}
		began := time.Now()
		how := outcomeOf(o.open(files[n%len(files)]))
		ended := time.Now()
		o.mu.Lock()
		o.seen = append(o.seen, opened{at: ended.Sub(o.began), took: ended.Sub(began), bad: bad, how: how})
		o.mu.Unlock()
	}
}

func outcomeOf(f *os.File, err error) outcome {
	switch {
	case errors.Is(err, unix.EPERM):
		return denied
	case err != nil:
		return failed
	}
	_ = f.Close() // only opened
	return passed
}

// stop ends all openers, when what they wait for has been answered, and returns what they saw.
func (o *openers) stop() []opened {
	close(o.over)
	o.all.Wait()
	return o.seen
}
