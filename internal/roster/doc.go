// Package roster runs the providers of one host: each one's process, session and supervisor.
//
// Every provider has a goroutine of its own that feeds what happens to the pure supervisor and does what it
// says. Who can be asked at any moment is handed to the docket as a whole.
package roster
