// Command keepout-clamav is the provider that asks ClamAV.
//
// It runs clamd as its own child, in its own cage, and passes on the descriptor of each event. It guarantees:
// an ALLOW means that clamd looked at the whole of these bytes and knows nothing against them; whatever falls
// short of that (clamd is restarting, reports an error or gave up at a limit, or the vote came too late) is
// an ABSTAIN. clamd never outlives the provider, and a database that it refuses never replaces one that it
// has, as long as both fit into memory (see overlapLimit).
//
// A reload starts a second clamd and swaps it in once it answers, rather than sending RELOAD: that command
// gives no sign of its end, blocks or doubles the memory all the same, and ends clamd if the database is bad.
package main

import "github.com/keepout-security/keepout/provider"

// version is that of the engine's adapter; ClamAV's own is part of the content version.
const version = "1.0.0"

func main() { provider.Main(newEngine(&antivirus{find: findClamd})) }
