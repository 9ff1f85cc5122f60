package cli

import (
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
)

// topModel is the live view as data: messages change it, and it renders itself. It has no clock of its own
// and asks nobody.
type topModel struct {
	paint         paint
	width, height int

	status  *control.Status // the last one that arrived
	away    error           // why there is none now
	at      time.Time       // when status or away arrived
	rate    float64         // verdicts a second, between the last two
	prior   uint64          // verdicts at priorAt
	priorAt time.Time

	records []event.Record // newest first, at most topKeep
	skipped uint64

	denied   bool           // show only denials
	paused   []event.Record // what is shown while paused; nil when not
	pausing  bool
	selected uint64 // event id; 0: none
	explain  bool   // the pane is open
}

func newTopModel(p paint) topModel { return topModel{paint: p, width: 80, height: 24} }

// Init implements tea.Model.
func (m topModel) Init() tea.Cmd { return nil }

// Update implements tea.Model.
func (m topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case statusMsg:
		m = m.hear(msg)
	case recordsMsg:
		m = m.take(msg)
	case tea.KeyPressMsg:
		return m.press(msg.String())
	}
	return m, nil
}

// View implements tea.Model.
func (m topModel) View() tea.View {
	v := tea.NewView(m.render())
	v.AltScreen, v.WindowTitle = true, "keepout top"
	return v
}

func (m topModel) hear(msg statusMsg) topModel {
	m.away, m.at = msg.err, msg.at
	if msg.err != nil || msg.status == nil {
		return m
	}
	v := msg.status.Verdicts
	total := v.Allowed + v.Denied + v.Timeout + v.Unavailable
	same := m.status != nil && m.status.PID == msg.status.PID && total >= m.prior
	m.rate = 0
	if d := msg.at.Sub(m.priorAt); same && d > 0 {
		m.rate = float64(total-m.prior) / d.Seconds()
	}
	m.status, m.prior, m.priorAt = msg.status, total, msg.at
	return m
}

func (m topModel) take(msg recordsMsg) topModel {
	m.skipped += msg.skipped
	var list []event.Record
	for i := len(msg.records) - 1; i >= 0 && len(list) < topKeep; i-- {
		list = append(list, msg.records[i])
	}
	if !msg.fresh {
		list = append(list, m.records[:min(len(m.records), topKeep-len(list))]...)
	}
	m.records = list
	return m
}

func (m topModel) press(key string) (tea.Model, tea.Cmd) {
	switch key {
	case "q", "ctrl+c":
		return m, tea.Quit
	case "d":
		m.denied = !m.denied
	case "p", "space":
		m.pausing, m.paused = !m.pausing, nil
		if m.pausing {
			m.paused = m.records
		}
	case "up", "k":
		m = m.move(-1)
	case "down", "j":
		m = m.move(1)
	case "e", "enter":
		if m.index() < 0 {
			m = m.move(1)
		}
		m.explain = !m.explain
	case "esc":
		if !m.explain {
			m.selected = 0
		}
		m.explain = false
	}
	return m, nil
}

// shown lists the events that are to be seen, newest first.
func (m topModel) shown() []event.Record {
	list := m.records
	if m.pausing {
		list = m.paused
	}
	if !m.denied {
		return list
	}
	var out []event.Record
	for _, r := range list {
		if o := r.Verdict.Outcome; o == event.Denied || o == event.WouldDeny {
			out = append(out, r)
		}
	}
	return out
}

// index is the place of the selected event in shown, or -1.
func (m topModel) index() int {
	return slices.IndexFunc(m.shown(), func(r event.Record) bool { return r.Event.ID == m.selected })
}

func (m topModel) move(by int) topModel {
	list := m.shown()
	if len(list) == 0 {
		return m
	}
	i := m.index()
	if i < 0 {
		i, by = 0, 0
	}
	m.selected = list[min(max(i+by, 0), len(list)-1)].Event.ID
	return m
}
