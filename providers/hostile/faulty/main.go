// Command faulty is a provider that misbehaves on purpose, in the way that its settings or its content say. It shows
// that the platform contains what vendors' engines do by accident.
//
// It misbehaves only where it finds itself caged, and bounds each attack by itself as well. "make build" leaves it in
// bin/hostile, outside the folder that providers are configured from; "keepout drill" and the tests use it.
package main

import (
	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
)

// workers lets "delay" be as slow as it says, and no slower, while a handful of files is opened at a time.
const workers = 16

func main() {
	f := &faulty{}
	provider.Main(provider.Engine{
		Name: "faulty", Version: "1", Load: f.load, Vote: f.vote, Workers: workers,
		Subscription: provider.Subscription{
			Events: []event.Type{event.Open, event.Exec}, Content: true, Fresh: true, // each event is a new chance
		},
	})
}
