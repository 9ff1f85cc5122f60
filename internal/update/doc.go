// Package update decides which of the packages that somebody brought to this host may be used, and tells what became
// of them. It is the core's half: whoever fetches (internal/fetch) has the network and no say, this has the
// say and no network. Both talk through two folders: what is staged, which the fetcher writes, and a
// report, which the core writes.
//
// It guarantees: nothing is offered to a provider's slots that vendor and operator do not both name, as
// internal/sign verifies it at that moment; with a control plane, nothing without a grant for a nonce that was made
// here at most five minutes ago; what was remembered of trust is kept twice, and is on the disk before it is acted on.
// Going back needs no grant: it leads to what this host has already run, or to an older release that vendor and
// operator both name at that moment; an order never leads below the security floor.
package update
