// Package simulate plays rollouts over fleets of up to ten million hosts. Each decision is made by the same code that
// decides in the field, package rollout: every grant, confirmation, silence and beacon of every single host is one
// call of it. What is simulated is the hosts: who is switched on when, who leaves, what the release does to whom.
//
// It guarantees that the same options give the same result, and that memory is bounded by about 40 bytes a host for
// each run at a time, and 20 for all. Time is event-driven: check-ins that would change nothing but "last seen" are
// left out. A run costs time for the hosts that it reaches, and for the control group: one that is halted in ring 0
// touches a twentieth of the fleet.
package simulate
