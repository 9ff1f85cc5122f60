// Package docket holds the questions in flight: it asks the providers, counts their votes with the arbiter and
// answers the kernel.
//
// Nothing here waits. Readers put questions in, receivers put votes in, and a clock that runs only while there
// are questions gives up what is late. Every question is answered exactly once, the kernel is answered before
// any bookkeeping, and the number of questions in flight is bounded.
package docket
