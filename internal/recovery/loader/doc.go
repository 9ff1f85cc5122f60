// Package loader speaks with the boot loader: how many tries it has left, how many it shall have, and what it shall
// start next.
//
// It knows GRUB, by an environment block of Keepout's own beside the state (Env), and systemd-boot, by the counters in
// the names of its entries and by EFI variables. With any other loader it says so, and only bootguard's own counter
// works. It guarantees that a GRUB block is written in place and stays one that GRUB accepts; that of an entry of
// systemd-boot exactly one name is left, with a counter; that no other installation's entry is touched.
package loader
