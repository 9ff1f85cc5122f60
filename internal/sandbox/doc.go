// Package sandbox starts a provider's program in a cage: with as little power as it can have.
//
// Start runs this same executable again as a small launcher, which gives up everything while it is still our code and
// then becomes the provider. As root the provider has a user id, a user namespace and a pid namespace of its own, an
// empty root with only what it was granted, no network, no capabilities, and control groups that bound it as a whole;
// Landlock and a list of allowed system calls hold what namespaces do not. Layers names the parts, Confinement says for
// each whether it holds and why not. docs/threat-model.md shows what each of them stops.
package sandbox
