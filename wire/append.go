package wire

import (
	"encoding/hex"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keepout-security/keepout/event"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// The messages of the hot path, written and read without the generated code: that allocates for each message, and a
// question is asked many times a second. What is written here is byte by byte what Encode writes; TestAppend holds it.

// Stamp is what an event says to one provider beside the event itself.
type Stamp struct {
	Type       event.Type // as which the provider is asked
	Seq        uint64
	Dropped    uint64
	Budget     time.Duration // 0 or less: none is left, or none is needed
	Descriptor bool          // the packet carries one
	NoDigest   bool          // the event's digest is not for this provider
}

// AppendEvent appends the packet of an event. It fails only when that would exceed MaxPacket, and then returns dst as
// it was. It allocates only where dst is too short or a string is not UTF-8.
func AppendEvent(dst []byte, ev *event.Event, s Stamp) ([]byte, error) {
	comm, path := valid(ev.Actor.Comm), valid(ev.File.Path)
	name, newDir, newName := valid(ev.Name), valid(ev.NewDir), valid(ev.NewName)
	actor := sizeActor(&ev.Actor, comm)
	digest := ev.File.SHA256
	if s.NoDigest {
		digest = ""
	}
	file := sizeFile(&ev.File, path, digest)
	body := sizeVarint(1, ev.ID) + sizeVarint(2, s.Seq) + sizeVarint(3, s.Dropped) + sizeVarint(4, uint64(s.Type)) +
		sizeVarint(5, budget(s.Budget)) + sizeVarint(6, uint64(ev.Time.UnixNano())) +
		1 + protowire.SizeBytes(actor) + 1 + protowire.SizeBytes(file) +
		sizeText(9, name) + sizeText(10, newDir) + sizeText(11, newName)
	if s.Descriptor {
		body += 2
	}
	if size := 1 + protowire.SizeBytes(body); size > MaxPacket {
		return dst, fmt.Errorf("encode packet: %d bytes, limit %d", size, MaxPacket)
	}
	b := appendLength(dst, 3, body) // ToProvider.event
	b = appendVarint(b, 1, ev.ID)
	b = appendVarint(b, 2, s.Seq)
	b = appendVarint(b, 3, s.Dropped)
	b = appendVarint(b, 4, uint64(s.Type))
	b = appendVarint(b, 5, budget(s.Budget))
	b = appendVarint(b, 6, uint64(ev.Time.UnixNano()))
	b = appendActor(appendLength(b, 7, actor), &ev.Actor, comm)
	b = appendFile(appendLength(b, 8, file), &ev.File, path, digest)
	b = appendText(b, 9, name)
	b = appendText(b, 10, newDir)
	b = appendText(b, 11, newName)
	if s.Descriptor {
		b = appendVarint(b, 12, 1)
	}
	return b, nil
}

func budget(d time.Duration) uint64 { return uint64(max(d, 0)) }

// Negative numbers are sign-extended to 64 bits (protobuf encoding, "Signed Integers").
func signed(n int32) uint64 { return uint64(int64(n)) }

func sizeActor(p *event.Process, comm string) int {
	return sizeVarint(1, signed(p.PID)) + sizeVarint(2, p.Token) + sizeVarint(3, signed(p.PPID)) +
		sizeVarint(4, uint64(p.UID)) + sizeVarint(5, uint64(p.GID)) + sizeText(6, comm)
}

func appendActor(b []byte, p *event.Process, comm string) []byte {
	b = appendVarint(b, 1, signed(p.PID))
	b = appendVarint(b, 2, p.Token)
	b = appendVarint(b, 3, signed(p.PPID))
	b = appendVarint(b, 4, uint64(p.UID))
	b = appendVarint(b, 5, uint64(p.GID))
	return appendText(b, 6, comm)
}

func sizeFile(f *event.File, path, digest string) int {
	return sizeVarint(1, f.Dev) + sizeText(2, f.Handle) + sizeVarint(3, f.Ino) + sizeVarint(4, uint64(f.Size)) +
		sizeVarint(5, uint64(f.MtimeNS)) + sizeVarint(6, uint64(f.CtimeNS)) + sizeText(7, path) +
		sizeVarint(8, uint64(f.Mode)) + sizeVarint(9, uint64(f.UID)) + sizeDigest(digest)
}

func appendFile(b []byte, f *event.File, path, digest string) []byte {
	b = appendVarint(b, 1, f.Dev)
	b = appendText(b, 2, f.Handle)
	b = appendVarint(b, 3, f.Ino)
	b = appendVarint(b, 4, uint64(f.Size))
	b = appendVarint(b, 5, uint64(f.MtimeNS))
	b = appendVarint(b, 6, uint64(f.CtimeNS))
	b = appendText(b, 7, path)
	b = appendVarint(b, 8, uint64(f.Mode))
	b = appendVarint(b, 9, uint64(f.UID))
	if d, ok := digestOf(digest); ok {
		b = appendLength(b, 10, len(d))
		b = append(b, d[:]...)
	}
	return b
}

// digestSize is that of a SHA-256, in bytes.
const digestSize = 32

// digestOf reads the digest of an event; whatever is not one is left out.
func digestOf(text string) (d [digestSize]byte, ok bool) {
	if len(text) != 2*digestSize {
		return d, false
	}
	var digits [2 * digestSize]byte // a conversion of the string would allocate
	copy(digits[:], text)
	_, err := hex.Decode(d[:], digits[:])
	return d, err == nil
}

func sizeDigest(text string) int {
	if _, ok := digestOf(text); !ok {
		return 0
	}
	return 1 + protowire.SizeBytes(digestSize)
}

// AppendVote appends the packet of a vote on event id. It allocates only where dst is too short or a text is not fit
// to be sent (Clip).
func AppendVote(dst []byte, id uint64, v event.Vote) []byte {
	rule, content := Clip(v.Rule), Clip(v.Content)
	action := uint64(actionToProto(v.Action))
	body := sizeVarint(1, id) + sizeVarint(2, action) + sizeVarint(3, uint64(v.Confidence)) + sizeText(4, rule) +
		sizeText(5, content)
	b := appendLength(dst, 3, body) // FromProvider.vote
	b = appendVarint(b, 1, id)
	b = appendVarint(b, 2, action)
	b = appendVarint(b, 3, uint64(v.Confidence))
	b = appendText(b, 4, rule)
	return appendText(b, 5, content)
}

// AppendCancel appends the packet that says that the vote on event id is no longer wanted.
func AppendCancel(dst []byte, id uint64) []byte {
	return appendVarint(appendLength(dst, 4, sizeVarint(1, id)), 1, id) // ToProvider.cancel
}

func actionToProto(a event.Action) pb.Action {
	switch a {
	case event.Allow:
		return pb.Action_ACTION_ALLOW
	case event.Deny:
		return pb.Action_ACTION_DENY
	case event.Read:
		return pb.Action_ACTION_READ
	case event.Abstain:
	}
	return pb.Action_ACTION_ABSTAIN
}

// Fields that hold the default value are not written (proto3). The numbers of all fields here are below 16, whose tags
// are one byte.

func sizeVarint(_ protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func sizeText(_ protowire.Number, s string) int {
	if s == "" {
		return 0
	}
	return 1 + protowire.SizeBytes(len(s))
}

func appendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return append(appendLength(b, field, len(s)), s...)
}

// appendLength begins a field of n bytes, which follow.
func appendLength(b []byte, field protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(n))
}

// isText reports whether protobuf takes b as a string.
func isText(b []byte) bool { return utf8.Valid(b) }
