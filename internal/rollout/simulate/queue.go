package simulate

// queue holds hosts by the second at which they are due. What was put last into a second comes out first, also when it
// is put there while the second is under way.
type queue struct {
	heads  []uint32 // by second: the index of the topmost bunch, plus 1
	all    []bunch
	free   uint32 // the index of the first unused bunch, plus 1
	queued int    // hosts
}

// bunch is a few hosts that are due in the same second: one line of a processor's cache.
type bunch struct {
	hosts [bunched]uint32
	count uint32
	below uint32 // the next bunch of the second, or the next unused one, plus 1
}

const bunched = 14

func newQueue(seconds int) queue { return queue{heads: make([]uint32, seconds+1)} }

// clear empties the queue.
func (q *queue) clear() {
	clear(q.heads)
	q.all, q.free, q.queued = q.all[:0], 0, 0
}

// push puts a host where its second is.
func (q *queue) push(second, host uint32) {
	top := q.heads[second]
	if top == 0 || q.all[top-1].count == bunched {
		top = q.bunch(top)
		q.heads[second] = top
	}
	b := &q.all[top-1]
	b.hosts[b.count] = host
	b.count++
	q.queued++
}

// bunch returns an empty bunch on top of another.
func (q *queue) bunch(below uint32) uint32 {
	if q.free == 0 {
		q.all = append(q.all, bunch{below: below})
		return uint32(len(q.all))
	}
	index := q.free
	b := &q.all[index-1]
	q.free = b.below
	b.count, b.below = 0, below
	return index
}

// top returns the bunch of the second's next hosts, or 0.
func (q *queue) top(second uint32) uint32 { return q.heads[second] }

// pop takes the second's next host; there must be one.
func (q *queue) pop(second uint32) uint32 {
	top := q.heads[second]
	b := &q.all[top-1]
	b.count--
	host := b.hosts[b.count]
	if b.count == 0 {
		q.heads[second] = b.below
		b.below, q.free = q.free, top
	}
	q.queued--
	return host
}

// of returns the hosts of a bunch.
func (q *queue) of(top uint32) []uint32 {
	b := &q.all[top-1]
	return b.hosts[:b.count]
}
