// Package pardon keeps an administrator's exceptions: contents that are allowed for a time although a provider
// denies them. They are known by SHA-256, survive a restart, and end by themselves.
package pardon

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/durable"
)

// Bounds.
const (
	maxPardons = 10_000
	maxRead    = 64 << 20 // bytes of a file that is hashed while its opener waits
	chunk      = 256 << 10
)

// Pardon is one exception.
type Pardon struct {
	SHA256 string    `json:"sha256"` // lower-case hex
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
	Used   uint64    `json:"-"` // denials that it lifted since the start
}

// List is safe for concurrent use.
type List struct {
	path string
	now  func() time.Time

	writing sync.Mutex // one Add at a time; held while the disk works, for which the verdict path must not wait

	mu   sync.Mutex // never held over a system call
	list map[string]*Pardon
}

// Load reads the list from path; a missing file is an empty list.
func Load(path string, now func() time.Time) (*List, error) {
	l := &List{path: path, now: now, list: map[string]*Pardon{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read allowances: %w", err)
	}
	var list []*Pardon
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("read allowances from %s: %w", path, err)
	}
	for i, p := range list {
		if p == nil || !isDigest(p.SHA256) {
			return nil, fmt.Errorf("read allowances from %s: entry %d: %w", path, i+1, ErrDigest)
		}
		l.list[p.SHA256] = p
	}
	return l, nil
}

// isDigest accepts lower-case hexadecimal only, as Digest writes it.
func isDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && s == strings.ToLower(s)
}

// ErrDigest reports something that is not a SHA-256 in hexadecimal.
var ErrDigest = errors.New("not a SHA-256: want 64 hexadecimal digits")

// Add makes an exception, or prolongs one, and keeps it on disk before it returns.
func (l *List) Add(digest string, d time.Duration, reason string) (Pardon, error) {
	digest = strings.ToLower(strings.TrimSpace(digest))
	if !isDigest(digest) {
		return Pardon{}, ErrDigest
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	p := Pardon{SHA256: digest, Until: l.now().Add(d).UTC().Truncate(time.Second), Reason: reason}
	others := slices.DeleteFunc(l.All(), func(q Pardon) bool { return q.SHA256 == digest })
	if len(others) >= maxPardons {
		return Pardon{}, fmt.Errorf("%d allowances already, which is the limit", maxPardons)
	}
	b, err := json.MarshalIndent(sorted(append(others, p)), "", " ")
	if err == nil {
		err = durable.WriteFile(l.path, b, 0o600)
	}
	if err != nil {
		return Pardon{}, fmt.Errorf("keep allowance: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.list[digest]; old != nil {
		p.Used = old.Used
	}
	l.list[digest] = &p
	return p, nil
}

// expire forgets what is over. Preconditions: mu is held.
func (l *List) expire() {
	for digest, p := range l.list {
		if !l.now().Before(p.Until) {
			delete(l.list, digest)
		}
	}
}

func sorted(list []Pardon) []Pardon {
	slices.SortFunc(list, func(a, b Pardon) int { return strings.Compare(a.SHA256, b.SHA256) })
	return list
}

// All returns what is in force, sorted by digest.
func (l *List) All() []Pardon {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	out := make([]Pardon, 0, len(l.list))
	for _, p := range l.list {
		out = append(out, *p)
	}
	return sorted(out)
}

// Any reports whether anything is in force.
func (l *List) Any() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	return len(l.list) > 0
}

// Digest returns the SHA-256 of an open file's first size bytes in lower-case hex.
func Digest(file int, size int64) (string, error) {
	if size < 0 || size > maxRead {
		return "", fmt.Errorf("%d bytes, limit %d", size, maxRead)
	}
	h := sha256.New()
	if _, err := io.CopyBuffer(h, &reader{fd: file, left: size}, make([]byte, min(chunk, size+1))); err != nil {
		return "", fmt.Errorf("hash: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Check hashes the open file and reports whether its content is allowed, and why. A file that cannot be read, or
// is too large, is not.
func (l *List) Check(file int, size int64) (reason string, ok bool) {
	digest, err := Digest(file, size)
	if err != nil {
		return "", false
	}
	return l.Allows(digest)
}

// Allows reports whether the content with this digest is allowed, and why. It never waits for a disk.
func (l *List) Allows(digest string) (reason string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.list[digest]
	if p == nil || !l.now().Before(p.Until) {
		return "", false
	}
	p.Used++
	return p.Reason, true
}

// reader reads at offsets, without moving the position that other holders of the descriptor share.
type reader struct {
	fd        int
	off, left int64
}

func (r *reader) Read(b []byte) (int, error) {
	n, err := unix.Pread(r.fd, b[:min(int64(len(b)), r.left)], r.off)
	if err != nil {
		return 0, fmt.Errorf("pread: %w", err)
	}
	if n == 0 {
		return 0, io.EOF
	}
	r.off, r.left = r.off+int64(n), r.left-int64(n)
	return n, nil
}
