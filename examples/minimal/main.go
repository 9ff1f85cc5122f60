// Command minimal is the smallest useful provider: it denies files that begin with a marker.
package main

import (
	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
)

const marker = "MALWARE"

func main() {
	provider.Main(provider.Engine{
		Name: "minimal", Version: "1.0",
		Subscription: provider.Subscription{Events: []event.Type{event.Open, event.Exec}, Content: true},
		Vote:         vote,
	})
}

func vote(ev *provider.Event) provider.Vote {
	content, err := ev.Content()
	if err != nil {
		return provider.Abstain()
	}
	first := make([]byte, len(marker))
	if n, _ := content.ReadAt(first, 0); string(first[:n]) == marker {
		return provider.Deny("marker")
	}
	return provider.Allow()
}
