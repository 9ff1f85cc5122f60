// Package drill breaks things on purpose and reports how they were contained: it starts the real platform on a
// playground of its own, beside two good providers and a hostile one, opens good and bad files all the while, commits
// one fault, and compares what the openers felt and what the platform did with what was promised.
//
// A fault and what must be seen of it are data (catalogue.go), and the judgement is a pure function of what was
// observed (judge.go). Hostile engines run in the platform's own cage, below a tmpfs in a private mount namespace, and
// a watchdog ends the platform, and with it every one of them, when a drill takes too long. A drill that does not see
// what it must fails.
package drill
