package rescue

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/crashscreen"
	"github.com/keepout-security/keepout/internal/rescue/plan"
)

const framebuffer = "/dev/fb0"

// screen is every place where the story is told: a framebuffer or else the text console, and serial lines.
type screen struct {
	mu       sync.Mutex
	renderer *crashscreen.Renderer
	fb       *crashscreen.Framebuffer
	text     *os.File // the text console, when there is no framebuffer
	serial   []*os.File
	consoles []string // to listen on
	last     *crash.Record
	drawn    string // what the text console shows
	picture  picture
}

// picture is what the framebuffer shows.
type picture struct {
	record *crash.Record
	page   crashscreen.Page
	at     time.Time
}

// redraw is how long a picture stands: whatever drew over it is covered then.
const redraw = 10 * time.Second

// shows reports whether a record need not be drawn again. Drawing a screen is the most that this program computes.
func (p *picture) shows(r *crash.Record, page crashscreen.Page, now time.Time) bool {
	return p.record != nil && p.page == page && now.Sub(p.at) < redraw && !now.Before(p.at) &&
		reflect.DeepEqual(p.record, r)
}

// openScreen finds out what there is. Kernel messages stay off the screen from here on.
func openScreen() *screen {
	_ = os.WriteFile("/proc/sys/kernel/printk", []byte("1 4 1 7"), 0o644)
	s := &screen{}
	active, _ := os.ReadFile("/sys/class/tty/console/active") // without it there is no serial line
	for name := range strings.FieldsSeq(string(active)) {
		device := "/dev/" + name
		s.consoles = append(s.consoles, device)
		if strings.HasPrefix(name, "tty") && (len(name) == 3 || name[3] >= '0' && name[3] <= '9') {
			continue // a virtual console: the screen itself
		}
		if f, err := os.OpenFile(device, os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0); err == nil {
			s.serial = append(s.serial, f)
		}
	}
	s.reopen()
	return s
}

// reopen looks for a framebuffer that was not there before: a module may have brought it.
func (s *screen) reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fb != nil {
		return
	}
	fb, err := crashscreen.OpenFramebuffer(framebuffer)
	if err == nil && s.renderer == nil {
		s.renderer, err = crashscreen.New()
	}
	if err == nil {
		s.fb = fb
		_, _ = crashscreen.KeepConsoleOff("/dev/tty0") // without a console nothing draws over it
		return
	}
	if s.text == nil {
		s.text, _ = os.OpenFile("/dev/tty0", os.O_WRONLY|unix.O_NOCTTY, 0) // nil: there is no screen
	}
}

// show draws a record.
func (s *screen) show(r *crash.Record, details bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	page := crashscreen.Main
	if details {
		page = crashscreen.Details
	}
	switch {
	case s.fb != nil && s.picture.shows(r, page, time.Now()):
	case s.fb != nil:
		width, height := s.fb.Size()
		_ = s.fb.Show(s.renderer.Image(r, page, width, height)) // the serial line still tells it
		s.picture = picture{record: r, page: page, at: time.Now()}
	case s.text != nil:
		drawing := string(crashscreen.Console(r, page, crashscreen.Columns, crashscreen.Rows))
		if drawing != s.drawn {
			_, _ = s.text.WriteString(drawing)
			s.drawn = drawing
		}
	}
	s.tell(r)
}

// tell writes to the serial lines what changed, but for times that run down.
func (s *screen) tell(r *crash.Record) {
	quiet := *r
	quiet.Details = nil
	quiet.Steps = slices.Clone(r.Steps)
	for i := range quiet.Steps {
		step := &quiet.Steps[i]
		step.Detail, _, _ = strings.Cut(step.Detail, "; next in ")
		for _, what := range []string{ifNone, ifNoNetwork} {
			if strings.HasPrefix(step.Text, what) {
				_, rule, _ := strings.Cut(step.Text, ": ")
				step.Text = what + " time: " + rule
			}
		}
	}
	text := crashscreen.Serial(&quiet)
	if s.last != nil {
		text = crashscreen.SerialChange(s.last, &quiet)
	}
	s.last = &quiet
	s.write(text)
}

// lineWait is how long a serial line that takes nothing, as one does that waits for a modem, holds up the screen.
const lineWait = time.Second

func (s *screen) write(text string) {
	for _, f := range s.serial {
		_ = f.SetWriteDeadline(time.Now().Add(lineWait)) // refused where a write never waits
		_, _ = f.WriteString(strings.ReplaceAll(text, "\n", "\r\n"))
	}
}

// log writes to the serial lines only.
func (s *screen) log(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(fmt.Sprintf("keepout-rescue: "+format+"\n", args...))
}

// leave says goodbye and ends the machine.
func (s *screen) leave(a plan.Act) {
	within(lastWait, func() {
		s.log("%s: %.2f s after the kernel's start", a, uptime())
		s.drain()
	})
	restart(a)
}

// drain waits until the serial lines have sent what was written (tcdrain(3)): a restart cuts the rest off.
func (s *screen) drain() {
	var lines sync.WaitGroup
	for _, f := range s.serial {
		if raw, err := f.SyscallConn(); err == nil {
			lines.Go(func() {
				_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetInt(int(fd), unix.TCSBRK, 1) })
			})
		}
	}
	lines.Wait()
}
