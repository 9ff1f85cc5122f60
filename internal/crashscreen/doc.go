// Package crashscreen turns a crash record into the black screen: an image for a framebuffer, 80×25 characters for a
// text console, and plain text for a serial line.
//
// It guarantees that all three tell the story of crash.Tell in the same order and in the same words; that every
// record fits on every screen from 320×200 pixels or 40×12 characters up, by smaller type first, then by drawing
// finished steps together, then by cutting long texts visibly; that the title, the report code, the sentence about
// the files and the keys are never what is cut; and that only characters which the output can show are drawn: a
// product whose name it cannot show goes by its id. It colours nothing: white is what matters, grey is what explains.
package crashscreen
