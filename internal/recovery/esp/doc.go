// Package esp is Keepout's folder on the EFI system partition, or on /boot where there is none: what survives a
// system that does not start, and what both the system and the recovery environment can read.
//
// It guarantees: the state of the boots survives a power cut in the middle of a write and a full disk, because each
// of its two copies is written in place and by turns; whatever is damaged reads as nothing known, never as an error
// that stops a boot; nothing that is read is larger than a bound named here.
//
// The file system is FAT as a rule: there are no owners, no modes and no links, and a change of mode is refused. That
// is why writing goes through Disk.
package esp
