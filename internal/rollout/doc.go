// Package rollout decides which host may activate a new release, when, and whether the rollout goes on. It is pure:
// no clock, no I/O, no randomness; time and facts come in with each input, and what is to be done goes out as
// effects. The control plane and the simulator drive the same code.
//
// It guarantees, whatever happens in whatever order, that in each ring
//
//	granted − confirmed − written off ≤ W(ring)
//
// that a host is told to activate only in an open ring of a rollout that is neither paused nor halted nor frozen,
// that a ring opens only after enough hosts of the ring before said that they are well (no data never promotes),
// and that what stops a rollout is named with its evidence. The property tests hold that.
//
// # Who calls
//
// One rollout is one State. Whoever drives it keeps two things in its store, and changes them in one transaction:
// the State (as JSON; a few tens of kilobytes, whatever the size of the fleet) and one Row for each host that was
// ever heard of. Each input is one call of Step, which returns the next State and the Effects; Apply does the same
// in place, for a driver that loads the stored State again when its transaction fails. Steps of one rollout are
// serialised. Many steps may share one transaction.
//
// Write-ahead: State and Effects.Row are stored before Effects.Reply leaves. A driver that dies in between goes on
// with what is stored: a grant that was stored and never sent takes up room in W until its host asks again, and a
// grant that was not stored was not sent.
//
// # What goes in
//
//   - CheckIn: a host asks. Host says who it is (ID, Stratum, Customer, Pin, as the driver knows them; the Row as
//     stored, zero at first), Report what it says: the digest that it runs, whether it is well, a nonce when it has
//     the release staged and verified and wants to activate it now, and what happened since its last check-in.
//   - Beacon: a host's recovery environment says that the host does not boot (Report.Incidents); Host as above.
//   - Lapse: a Row whose Due is not 0 and not after State.Clock: the host is silent. The driver looks for such rows
//     about every ten seconds (Row.Due is made to be an indexed column) and gives each to one Step.
//   - Tick: time passed; every ten seconds or so, also when nobody checks in.
//   - Approve, Pause, Resume, Halt: what a person wants; By is who, Reason is why. The driver has checked the roles.
//   - SetCustomer: a customer's own pause, freeze windows and age limit.
//   - TakeOver: a controller becomes the leader; Epoch is its fencing token, which only rises.
//   - Supersede: a newer release of the same channel is being rolled out; from now on only hosts pinned to N-1 are
//     granted this one.
//
// # What comes out
//
//   - Effects.Row, if Effects.Store: the host's row, to be stored with the State.
//   - Effects.Reply, for CheckIn and Beacon: activate with this Grant, roll back to Previous, or nothing; when to
//     check in again; and a Why for people ("why is this host not updated").
//   - Effects.Acts: what became of the rollout, for the audit trail, notices and waiting long-polls: Started, Opened,
//     Paused, Resumed, Halted (with Evidence: hosts get RollBack at their next check-in, so wake them), Completed,
//     Aged, Refused.
//
// Explain returns the whole state as data for people.
package rollout
