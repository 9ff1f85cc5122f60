package event

import "strings"

// SelftestName is how the names of the canaries begin that "keepout doctor" lays out. A name proves nothing: it makes
// the platform hear every vote on such a file, also after the first denial, and nothing else.
const SelftestName = ".keepout-selftest-"

// SelftestRule is the rule that an engine names when it denies its own self-test object, alone or followed by a space
// and what the engine has to add. It sets a canary apart from a finding.
const SelftestRule = "keepout-selftest"

// Canary reports whether the file is named as canaries are. It looks at the path hint only.
func (f *File) Canary() bool {
	return strings.HasPrefix(f.Path[strings.LastIndexByte(f.Path, '/')+1:], SelftestName)
}

// Selftest reports whether the vote denies an engine's self-test object.
func (v Vote) Selftest() bool {
	rest, found := strings.CutPrefix(v.Rule, SelftestRule)
	return v.Action == Deny && found && (rest == "" || rest[0] == ' ')
}

// Selftest reports whether the record is about a canary that an engine recognised: nobody need be alarmed. It takes
// both, the name and a vote, so that neither who names a file nor an engine alone can make a denial look harmless.
func (r *Record) Selftest() bool {
	if !r.Event.File.Canary() {
		return false
	}
	for _, b := range r.Verdict.Ballots {
		if b.Vote.Selftest() {
			return true
		}
	}
	return false
}
