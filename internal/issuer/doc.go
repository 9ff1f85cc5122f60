// Package issuer makes and keeps what vendors and operators sign with, and writes their repositories: TUF metadata in a
// folder that internal/sign verifies.
//
// It guarantees that nothing is published before enough people have signed it: until then it waits in a folder of its
// own, each adds a signature to exactly the same bytes, and the one that completes them publishes. A secret key is
// written once, readable by its owner only, and encrypted where it has a passphrase. A power cut leaves the repository
// as it was before or after.
package issuer
