package rescue

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/rescue/plan"
)

// Numbers of include/uapi/linux/input-event-codes.h, and the size of struct input_event on a 64-bit kernel.
const (
	evKey      = 1
	keyEnter   = 28
	keyF2      = 60
	keyF8      = 66
	keyF10     = 68
	keyKPEnter = 96
	eventSize  = 24
)

// repeat is how long the same key is not taken twice: a keyboard may be heard by two ways.
const repeat = 400 * time.Millisecond

// keyboard listens for the few keys there are.
type keyboard struct {
	out  chan plan.Key
	mu   sync.Mutex
	last plan.Key
	at   time.Time
}

// listen reads keyboards (evdev) and consoles, as far as they are there. The goroutines end with the program.
func listen(consoles ...string) <-chan plan.Key {
	k := &keyboard{out: make(chan plan.Key, 4)}
	devices, _ := filepath.Glob("/dev/input/event*") // the pattern is well-formed
	for _, name := range devices {
		if f, err := os.Open(name); err == nil {
			go k.events(f)
		}
	}
	for _, name := range consoles {
		if f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOCTTY, 0); err == nil {
			raw(int(f.Fd()))
			go k.terminal(f)
		}
	}
	return k.out
}

func (k *keyboard) press(key plan.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if key == "" || key == k.last && now.Sub(k.at) < repeat {
		return
	}
	k.last, k.at = key, now
	select {
	case k.out <- key:
	default: // nobody types that fast
	}
}

func (k *keyboard) events(f *os.File) {
	event := make([]byte, eventSize)
	for {
		if _, err := io.ReadFull(f, event); err != nil {
			return
		}
		if binary.LittleEndian.Uint16(event[16:]) == evKey && binary.LittleEndian.Uint32(event[20:]) == 1 {
			k.press(keyOf(binary.LittleEndian.Uint16(event[18:])))
		}
	}
}

func keyOf(code uint16) plan.Key {
	switch code {
	case keyF2:
		return plan.Details
	case keyF8:
		return plan.Safe
	case keyF10:
		return plan.Off
	case keyEnter, keyKPEnter:
		return plan.Again
	}
	return ""
}

func (k *keyboard) terminal(f *os.File) {
	buffer := make([]byte, 64)
	for {
		n, err := f.Read(buffer)
		if err != nil {
			return
		}
		k.press(keyFrom(string(buffer[:n])))
	}
}

// raw switches off echo and line editing, as far as the console has them.
func raw(fd int) {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return
	}
	t.Lflag &^= unix.ICANON | unix.ECHO | unix.ISIG
	t.Iflag &^= unix.ICRNL
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	_ = unix.IoctlSetTermios(fd, unix.TCSETS, t)
	_ = unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH) // what was typed before this screen was meant for another
}
