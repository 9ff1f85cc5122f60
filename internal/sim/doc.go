// Package sim plays whole histories from a seed: a store whose power is cut at any write, and hosts whose providers
// crash, hang and ship bad updates.
//
// It guarantees: the same seed gives the same history, and each run that finds something wrong says the seed. It
// knows what must hold whatever happens (the invariants), and nothing about how that is reached. The decisions that it
// plays are the platform's own; what it keeps beside them is only to judge them by.
package sim
