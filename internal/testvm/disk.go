package testvm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The layout of every disk, in sectors of 512 bytes: GRUB's core on a BIOS machine, then the EFI system partition.
const (
	sector     = 512
	grubStart  = 2048
	grubSize   = 2048
	espStart   = 4096
	espMiB     = 128
	espSectors = espMiB * mib / sector
	bootStart  = espStart + espSectors // of the extended boot loader partition, where there is one; as large as the ESP
	tail       = 2048                  // the second copy of the partition table
)

// EFIVolume is the serial number of the EFI system partition on every test disk, as blkid shows it, and BootVolume that
// of the extended boot loader partition.
const (
	EFIVolume  = "4B45-4550"
	BootVolume = "4B45-4558"
)

// Disk is one FAT partition of a disk image: the EFI system partition, or another one of the same file.
type Disk struct {
	File  string
	t     testing.TB
	start int // of the partition, in sectors
}

// NewDisk makes a disk whose EFI system partition holds the files, by their paths.
func NewDisk(t testing.TB, files map[string][]byte) *Disk {
	t.Helper()
	d := newDisk(t, bootStart+tail, "")
	d.format(EFIVolume, files)
	return d
}

// NewDiskWithBoot makes a disk with an extended boot loader partition (XBOOTLDR of the Boot Loader Specification)
// beside the EFI system partition.
func NewDiskWithBoot(t testing.TB, efi, files map[string][]byte) (disk, boot *Disk) {
	t.Helper()
	disk = newDisk(t, bootStart+espSectors+tail,
		fmt.Sprintf("start=%d, size=%d, type=BC13C2FF-59E6-4262-A352-B275FD6F7172\n", bootStart, espSectors))
	disk.format(EFIVolume, efi)
	boot = &Disk{File: disk.File, t: t, start: bootStart}
	boot.format(BootVolume, files)
	return disk, boot
}

// newDisk makes a disk with a partition table, in which more partitions can stand, as sfdisk writes them.
func newDisk(t testing.TB, sectors int64, more string) *Disk {
	t.Helper()
	d := &Disk{File: filepath.Join(t.TempDir(), "disk.img"), t: t, start: espStart}
	if err := os.WriteFile(d.File, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.File, sectors*sector); err != nil {
		t.Fatal(err)
	}
	table := fmt.Sprintf("label: gpt\nstart=%d, size=%d, type=21686148-6449-6E6F-744E-656564454649\n"+
		"start=%d, size=%d, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n", grubStart, grubSize, espStart, espSectors)
	d.run(table+more, "sfdisk", "--quiet", "--no-reread", d.File)
	return d
}

func (d *Disk) format(volume string, files map[string][]byte) {
	d.t.Helper()
	serial := strings.ReplaceAll(volume, "-", "")
	d.run("", "mformat", "-i", d.at(), "-F", "-N", serial, "-T", strconv.Itoa(espSectors), "::")
	for _, name := range sortedNames(files) {
		d.Put(name, files[name])
	}
}

