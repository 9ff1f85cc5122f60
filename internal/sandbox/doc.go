// Package sandbox starts a provider's program with as little power as it can have.
//
// Start runs this same executable again as a small launcher, which gives up everything while it is still our
// code (limits, groups, user, capabilities, the right to gain any) and then becomes the provider. As root the
// provider has a user id of its own and is the first process of its own pid namespace, so that ending it ends
// everything that it started. What is not confined yet is listed in docs/limits.md.
package sandbox
