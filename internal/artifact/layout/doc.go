// Package layout reads a package out of an OCI image layout: a folder, on whatever it came, with one blob for each
// digest.
//
// It guarantees that nothing is handed out that does not hang on the digest it was asked for: manifest, then what that
// names by digest and size. A name that leads out of the package, a link, a device, a set-user-id program, a name that
// comes twice, and whatever is larger or more than the limits are refused. It unpacks nothing and writes nothing.
//
// Standard library only, no network: the privileged core reads with it. Give it a folder.Folder where somebody else can
// write.
package layout
