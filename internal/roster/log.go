package roster

import (
	"errors"
	"io"
	"os"
	"sync"
)

// providerLog keeps the last part of what a provider writes to standard error in two files, of which the older makes
// room. It is written without syncing: it is for people, and no verdict depends on it. A disk that takes nothing loses
// lines, which nobody waits for.
type providerLog struct {
	path  string
	limit int64 // bytes of both files together

	mu     sync.Mutex
	file   *os.File
	size   int64
	closed bool
}

// older is the ending of the file that was full.
const older = ".1"

func newLog(path string, limit int64) *providerLog { return &providerLog{path: path, limit: limit} }

// Write implements io.Writer. It takes everything.
func (l *providerLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.open() != nil {
		return len(b), nil
	}
	n, _ := l.file.Write(b[max(0, int64(len(b))-l.limit/2):]) // what it took counts
	l.size += int64(n)
	if l.size >= l.limit/2 {
		l.shut()
		_ = os.Rename(l.path, l.path+older) // otherwise the next line goes on in the full one
	}
	return len(b), nil
}

// open opens the file to append to it. Preconditions: mu is held.
func (l *providerLog) open() error {
	if l.file != nil {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

func (l *providerLog) shut() {
	if l.file != nil {
		_ = l.file.Close() // nothing is buffered
		l.file, l.size = nil, 0
	}
}

func (l *providerLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.shut()
}

// readLog returns the last part of a log, at most limit bytes.
func readLog(path string, limit int64) ([]byte, error) {
	var text []byte
	for _, name := range []string{path + older, path} {
		b, err := readTail(name, limit)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		text = append(text, b...)
	}
	return text[max(0, int64(len(text))-limit):], nil
}

func readTail(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	start := max(0, info.Size()-limit)
	return io.ReadAll(io.NewSectionReader(f, start, info.Size()-start))
}
