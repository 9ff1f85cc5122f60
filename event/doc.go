// Package event is Keepout's vocabulary: what a provider is told about, what it may answer, and what the
// platform decided and why.
//
// It depends on nothing but the standard library, holds no state and performs no I/O, so that every other
// package, and every vendor, can share it. A file is identified by Version, never by its path; a path is a
// hint for people.
package event
