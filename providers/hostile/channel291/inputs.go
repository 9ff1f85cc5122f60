package main

import (
	"strconv"

	"github.com/keepout-security/keepout/provider"
)

// inputs is the integration code: the values that an event supplies to the interpreter. There are 20 of them. The
// field "pipe", the 21st of the definition, was never connected.
func inputs(ev *provider.Event) []string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	return []string{
		ev.Type.String(), ev.File.Path, ev.Actor.Comm, number(int64(ev.Actor.UID)), number(int64(ev.Actor.GID)),
		number(int64(ev.Actor.PID)), number(int64(ev.Actor.PPID)), strconv.FormatUint(ev.Actor.Token, 10),
		number(ev.File.Size), strconv.FormatUint(uint64(ev.File.Mode), 8), number(int64(ev.File.UID)),
		strconv.FormatUint(ev.File.Dev, 10), strconv.FormatUint(ev.File.Ino, 10), number(ev.File.MtimeNS),
		number(ev.File.CtimeNS), number(ev.Time.UnixNano()), ev.Name, ev.NewDir, ev.NewName,
		strconv.FormatUint(ev.ID, 16),
	}
}