func sortedNames(files map[string][]byte) []string {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// at is how mtools name the partition.
func (d *Disk) at() string { return d.File + "@@" + strconv.Itoa(d.start*sector) }

// Put writes a file to the partition while no machine runs, and makes its folders.
func (d *Disk) Put(name string, content []byte) {
	d.t.Helper()
	for i := range name {
		if name[i] == '/' {
			d.mayFail("mmd", "-i", d.at(), "-D", "s", "::"+name[:i])
		}
	}
	file := filepath.Join(d.t.TempDir(), path.Base(name))
	if err := os.WriteFile(file, content, 0o600); err != nil {
		d.t.Fatal(err)
	}
	d.run("", "mcopy", "-o", "-i", d.at(), file, "::"+name)
}

// Fill takes all room that the partition has left.
func (d *Disk) Fill() {
	d.t.Helper()
	out, err := exec.CommandContext(d.t.Context(), "mdir", "-i", d.at(), "::").Output()
	if err != nil {
		d.t.Fatalf("list the disk: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	left, _, found := strings.Cut(lines[len(lines)-1], "bytes free")
	free, err := strconv.Atoi(strings.ReplaceAll(strings.TrimSpace(left), " ", "")) // "126 345 600 bytes free"
	if !found || err != nil {
		d.t.Fatalf("how much is free? %q", lines[len(lines)-1])
	}
	d.Put("filler", make([]byte, free))
}

// Get reads a file of the partition while no machine runs; ok is false when it is not there.
func (d *Disk) Get(name string) (content []byte, ok bool) {
	d.t.Helper()
	file := filepath.Join(d.t.TempDir(), "got")
	cmd := exec.CommandContext(d.t.Context(), "mcopy", "-n", "-i", d.at(), "::"+name, file)
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "not found") || strings.Contains(string(out), "No such file") {
			return nil, false
		}
		d.t.Fatalf("read %s of the disk: %v\n%s", name, err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		d.t.Fatal(err)
	}
	return content, true
}

// List lists the names in a folder of the partition.
func (d *Disk) List(folder string) []string {
	d.t.Helper()
	out, err := exec.CommandContext(d.t.Context(), "mdir", "-b", "-i", d.at(), "::"+folder).CombinedOutput()
	if err != nil {
		return nil
	}
	var names []string
	for line := range strings.FieldsSeq(string(out)) {
		names = append(names, path.Base(strings.TrimPrefix(line, "::")))
	}
	return names
}

func (d *Disk) run(stdin, name string, args ...string) {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1", "LC_ALL=C", "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func (d *Disk) mayFail(name string, args ...string) {
	_ = exec.CommandContext(d.t.Context(), name, args...).Run()
}

// Where Debian's grub-pc-bin has GRUB for BIOS machines.
const grubFolder = "/usr/lib/grub/i386-pc"

// InstallGRUB makes the disk start with GRUB, which reads config from its core: no menu file of a distribution.
func (d *Disk) InstallGRUB(config string) {
	d.t.Helper()
	dir := d.t.TempDir()
	early, core := filepath.Join(dir, "early.cfg"), filepath.Join(dir, "core.img")
	if err := os.WriteFile(early, []byte(config), 0o600); err != nil {
		d.t.Fatal(err)
	}
	d.run("", "grub-mkimage", append([]string{"-O", "i386-pc", "-p", "/", "-c", early, "-o", core},
		grubModules()...)...)
	boot, err := os.ReadFile(filepath.Join(grubFolder, "boot.img"))
	if err != nil {
		d.t.Fatal(err)
	}
	image, err := os.ReadFile(core)
	if err != nil {
		d.t.Fatal(err)
	}
	if len(image) > grubSize*sector {
		d.t.Fatalf("GRUB's core has %d bytes, its partition %d", len(image), grubSize*sector)
	}
	// What grub-install does: the boot sector says where the core begins, the core's first sector where it goes on.
	const kernelSector, nextSector, bootCode = 0x5c, 0x1f4, 440
	put64(boot[kernelSector:], grubStart)
	put64(image[nextSector:], grubStart+1)
	f, err := os.OpenFile(d.File, os.O_RDWR, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for at, data := range map[int64][]byte{0: boot[:bootCode], grubStart * sector: image} {
		if _, err := f.WriteAt(data, at); err != nil {
			d.t.Fatal(err)
		}
	}
}

func put64(to []byte, v uint64) {
	for i := range 8 {
		to[i] = byte(v >> (8 * i))
	}
}

func grubModules() []string {
	return []string{
		"biosdisk", "part_gpt", "fat", "normal", "linux", "loadenv", "test", "search", "search_fs_file",
		"search_fs_uuid", "configfile",
		"ext2", "echo", "reboot", "sleep", "serial", "terminal", "regexp", "minicmd", "halt",
	}
}

// Copy copies the disk of a machine that does not run, for a machine of another test.
func (d *Disk) Copy(t testing.TB) *Disk {
	t.Helper()
	return &Disk{File: CopyDisk(t, d.File), t: t, start: d.start}
}

// Find returns where in the raw image some bytes are, -1 when they are nowhere.
func (d *Disk) Find(what []byte) int64 {
	d.t.Helper()
	content, err := os.ReadFile(d.File)
	if err != nil {
		d.t.Fatal(err)
	}
	return int64(bytes.Index(content, what))
}

// Contains reports whether the raw image holds some bytes, wherever: what must not be on a disk is on none of it.
func (d *Disk) Contains(what []byte) bool {
	d.t.Helper()
	return d.Find(what) >= 0
}
