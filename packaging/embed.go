// Package packaging holds the files that a system needs around the program: units of systemd, and GRUB's part of the
// boot counter. They are templates: @BIN@ stands for the folder of Keepout's programs, @DIR@ for Keepout's folder on
// the ESP or /boot.
package packaging

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed systemd grub motd
var files embed.FS

// Units lists the names of the units and drop-ins, below a folder such as /etc/systemd/system.
func Units() []string {
	return []string{
		"keepout-bootguard.service", "keepout-boot-good.service", "keepout-boot-deadline.service",
		"keepout-boot-deadline.timer", "keepout-revocations.service", "keepout-revocations.path",
		"sysinit.target.d/keepout.conf",
	}
}

// Unit returns one of the units.
func Unit(name, bin string) []byte {
	return fill("systemd/"+strings.ReplaceAll(name, ".d/keepout.conf", ".keepout.conf"), "@BIN@", bin)
}

// Daemon returns the unit of keepoutd, for keepoutd.service.
func Daemon(bin string) []byte { return fill("systemd/keepoutd.service", "@BIN@", bin) }

// Fetch returns the unit of keepout-fetch, for keepout-fetch.service. It is no part of Units: a machine may have a
// control plane and no boot counter, or the other way round.
func Fetch(bin string) []byte { return fill("systemd/keepout-fetch.service", "@BIN@", bin) }

// Login returns the script for /etc/update-motd.d, which tells those who log in about a recent failure to start.
func Login(bin string) []byte { return fill("motd/60-keepout", "@BIN@", bin) }

// Bless returns the drop-in that leaves the judgement of a boot to Keepout, for systemd-bless-boot.service.
func Bless() []byte { return fill("systemd/systemd-bless-boot.service.keepout.conf") }

// Pstore returns the drop-in for pstore.conf.
func Pstore() []byte { return fill("systemd/pstore.keepout.conf") }

// Grub returns the script for /etc/grub.d.
func Grub(dir string) []byte { return fill("grub/42_keepout", "@DIR@", dir) }

func fill(name string, replace ...string) []byte {
	text, err := fs.ReadFile(files, name)
	if err != nil {
		panic(err) // the file is part of this program
	}
	return []byte(strings.NewReplacer(replace...).Replace(string(text)))
}
