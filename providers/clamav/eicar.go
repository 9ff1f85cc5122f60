package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
)

// The EICAR test file (https://www.eicar.org), by its size and digest: this program is not to be taken for it. Every
// usual database knows it, so it is this provider's self-test object: what clamd cannot find, it does not look for.
const (
	eicarSize   = 68
	eicarSHA256 = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
)

// voteOn turns what clamd found, or "", into a vote. The test file under a canary's name is a self-test: a denial says
// so, and where the database does not know the file, that is no ALLOW but no opinion, with the reason. Under any other
// name the test file is like others.
func voteOn(ev *provider.Event, found string) provider.Vote {
	test := ev.File.Size == eicarSize && ev.File.Canary() && isEICAR(ev)
	switch {
	case test && found == "":
		vote := provider.Abstain()
		vote.Rule = event.SelftestRule + " (the database does not know the EICAR test file)"
		return vote
	case test:
		return provider.Deny(event.SelftestRule + " (" + found + ")")
	case found != "":
		return provider.Deny(found)
	default:
		return provider.Allow()
	}
}

func isEICAR(ev *provider.Event) bool {
	content, err := ev.Content()
	if err != nil {
		return false
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(content, eicarSize+1)); err != nil {
		return false
	}
	return hex.EncodeToString(h.Sum(nil)) == eicarSHA256
}
