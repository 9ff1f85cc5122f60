// Package cli is the keepout command: subcommands, their output and exit codes.
//
// Every command that prints data has -o json with stable field names. Colour appears only on a terminal and
// never where NO_COLOR is set.
package cli
