//go:build linux

package arming

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/recovery/loader"
	"github.com/keepout-security/keepout/internal/testenv"
)

var update = flag.Bool("update-plans", false, "write testdata/*.golden")

const (
	mine   = "0123456789abcdef0123456789abcdef"
	theirs = "fedcba9876543210fedcba9876543210"
)

// debian is what every fixture has.
func debian(more map[string]string) map[string]string {
	files := map[string]string{
		"etc/machine-id": mine + "\n", "lib/systemd/systemd": "elf", "etc/systemd/system/keepoutd.service": "[Unit]\n",
	}
	for name, text := range more {
		files[name] = text
	}
	return files
}

func grubSystem(more map[string]string) map[string]string {
	files := debian(map[string]string{
		"boot/grub/grub.cfg":              "menuentry 'Debian' $menuentry_id_option 'gnulinux-simple-1' {\n}\n",
		"etc/grub.d/10_linux":             "#!/bin/sh\n",
		"usr/sbin/update-grub":            "#!/bin/sh\n",
		"usr/sbin/grub-mkconfig":          "for x in ${sysconfdir}/default/grub.d/*.cfg ; do\n",
		"boot/efi/EFI/debian/grubx64.efi": "elf",
	})
	for name, text := range more {
		files[name] = text
	}
	return files
}

