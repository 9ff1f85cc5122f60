// Package store keeps the providers' packages and remembers which of them is in which slot.
//
// It guarantees:
//
//   - A package (an engine's folder, or content: a folder or one file) is named by its digest and never changes.
//     The digest covers names, kinds, sizes and contents, and is the same whether the package came as a folder or as
//     an archive. Verify finds any change. What is given out by Path was verified in this process.
//   - Nothing gets in but plain files and folders below the one that was named: no link of either kind, device, pipe
//     or socket, no set-user-id program, no other file system, no name that leads elsewhere, nothing that changes
//     while it is read, and no more than the Limits.
//   - A package is there as a whole or not at all, and so is a provider's state, at whatever moment the power is cut.
//   - Each provider's state is kept twice, with a checksum and a generation. One damaged copy is healed from the
//     other. With both damaged the provider falls back to what came with the installation. Either is said as a
//     problem, and the damaged copies are kept under another name.
//   - A slot whose package is missing or damaged is never run: its provider falls to the last-known-good, then to
//     what came with the installation, with the cause.
//   - Collect removes no package that a slot of either copy names.
//
// Layout below the folder: objects/<digest>/listing and objects/<digest>/tree/…, readable by everybody so that a
// caged provider can be given them; state/<provider>/{a,b}, for the owner only. One process at a time may have a
// store open; the lock of the state folder (durable.Lock) sees to that.
package store
