// Package root holds the tests on the real kernel. TestFact… prove what the design relies on; the others run
// the real daemon with real providers.
//
// Every test marks only file systems of its own, in a private mount namespace, and has a watchdog that ends
// whoever answers, so that no opener of the host can hang.
package root