// fixKey is a person's key, the same in every run.
func fixKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// pemOf are the public keys as OpenSSL writes them.
func pemOf(keys ...ed25519.PrivateKey) string {
	var text []byte
	for _, key := range keys {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			panic(err) // an Ed25519 key can always be written
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	return string(text)
}

// efiText is a variable of the firmware as efivarfs shows it.
func efiText(text string) string {
	out := []byte{7, 0, 0, 0}
	for _, b := range []byte(text + "\x00") {
		out = append(out, b, 0)
	}
	return string(out)
}

func entry(owner string) string {
	return "title      Debian\nversion    6.1\nmachine-id " + owner + "\nsort-key   debian\n" +
		"options    root=UUID=1 ro quiet\nlinux      /" + owner + "/6.1/linux\n"
}

func sdSystem(more map[string]string) map[string]string {
	files := debian(map[string]string{
		"efi/EFI/systemd/systemd-bootx64.efi":      "elf",
		"efi/loader/entries/" + mine + "-6.1.conf": entry(mine),
		"etc/kernel/cmdline":                       "root=UUID=1 ro quiet\n",
	})
	for name, text := range more {
		files[name] = text
	}
	return files
}

// fixtures are the systems of the table.
func fixtures() map[string]struct {
	files map[string]string
	opt   Options
} {
	type system = struct {
		files map[string]string
		opt   Options
	}
	osprober := "menuentry 'Windows Boot Manager (on /dev/sda1)' $menuentry_id_option 'osprober-efi-1' {\n}\n"
	return map[string]system{
		"grub":           {files: grubSystem(nil)},
		"grub-own-panic": {files: grubSystem(map[string]string{"etc/default/grub": "GRUB_CMDLINE_LINUX=\"panic=60\"\n"})},
		"grub-windows": {
			files: grubSystem(map[string]string{"boot/grub/grub.cfg": osprober}), opt: Options{Installation: mine},
		},
		"systemd-boot": {files: sdSystem(nil)},
		"systemd-boot-counting": {files: sdSystem(map[string]string{
			"efi/loader/entries/" + mine + "-6.1.conf": "", "efi/loader/entries/" + mine + "-6.1+2-1.conf": entry(mine),
		})},
		"systemd-boot-uki": {files: sdSystem(map[string]string{
			"efi/EFI/Linux/" + mine + "-6.1.efi": "MZ\x00", "efi/EFI/Linux/somebody.efi": "MZ",
		})},
		"systemd-boot-two": {
			files: sdSystem(map[string]string{"efi/loader/entries/" + theirs + "-6.1.conf": entry(theirs)}),
			opt:   Options{Installation: mine},
		},
		"grub-keys": {files: grubSystem(map[string]string{
			"etc/keepout/fix-keys/organisation.pem": pemOf(fixKey("ada"), fixKey("bob")),
			"etc/keepout/fix-keys/acme-av.pem":      pemOf(fixKey("acme")),
		})},
		"grub-panic-screen": {files: grubSystem(map[string]string{
			"boot/config-6.1.0":  "CONFIG_DRM=y\n# CONFIG_DRM_PANIC is not set\n",
			"boot/config-6.12.9": "CONFIG_DRM_PANIC=y\nCONFIG_DRM_PANIC_SCREEN_QR_CODE=y\n",
			"etc/default/grub":   "# panic=0 would keep it there\nGRUB_CMDLINE_LINUX=\"quiet\"\n",
		})},
		"systemd-boot-old": {files: sdSystem(map[string]string{
			"sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f": efiText("systemd-boot 247.3-7"),
		})},
		"systemd-boot-unified-recovery": {files: sdSystem(map[string]string{
			"efi/keepout/recovery-a.efi": "MZ", "efi/keepout/recovery-b.efi": "MZ",
		})},
		"systemd-boot-xbootldr": {files: debian(map[string]string{
			"efi/EFI/systemd/systemd-bootx64.efi":       "elf",
			"boot/loader/entries/" + mine + "-6.1.conf": entry(mine), "boot/EFI/Linux/" + mine + "-6.2.efi": "MZ\x00",
		})},
		"unknown-loader": {files: debian(nil)},
		"no-systemd":     {files: map[string]string{"etc/machine-id": mine + "\n"}},
	}
}

func build(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		if text == "" {
			continue
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// tree is everything below root: names, modes, bytes and links.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		info, err := e.Info()
		switch {
		case err != nil:
			return err
		case e.IsDir():
			out[name] = "folder"
		case info.Mode()&fs.ModeSymlink != 0:
			out[name], err = os.Readlink(path)
		default:
			var data []byte
			data, err = os.ReadFile(path)
			out[name] = info.Mode().String() + " " + string(data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// forRecord reports whether a folder is one in which the record lies, or lay.
func forRecord(name string) bool {
	return slices.Contains([]string{"/var", "/var/lib", "/var/lib/keepout", filepath.Dir(recordPath)}, name)
}

func differences(a, b map[string]string) (out []string) {
	for name := range a {
		if b[name] != a[name] {
			out = append(out, name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func plan(t *testing.T, root string, opt Options) *Plan {
	t.Helper()
	opt.Root, opt.Bin = root, "/usr/lib/keepout"
	p, err := Arm(opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestArmAndBack: each system's plan is as the golden file shows it, changes nothing before it is applied, changes what
// it showed and nothing else, nothing the second time, and is taken back to the byte.
func TestArmAndBack(t *testing.T) {
	t.Parallel()
	for name, c := range fixtures() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := build(t, c.files)
			before := tree(t, root)
			p := plan(t, root, c.opt)
			golden(t, name, p.Text())
			if d := differences(before, tree(t, root)); len(d) > 0 {
				t.Fatalf("planning changed %v", d)
			}
			if err := p.Apply(); err != nil {
				t.Fatal(err)
			}
			onlyShown(t, p, differences(before, tree(t, root)))
			if again := plan(t, root, c.opt); !again.Empty() || len(again.Commands) > 0 {
				t.Errorf("armed twice:\n%s", again.Text())
			}
			if armed, err := Armed(root); !armed || err != nil {
				t.Errorf("armed: %v, %v", armed, err)
			}
			back, err := Disarm(Options{Root: root})
			if err != nil || len(back.Notes) > 0 {
				t.Fatalf("%v %v", err, back.Notes)
			}
			if err := back.Apply(); err != nil {
				t.Fatal(err)
			}
			left := differences(before, tree(t, root))
			left = slices.DeleteFunc(left, forRecord)
			if len(left) > 0 {
				t.Errorf("not as before: %v", left)
			}
			if armed, err := Armed(root); armed || err != nil {
				t.Errorf("still armed: %v", err)
			}
		})
	}
}

// onlyShown checks that whatever changed was in the plan.
func onlyShown(t *testing.T, p *Plan, changed []string) {
	t.Helper()
	shown := map[string]bool{recordPath: true}
	for _, c := range p.Changes {
		shown[c.Path] = true
		if c.To != "" {
			shown[filepath.Join(filepath.Dir(c.Path), c.To)] = true
		}
	}
	for _, name := range changed {
		folder := slices.ContainsFunc(p.Changes, func(c Change) bool { return strings.HasPrefix(c.Path, name+"/") })
		if !shown[name] && !folder && !strings.HasPrefix(recordPath, name) {
			t.Errorf("%s was changed and not shown", name)
		}
	}
}

func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != text {
		t.Errorf("%s is not the plan (%v); see -update-plans:\n%s", file, err, text)
	}
}

// TestDisarmAfterBoots: the loader has counted in an entry's name, and the state has been written to, and all the same
// everything is taken back.
func TestDisarmAfterBoots(t *testing.T) {
	t.Parallel()
	root := build(t, sdSystem(nil))
	before := tree(t, root)
	if err := plan(t, root, Options{}).Apply(); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(root, "efi", "loader", "entries")
	for from, to := range map[string]string{
		mine + "-6.1+3.conf": mine + "-6.1+1-2.conf", "-keepout-recovery-2+1.conf": "-keepout-recovery-2+0-1.conf",
	} {
		if err := os.Rename(filepath.Join(folder, from), filepath.Join(folder, to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "efi", "keepout", "state-a.json"), []byte("counted"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := plan(t, root, Options{}); !again.Empty() {
		t.Errorf("armed again:\n%s", again.Text())
	}
	back, err := Disarm(Options{Root: root})
	if err != nil || len(back.Notes) > 0 {
		t.Fatalf("%v %v", err, back.Notes)
	}
	if err := back.Apply(); err != nil {
		t.Fatal(err)
	}
	for _, name := range differences(before, tree(t, root)) {
		if !forRecord(name) {
			t.Errorf("%s is not as before", name)
		}
	}
}

// TestDisarmLeavesOthersChanges: what somebody else changed since stays, is named, and stays on record.
func TestDisarmLeavesOthersChanges(t *testing.T) {
	t.Parallel()
	root := build(t, sdSystem(nil))
	if err := plan(t, root, Options{}).Apply(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "etc", "kernel", "cmdline")
	if err := os.WriteFile(file, []byte("mine now\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	back, err := Disarm(Options{Root: root})
	if err != nil || len(back.Notes) != 1 || !strings.Contains(back.Notes[0], "/etc/kernel/cmdline") {
		t.Fatalf("%v %v", err, back.Notes)
	}
	if err := back.Apply(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); string(text) != "mine now\n" || err != nil {
		t.Errorf("%q %v", text, err)
	}
	if armed, err := Armed(root); !armed || err != nil {
		t.Errorf("forgotten: %v", err)
	}
}

// TestTwoInstallations: it asks which one is meant, and changes nothing before that.
func TestTwoInstallations(t *testing.T) {
	t.Parallel()
	two := fixtures()
	for name, c := range map[string]struct {
		files map[string]string
		named string
		found string
	}{
		"systemd-boot, none named":    {two["systemd-boot-two"].files, "", theirs},
		"systemd-boot, unknown named": {two["systemd-boot-two"].files, strings.Repeat("0", 32), mine},
		"GRUB and Windows":            {two["grub-windows"].files, "", "Windows Boot Manager (on /dev/sda1)"},
		"GRUB, another named":         {two["grub-windows"].files, theirs, "Windows"},
	} {
		root := build(t, c.files)
		before := tree(t, root)
		_, err := Arm(Options{Root: root, Bin: "/b", Installation: c.named})
		var which *WhichError
		if !errors.As(err, &which) || !strings.Contains(which.Error(), c.found) {
			t.Errorf("%s: %v", name, err)
		}
		if d := differences(before, tree(t, root)); len(d) > 0 {
			t.Errorf("%s: changed %v", name, d)
		}
	}
}

// TestAChangeInBetween: a file that changes between the plan and its application is not overwritten.
func TestAChangeInBetween(t *testing.T) {
	t.Parallel()
	root := build(t, sdSystem(nil))
	p := plan(t, root, Options{})
	file := filepath.Join(root, "etc", "kernel", "cmdline")
	if err := os.WriteFile(file, []byte("just changed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(); err == nil || !strings.Contains(err.Error(), "plan again") {
		t.Errorf("%v", err)
	}
	back, err := Disarm(Options{Root: root})
	if err != nil || back.Empty() {
		t.Fatalf("what was changed is not remembered: %v", err)
	}
}

func TestKernelParameters(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"":                               " panic=10 systemd.crash_reboot=1",
		"ro quiet":                       "ro quiet panic=10 systemd.crash_reboot=1",
		"panic=60 ro":                    "panic=60 ro systemd.crash_reboot=1",
		"panic=5 systemd.crash_reboot=0": "panic=5 systemd.crash_reboot=0",
		"panic_on_oops=1":                "panic_on_oops=1 panic=10 systemd.crash_reboot=1",
	} {
		if got := withParameters(line, Parameters()); got != want {
			t.Errorf("%q: %q", line, got)
		}
	}
}

// tenLinux is what 10_linux has written before.
const tenLinux = `menuentry 'Debian' --class os $menuentry_id_option 'gnulinux-simple-1' {
	load_video
	linux	/boot/vmlinuz-6.1 root=UUID=1
	initrd	/boot/initrd-6.1
}
submenu 'Advanced' $menuentry_id_option 'gnulinux-advanced-1' {
	menuentry 'Debian 6.1' $menuentry_id_option 'gnulinux-6.1-advanced-1' {
		linux	/boot/vmlinuz-6.1 single
	}
}
`

// TestGrubScript lets GRUB's own parser check what the script adds to grub.cfg, as grub-mkconfig would run it.
func TestGrubScript(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.GRUB)
	root := build(t, grubSystem(nil))
	if err := plan(t, root, Options{}).Apply(); err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(root, "lib-grub")
	if err := os.MkdirAll(lib, 0o700); err != nil {
		t.Fatal(err)
	}
	// What grub-mkconfig_lib offers, without a disk to look at.
	stand := "make_system_path_relative_to_its_root() { echo /keepout; }\n" +
		"prepare_grub_to_access_device() { echo \"insmod part_gpt\"; echo \"set root='hd0,gpt1'\"; }\ngrub_probe=echo\n"
	if err := os.WriteFile(filepath.Join(lib, "grub-mkconfig_lib"), []byte(stand), 0o600); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(root, "etc", "grub.d", "42_keepout"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(script), "dir='/boot/efi/keepout'", "dir='"+root+"/boot/efi/keepout'", 1)
	// grub-mkconfig writes one file, to which each script adds its part.
	file := filepath.Join(root, "grub.cfg.new")
	if err := os.WriteFile(file, []byte(tenLinux), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "exec >> "+file+"\n"+text)
	cmd.Env = append(os.Environ(), "pkgdatadir="+lib)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cfg, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(cfg), "linux /keepout/vmlinuz-a ") {
		t.Fatalf("%v\n%s", err, cfg)
	}
	counted := "--id keepout-start  {\n\tload_video\n\tlinux\t/boot/vmlinuz-6.1 root=UUID=1\n" +
		"\tinitrd\t/boot/initrd-6.1\n  boot\n"
	if !strings.Contains(string(cfg), counted) {
		t.Errorf("the counted entry is not the system's own:\n%s", cfg)
	}
	check := exec.Command("grub-script-check")
	check.Stdin = strings.NewReader(string(cfg))
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("grub-script-check: %v: %s\n%s", err, out, cfg)
	}
	for _, name := range []string{loader.EnvLeft, loader.EnvVisits, loader.EnvNext} {
		if !strings.Contains(string(cfg), "${"+name+"}") {
			t.Errorf("the script does not know %s", name)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"loader":"GRUB","files":[{"path":"/etc/x","to":"y","after":{"data":"eA=="}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil {
			return
		}
		for _, e := range r.Files {
			if strings.Contains(e.name(), "..") && !strings.Contains(filepath.Base(e.name()), "..") {
				t.Fatalf("it leads out of the root: %q", e.name())
			}
		}
	})
}
