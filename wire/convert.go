package wire

import (
	"encoding/hex"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keepout-security/keepout/event"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// The enum numbers of event types are the same on the wire and in package event; TestEnumsAgree holds that.

// EventToProto renders an event; seq, dropped, budget and descriptor are the sender's to fill in. Strings
// that are not UTF-8, as file names may be, are made valid: a path is a hint.
func EventToProto(ev *event.Event) *pb.Event {
	return &pb.Event{
		Id: ev.ID, Type: pb.EventType(ev.Type), TimeNs: uint64(ev.Time.UnixNano()),
		Actor: &pb.Process{
			Pid: ev.Actor.PID, Token: ev.Actor.Token, Ppid: ev.Actor.PPID,
			Uid: ev.Actor.UID, Gid: ev.Actor.GID, Comm: valid(ev.Actor.Comm),
		},
		File: &pb.File{
			Dev: ev.File.Dev, Handle: []byte(ev.File.Handle), Ino: ev.File.Ino, Size: ev.File.Size,
			MtimeNs: ev.File.MtimeNS, CtimeNs: ev.File.CtimeNS, Path: valid(ev.File.Path),
			Mode: ev.File.Mode, Uid: ev.File.UID, Sha256: digestToProto(ev.File.SHA256),
		},
		Name: valid(ev.Name), NewDir: valid(ev.NewDir), NewName: valid(ev.NewName),
	}
}

// EventFromProto is the inverse of EventToProto. A type that this version does not know gives an event whose
// Type is not Valid.
func EventFromProto(m *pb.Event) event.Event {
	f, a := m.GetFile(), m.GetActor()
	return event.Event{
		ID: m.GetId(), Type: typeFromProto(m.GetType()), Time: time.Unix(0, int64(m.GetTimeNs())),
		Actor: event.Process{
			PID: a.GetPid(), Token: a.GetToken(), PPID: a.GetPpid(),
			UID: a.GetUid(), GID: a.GetGid(), Comm: a.GetComm(),
		},
		File: event.File{
			Version: event.Version{
				Dev: f.GetDev(), Handle: string(f.GetHandle()), Ino: f.GetIno(), Size: f.GetSize(),
				MtimeNS: f.GetMtimeNs(), CtimeNS: f.GetCtimeNs(),
			},
			Path: f.GetPath(), Mode: f.GetMode(), UID: f.GetUid(), SHA256: digestFromProto(f.GetSha256()),
		},
		Name: m.GetName(), NewDir: m.GetNewDir(), NewName: m.GetNewName(),
	}
}

// VoteToProto renders a vote on event id.
func VoteToProto(id uint64, v event.Vote) *pb.Vote {
	return &pb.Vote{
		Id: id, Action: actionToProto(v.Action), Confidence: uint32(v.Confidence),
		Rule: Clip(v.Rule), Content: Clip(v.Content),
	}
}

// VoteFromProto reads a checked vote. known is false when the action is not one of this version: such a vote
// counts as abstain, and the caller counts the mistake.
func VoteFromProto(m *pb.Vote) (vote event.Vote, known bool) {
	vote = event.Vote{
		Confidence: confidenceOf(m.GetConfidence()),
		Rule:       Clip(m.GetRule()),
		Content:    Clip(m.GetContent()),
	}
	vote.Action, known = actionFromProto(m.GetAction())
	return vote, known
}

// digestToProto is nil for what is no digest.
func digestToProto(text string) []byte {
	if d, ok := digestOf(text); ok {
		return d[:]
	}
	return nil
}

// digestFromProto is empty for what is no digest.
func digestFromProto(b []byte) string {
	if len(b) != digestSize {
		return ""
	}
	return hex.EncodeToString(b)
}

// Clip makes an untrusted text fit for a packet, a log and a terminal: at most MaxText bytes of valid UTF-8
// without control characters.
func Clip(s string) string {
	clean := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			clean = false
			break
		}
	}
	if clean && len(s) <= MaxText {
		return s
	}
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	for len(s) > MaxText {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// valid keeps protobuf from refusing a string; unlike Clip it keeps control characters, which paths may hold.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
