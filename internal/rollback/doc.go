// Package rollback decides which version of a provider's engine and content is active, and goes back when the
// newest one is no good. It is pure: no clock, no I/O; time comes in with each input, and what is to be done goes
// out as effects.
//
// It guarantees, whatever happens in whatever order: what is active was promoted by a trial or an operator, is the
// last-known-good, came with the installation, or is what an operator's order to go back names; a refused digest
// never becomes active until an operator allows it again; each rollback that nobody ordered undoes one promotion, so
// that there are never more of them than promotions; every rollback, refusal and quarantine names its cause. The
// property tests hold that.
//
// A candidate is first checked without running, then run beside the active version on live events, where its votes
// count nothing. One candidate of a provider is on trial at a time, so that a cause has one suspect.
package rollback
