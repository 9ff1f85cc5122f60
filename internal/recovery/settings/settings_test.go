package settings

import (
	"encoding/json"
	"testing"
)

func valid() Config {
	return Config{
		Version: 1, Machine: "m", Server: "https://fleet.example.org",
		Volume: Volume{Type: "vfat", ID: "1-2", Dir: "keepout"},
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *Config){
		"":               func(*Config) {},
		"version":        func(c *Config) { c.Version = 2 },
		"machine":        func(c *Config) { c.Machine = "" },
		"file system":    func(c *Config) { c.Volume.Type = "btrfs" },
		"identity":       func(c *Config) { c.Volume.ID = "" },
		"folder outside": func(c *Config) { c.Volume.Dir = "../etc" },
		"plain http":     func(c *Config) { c.Server = "http://fleet.example.org" },
		"no address":     func(c *Config) { c.Server = "https://" },
		"proxy":          func(c *Config) { c.Network.Proxy = "socks5://x" },
		"VLAN":           func(c *Config) { c.Network.Links = []Link{{VLAN: 5000}} },
	} {
		c := valid()
		change(&c)
		if err := c.Check(); (err == nil) != (name == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIdentityOf(t *testing.T) {
	t.Parallel()
	fat32 := make([]byte, 4096)
	fat32[510], fat32[511] = 0x55, 0xaa
	copy(fat32[0x52:], "FAT32   ")
	copy(fat32[0x43:], "\x50\x45\x45\x4b")
	ext4 := make([]byte, 4096)
	ext4[1024+0x38], ext4[1024+0x39] = 0x53, 0xef
	copy(ext4[1024+0x68:], "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10")
	for _, c := range []struct {
		head []byte
		kind string
		want string
	}{
		{fat32, "vfat", "4B45-4550"},
		{ext4, "ext4", "01020304-0506-0708-090a-0b0c0d0e0f10"},
		{fat32, "ext4", ""},
		{ext4, "vfat", ""},
		{make([]byte, 4096), "vfat", ""},
		{fat32, "btrfs", ""},
	} {
		if got, err := identityOf(c.head, c.kind); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", c.kind, got, err, c.want)
		}
	}
}

func TestMountOf(t *testing.T) {
	t.Parallel()
	const table = "22 1 8:2 / / rw - ext4 /dev/sda2 rw\n30 22 8:1 / /boot/efi rw shared:1 - vfat /dev/sda1 rw\nbroken\n"
	if m := mountOf(table, "/boot/efi/keepout"); m.kind != "vfat" || m.source != "/dev/sda1" || m.point != "/boot/efi" {
		t.Errorf("%+v", m)
	}
	if m := mountOf(table, "/boot/efix"); m.kind != "ext4" {
		t.Errorf("%+v", m)
	}
}

func FuzzParse(f *testing.F) {
	text, err := json.Marshal(valid())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := Parse(data); err == nil && c.Check() != nil {
			t.Fatalf("accepted %+v", c)
		}
	})
}
