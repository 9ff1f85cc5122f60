// Command keepout-yara is the provider that judges a file by YARA rules.
//
// It guarantees: all rules of the folder are in force, or, after an error, all those from before; and an
// ALLOW means that the whole content, as it was at one reading, matched no rule. A file that is too large,
// unreadable, or not scanned in time is an ABSTAIN.
//
// The content is read into memory rather than mapped: if somebody cuts a mapped file short, touching it
// raises SIGBUS. libyara's answer to that is a signal action of its own, which the Go runtime cannot share; a
// copy costs 64 MiB at most, two at one time, and cannot change under the scan.
//
// Rules may not include files. The external variables that public rule sets use (filename, filepath,
// extension, filetype, owner) are defined and empty: a vote depends on content, not on where it lies.
package main

// version is the engine's own, for people.
const version = "1.0.0"
