// Package daemon puts the core together: configuration, journal, docket, roster, sensor and admin socket. It
// decides nothing itself.
package daemon
