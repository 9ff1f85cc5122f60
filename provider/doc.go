// Package provider is what a security engine needs to vote under Keepout: describe the engine, call Main.
//
// The platform starts the program with two sockets (docs/protocol.md). Main shakes hands, loads the engine,
// subscribes and then calls Engine.Vote from several threads at once, with the loop already tuned: each
// worker blocks in the kernel and answers without a hop through Go's scheduler. A panic in an engine ends the
// process on purpose: the platform answers for it, restarts it and says so.
package provider
