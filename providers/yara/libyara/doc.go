// Package libyara binds what the yara provider needs of libyara 4: compile rules, scan a buffer.
//
// It guarantees: C code runs on bytes that nobody else can change or cut short (a buffer, never a mapping of
// a file), installs no signal action, and calls back into C only. It is the only cgo of the repository, and
// exists only in builds with cgo and the tag yara, so that a machine without libyara builds all the rest.
package libyara
