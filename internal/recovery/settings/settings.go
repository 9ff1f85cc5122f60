// Package settings is what the recovery image knows of its machine: made when the image is built, read by its init. It
// guarantees that whatever was read is within its bounds and names one file system, one server and one machine.
package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// Where the image has what it needs, from its root.
const (
	ConfigFile  = "keepout/config.json"
	RootsFile   = "keepout/roots.pem"    // certification authorities, one PEM block after the other
	TrustFile   = "keepout/trust.json"   // whose fixes this machine applies
	ModulesFile = "keepout/modules.json" // modindex
	// RecipientsFile holds the organisation's keys for diagnostics (age), one a line. It may be missing.
	RecipientsFile = "keepout/recipients.txt"
	ModulesDir     = "lib/modules"
)

// MaxConfig bounds the configuration, in bytes.
const MaxConfig = 256 << 10

// Config is what the image knows of its machine. It is made when the image is built.
type Config struct {
	Version int       `json:"version"` // 1
	Built   time.Time `json:"built"`   // no later time has ever been wrong: the clock is raised to it
	Kernel  string    `json:"kernel"`  // the release that the modules are for
	Machine string    `json:"machine"` // a pseudonym
	Volume  Volume    `json:"volume"`
	// Server is the control plane's address, https://…; empty: nobody is asked and the local rule acts.
	Server string `json:"server,omitempty"`
	// Diagnostics is the level of the bundles: off, minimal or full (empty).
	Diagnostics string `json:"diagnostics,omitempty"`
	// Entries begins the names of this system's entries of systemd-boot, which are counted again after a repair.
	Entries string `json:"entries,omitempty"`
	// Boot is a second file system with such entries (XBOOTLDR of the Boot Loader Specification); zero: there is none.
	// Dir is where on it "loader" and "EFI" lie, "." as a rule.
	Boot Volume `json:"boot,omitzero"`
	// Products are what people call the providers, by id.
	Products map[string]string `json:"products,omitempty"`
	Network  Network           `json:"network,omitzero"`

	RetryMinutes   int  `json:"retry_interval_minutes,omitempty"` // 1 to 4320; 0: 30
	TotalMinutes   int  `json:"total_wait_minutes,omitempty"`     // 1 to 4320; 0: 180
	NetworkSeconds int  `json:"network_wait_seconds,omitempty"`   // 1 to 3600; 0: 60
	OneScan        bool `json:"one_scan,omitempty"`
}

// Volume is the file system on which Keepout's boot state lies: the EFI system partition or /boot.
type Volume struct {
	Type string `json:"type"` // vfat or ext4
	ID   string `json:"id"`   // as blkid shows it: "1A2B-3C4D", or a UUID
	Dir  string `json:"dir"`  // Keepout's folder there: "keepout"
}

// Network is what cannot be learnt by DHCP.
type Network struct {
	Proxy string `json:"proxy,omitempty"` // http://host:port
	// Links are configured first; every other wired one is tried with DHCP.
	Links []Link `json:"links,omitempty"`
}

// Link is one network card with fixed settings.
type Link struct {
	MAC       string       `json:"mac"`
	VLAN      int          `json:"vlan,omitempty"`   // 1 to 4094; 0: none
	Address   netip.Prefix `json:"address,omitzero"` // zero: DHCP
	Gateway   netip.Addr   `json:"gateway,omitzero"`
	Resolvers []netip.Addr `json:"resolvers,omitempty"`
}

// Parse reads and checks a configuration. Unknown fields are an error: image and init are built together.
func Parse(data []byte) (Config, error) {
	var c Config
	if len(data) > MaxConfig {
		return c, fmt.Errorf("%d bytes, limit %d", len(data), MaxConfig)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return Config{}, fmt.Errorf("decode the configuration: %w", err)
	}
	if err := c.Check(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Check reports what is wrong with a configuration.
func (c *Config) Check() error {
	switch {
	case c.Version != 1:
		return fmt.Errorf("version %d is not known", c.Version)
	case c.Machine == "" || len(c.Machine) > 128:
		return errors.New("the machine has no pseudonym")
	case c.Volume.Type != "vfat" && c.Volume.Type != "ext4":
		return fmt.Errorf("the boot state lies on %q; want vfat or ext4", c.Volume.Type)
	case c.Volume.ID == "":
		return errors.New("the file system with the boot state has no identity")
	case c.Volume.Dir == "" || strings.Contains(c.Volume.Dir, "..") || strings.HasPrefix(c.Volume.Dir, "/"):
		return fmt.Errorf("folder %q is not below the file system's root", c.Volume.Dir)
	}
	if b := c.Boot; b != (Volume{}) && (b.Type != "vfat" && b.Type != "ext4" || b.ID == "" || !filepath.IsLocal(b.Dir)) {
		return fmt.Errorf("boot: %q %q %q is no file system that can be read", b.Type, b.ID, b.Dir)
	}
	for _, address := range []string{c.Server, c.Network.Proxy} {
		if err := checkAddress(address); err != nil {
			return err
		}
	}
	if c.Server != "" && !strings.HasPrefix(c.Server, "https://") {
		return fmt.Errorf("server %q: want https", c.Server)
	}
	for _, l := range c.Network.Links {
		if l.VLAN < 0 || l.VLAN > 4094 {
			return fmt.Errorf("VLAN %d: want 1 to 4094", l.VLAN)
		}
	}
	return nil
}

func checkAddress(address string) error {
	if address == "" {
		return nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("%q is no address of a server", address)
	}
	return nil
}
