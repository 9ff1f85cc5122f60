// Package arbiter turns votes into a verdict. It is pure: no clock, no goroutines, no I/O.
//
// A Case is one question put to several providers. Whatever the order of votes, deaths and deadlines, a Case
// decides exactly once, and never allows what an enforcing provider certainly denied in time. The property
// tests hold that.
package arbiter
