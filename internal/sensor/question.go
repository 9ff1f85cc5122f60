package sensor

import "github.com/keepout-security/keepout/event"

// Answerer tells the kernel what becomes of the caller whose event carries descriptor file.
type Answerer interface {
	Answer(file int, allow bool) error
}

// Question is one caller that the kernel holds until Answer.
type Question struct {
	Event event.Event
	File  int // read-only descriptor of the object, open until Answer

	// WithOpen says that opens of this object are judged too, and that the open half of this exec will be
	// answered by the same verdict: who only wants to see opens must be asked now.
	WithOpen bool

	pairs *pairs
	group Answerer
}

// Answer tells the kernel and closes the descriptor. It must be called exactly once, from any goroutine. An error
// means that it was answered before, which nothing here does.
func (q *Question) Answer(allow bool) error {
	if allow && q.WithOpen {
		q.pairs.expect(&q.Event)
	}
	err := q.group.Answer(q.File, allow)
	closeFD(q.File)
	return err
}

// NewQuestion makes a question for a kernel other than fanotify's: a simulator or a test.
func NewQuestion(ev event.Event, file int, to Answerer) *Question {
	return &Question{Event: ev, File: file, pairs: new(pairs), group: to}
}
