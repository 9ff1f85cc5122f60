// Package artifact makes packages and carries them: a package is an OCI artifact, in a folder (an OCI image layout,
// also on a USB stick) or in any OCI registry.
//
// It guarantees reproducible bytes: the same files and the same description give the same digest, on every machine and
// at every time. It trusts no registry: what comes from one is compared with its digest, and bounded before it is read.
// Whether a package may be used is not decided here but by internal/sign.
package artifact
