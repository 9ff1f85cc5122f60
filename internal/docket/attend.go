package docket

import (
	"runtime"
	"time"

	"github.com/keepout-security/keepout/event"
)

// attendFor is how long a reader waits for votes at most, and which providers it waits for: those that are usually
// quicker. What comes later is taken by the receivers, who would have taken it anyway.
const attendFor = 100 * time.Microsecond

// attend takes the votes on the only question in flight as they come, in the reader's thread. Without it the reader
// goes to sleep, and a receiver is woken up for the vote, mostly on another processor, and from there the opener: two
// wake-ups that cost more than most votes take. The reader is already awake, and on the opener's processor. It stops
// as soon as anybody else asks, because then it has better things to do (decision 14).
func (d *Docket) attend(asked []question) {
	if !prompt(asked, runtime.NumCPU()) {
		return
	}
	for began := time.Now(); d.waiting.Load() == 1 && time.Since(began) < attendFor; {
		for i := range asked {
			if asked[i].awaited() {
				asked[i].member.Session.Collect()
			}
		}
	}
}

// prompt reports whether votes are waited for, all of them from providers that have been quick lately, and each of
// which can have a processor beside the reader's: otherwise it would only keep them from running.
func prompt(asked []question, processors int) bool {
	waited := 0
	for i := range asked {
		if !asked[i].awaited() {
			continue
		}
		if asked[i].member.Latency.Recent() >= attendFor {
			return false
		}
		waited++
	}
	return waited > 0 && waited < processors
}

// awaited reports whether the kernel's answer may have to wait for this vote.
func (a *question) awaited() bool {
	return a.member.Session != nil && !a.memory.known && a.member.mode() != event.Audit
}
