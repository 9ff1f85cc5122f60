// Package session is one provider's connection: handshake, subscription, credit, delivery and votes.
//
// It trusts nothing that it receives, never waits for the provider, and accounts for every event it delivered:
// at any moment delivered = answered + late + bypassed + pending.
package session
