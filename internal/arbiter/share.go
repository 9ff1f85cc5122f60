package arbiter

import "time"

// parts is how many parts a sliding window has: it forgets a twelfth at a time.
const parts = 12

// share counts what happened in a sliding window, and how much of it was of one kind. Its size is fixed. The zero
// value is empty.
type share struct {
	part [parts]struct {
		n         int64 // number of the part since time began
		all, hits uint32
	}
}

// add counts one thing that happened at now.
func (s *share) add(window, now time.Duration, hit bool) {
	n := int64(now / (window / parts))
	p := &s.part[n%parts]
	if p.n != n {
		p.n, p.all, p.hits = n, 0, 0
	}
	p.all++
	if hit {
		p.hits++
	}
}

// sum returns what happened in the window that ends at now.
func (s *share) sum(window, now time.Duration) (all, hits int) {
	n := int64(now / (window / parts))
	for i := range s.part {
		if p := &s.part[i]; p.n > n-parts && p.n <= n {
			all += int(p.all)
			hits += int(p.hits)
		}
	}
	return all, hits
}
