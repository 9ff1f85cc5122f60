// Command keepout-hashlist is the provider that judges a file by its SHA-256 alone.
//
// It guarantees: what it answers depends on the bytes read through the descriptor of this very event and on
// the lists, on nothing else. No digest is remembered by file identity, because a store through a shared
// mapping may change the bytes and leave size and times as they were. A list is accepted as a whole or
// refused as a whole, and a refused one leaves the lists in use untouched.
package main

import "github.com/keepout-security/keepout/provider"

// version is the engine's own, for people.
const version = "1.0.0"

func main() { provider.Main(newEngine()) }
