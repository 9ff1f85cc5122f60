package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sort"
	"syscall"
)

const (
	entrySize = sha256.Size + 4 // bytes: a digest, and where its name begins
	noName    = ^uint32(0)      // entry without a name; sorts behind named ones, so that a name wins
	prefixes  = 1 << 16         // values of a digest's first two bytes
)

// list is a sorted set of digests with names. Once sealed it is never changed: any goroutine may search it.
//
// It lives in memory of its own, not in the Go heap: a heap never gives address space back, and what a
// provider may have is bounded by that. So a reload costs what the old list and the new one take, every time.
type list struct {
	entries []byte // entrySize each
	names   []byte // each a length byte and the name
	last    uint32 // where the newest name begins, or noName
	memory  []byte // both of the above, at their full size
	first   [prefixes + 1]uint32
}

// needs is the size of a list before it is built.
type needs struct {
	entries, names int
	last           []byte // the newest name: neighbours that share one share its bytes
}

// count notes that an entry is to be added.
func (n *needs) count(name []byte) {
	n.entries++
	if len(name) > 0 && !bytes.Equal(name, n.last) {
		n.last = append(n.last[:0], name...)
		n.names += 1 + len(name)
	}
}

// memory returns the bytes that the list will take.
func (n *needs) memory() int { return n.entries*entrySize + n.names }

// newList makes an empty list with room for what is needed. It must be closed.
func newList(n *needs) (*list, error) {
	l := &list{last: noName}
	if n.memory() == 0 {
		return l, nil
	}
	memory, err := syscall.Mmap(-1, 0, n.memory(),
		syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes for a list: %w", n.memory(), err)
	}
	l.memory = memory
	split := n.entries * entrySize
	l.entries, l.names = memory[:0:split], memory[split:split]
	return l, nil
}

// close frees the list. Preconditions: nobody searches it any more.
func (l *list) close() {
	if l != nil && l.memory != nil {
		_ = syscall.Munmap(l.memory)
		l.memory, l.entries, l.names = nil, nil, nil
	}
}

func (l *list) len() int { return len(l.entries) / entrySize }

func (l *list) at(i int) []byte { return l.entries[i*entrySize : (i+1)*entrySize] }

func (l *list) prefix(i int) int { return int(binary.BigEndian.Uint16(l.entries[i*entrySize:])) }

// add appends an entry, whose name has at most 255 bytes, and reports whether there was room.
func (l *list) add(sum *[sha256.Size]byte, name []byte) bool {
	at := noName
	if len(name) > 0 {
		at = l.last
		if at == noName || !bytes.Equal(l.name(at), name) {
			if len(l.names)+1+len(name) > cap(l.names) {
				return false
			}
			at = uint32(len(l.names))
			l.names = append(append(l.names, byte(len(name))), name...)
			l.last = at
		}
	}
	if len(l.entries)+entrySize > cap(l.entries) {
		return false
	}
	l.entries = binary.BigEndian.AppendUint32(append(l.entries, sum[:]...), at)
	return true
}

// name returns the name that begins at an offset.
func (l *list) name(at uint32) []byte { return l.names[at+1:][:l.names[at]] }

// seal sorts the list and drops duplicates; it must be called once, before find.
func (l *list) seal() {
	l.index()
	l.distribute()
	for prefix := range prefixes {
		if part := l.part(prefix); len(part) > entrySize {
			sort.Sort(byBytes(part))
		}
	}
	kept := min(l.len(), 1)
	for i := kept; i < l.len(); i++ {
		if !bytes.Equal(l.at(i)[:sha256.Size], l.at(kept - 1)[:sha256.Size]) {
			copy(l.at(kept), l.at(i))
			kept++
		}
	}
	l.entries = l.entries[:kept*entrySize]
	l.index()
}

// index notes where the entries of each prefix begin, once they are in that order.
func (l *list) index() {
	clear(l.first[:])
	for i := range l.len() {
		l.first[l.prefix(i)+1]++
	}
	for i := range prefixes {
		l.first[i+1] += l.first[i]
	}
}

// distribute moves the entries into the order of their prefixes, in place, by swapping each to the next free
// position of its prefix.
func (l *list) distribute() {
	free := make([]uint32, prefixes)
	copy(free, l.first[:])
	all := byBytes(l.entries)
	for prefix := range prefixes {
		for free[prefix] < l.first[prefix+1] {
			here := int(free[prefix])
			belongs := l.prefix(here)
			if belongs != prefix {
				all.Swap(here, int(free[belongs]))
			}
			free[belongs]++
		}
	}
}

// part returns the entries of one prefix.
func (l *list) part(prefix int) []byte {
	return l.entries[int(l.first[prefix])*entrySize : int(l.first[prefix+1])*entrySize]
}

// byBytes sorts entries by digest, then by where their names begin.
type byBytes []byte

func (b byBytes) Len() int { return len(b) / entrySize }

func (b byBytes) Less(i, j int) bool {
	return bytes.Compare(b[i*entrySize:][:entrySize], b[j*entrySize:][:entrySize]) < 0
}

func (b byBytes) Swap(i, j int) {
	var kept [entrySize]byte
	copy(kept[:], b[i*entrySize:])
	copy(b[i*entrySize:], b[j*entrySize:][:entrySize])
	copy(b[j*entrySize:], kept[:])
}

// find returns the name of a digest, which may be empty, and whether it is on the list.
func (l *list) find(sum *[sha256.Size]byte) (name string, found bool) {
	part := l.part(int(binary.BigEndian.Uint16(sum[:])))
	for len(part) > 0 {
		middle := len(part) / entrySize / 2 * entrySize
		switch e := part[middle:][:entrySize]; bytes.Compare(sum[:], e[:sha256.Size]) {
		case -1:
			part = part[:middle]
		case 1:
			part = part[middle+entrySize:]
		default:
			if at := binary.BigEndian.Uint32(e[sha256.Size:]); at != noName {
				name = string(l.name(at))
			}
			return name, true
		}
	}
	return "", false
}
