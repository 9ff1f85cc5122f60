// Command aloof is the provider that benchmarks have when the core shall answer: it subscribes to opens, and to none of
// a file that there is. It is not installed.
package main

import (
	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
)

func main() {
	provider.Main(provider.Engine{
		Name: "aloof", Version: "1",
		Vote:         func(*provider.Event) provider.Vote { return provider.Allow() },
		Subscription: provider.Subscription{Events: []event.Type{event.Open}, MinSize: 1 << 50, Content: true},
	})
}
