package image

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/keepout-security/keepout/internal/recovery/initramfs"
	"github.com/keepout-security/keepout/internal/recovery/modindex"
)

const maxModule = 32 << 20 // bytes of one module, unpacked

// always are loaded whatever the devices: file systems, keys, the firmware's variables and panic logs.
func always() []string {
	return []string{
		"vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8", "efivarfs", "efi_pstore", "evdev", "sd_mod",
	}
}

// carried are in every image although this machine may not need them: a disk that is moved to another machine, and
// virtual machines, which change their hardware with their host.
func carried() []string {
	return []string{
		"virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "nvme", "ahci", "xhci_pci", "ehci_pci", "usb_storage",
		"usbhid", "hid_generic", "atkbd", "i8042", "e1000", "e1000e", "erst_dbg",
	}
}

// useful are the folders of modules that serve what the environment needs: disks, wired networks, keyboards. Sound,
// graphics and wireless modules of the machine stay out.
func useful() []string {
	return []string{
		"drivers/ata/", "drivers/block/", "drivers/nvme/", "drivers/scsi/", "drivers/message/", "drivers/virtio/",
		"drivers/mmc/", "drivers/hid/", "drivers/input/", "drivers/usb/host/", "drivers/usb/storage/",
		"drivers/net/ethernet/", "drivers/net/virtio_net", "drivers/net/vmxnet3/", "drivers/net/xen-netfront",
		"drivers/net/phy/", "drivers/net/hyperv/", "drivers/hv/", "drivers/pci/controller/", "drivers/firmware/",
		"drivers/char/hw_random/virtio",
	}
}

// choose reads the kernel's modules and takes those that an image for this machine needs, unpacked but not changed.
func choose(s *Source, release string) ([]initramfs.File, modindex.Index, error) {
	index := modindex.Index{Release: release}
	if base := filepath.Base(s.Modules); base != release {
		return nil, index, fmt.Errorf("the kernel is %s, the modules are of %s", release, base)
	}
	all, paths, err := survey(s.Modules)
	if err != nil {
		return nil, index, err
	}
	wanted := slices.Concat(always(), carried(), s.Extra)
	if len(s.Settings.Network.Links) > 0 {
		wanted = append(wanted, "8021q")
	}
	var names []string
	for i := range all {
		m := &all[i]
		m.Always = slices.Contains(always(), m.Name) || slices.Contains(s.Extra, m.Name) || m.Name == "8021q"
		inUse := slices.ContainsFunc(useful(), func(p string) bool { return strings.HasPrefix(paths[m.Name], "kernel/"+p) })
		if slices.Contains(wanted, m.Name) || inUse && slices.ContainsFunc(s.Devices, m.Serves) {
			names = append(names, m.Name)
		}
	}
	whole := modindex.Index{Release: release, Modules: all}
	chosen, err := whole.Order(names)
	if err != nil {
		return nil, index, fmt.Errorf("modules: %w", err)
	}
	if err := haveFileSystem(s, chosen); err != nil {
		return nil, index, err
	}
	return load(s.Modules, chosen, paths, index)
}

// load reads the chosen modules and completes the index.
func load(
	folder string, chosen []modindex.Module, paths map[string]string, index modindex.Index,
) ([]initramfs.File, modindex.Index, error) {
	var files []initramfs.File
	for _, m := range chosen {
		data, err := readModule(filepath.Join(folder, paths[m.Name]))
		if err != nil {
			return nil, index, err
		}
		m.File = moduleFile(&m)
		index.Modules = append(index.Modules, m)
		files = append(files, initramfs.File{Name: m.File, Data: data})
	}
	slices.SortFunc(index.Modules, func(a, b modindex.Module) int { return strings.Compare(a.Name, b.Name) })
	return files, index, nil
}

// haveFileSystem makes sure that the boot state can be read: its file system is a module of the image or in the kernel.
func haveFileSystem(s *Source, chosen []modindex.Module) error {
	kind := s.Settings.Volume.Type
	if slices.ContainsFunc(chosen, func(m modindex.Module) bool { return m.Name == kind }) {
		return nil
	}
	builtin, err := os.ReadFile(filepath.Join(s.Modules, "modules.builtin"))
	if err != nil {
		return fmt.Errorf("read what the kernel has built in: %w", err)
	}
	for line := range strings.Lines(string(builtin)) {
		if modindex.Name(strings.TrimSpace(line)) == kind {
			return nil
		}
	}
	return fmt.Errorf("this kernel has no %s, on which the boot state lies; choose another place for it", kind)
}

// survey reads what every module says of itself. Only the folders of use are read in full: a distribution has
// thousands.
func survey(folder string) ([]modindex.Module, map[string]string, error) {
	var all []modindex.Module
	paths := map[string]string{}
	err := filepath.WalkDir(folder, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(folder, file)
		if err != nil || d.IsDir() || !isModule(name) {
			return err
		}
		data, err := readModule(file)
		if err != nil {
			return err
		}
		m, err := infoOf(bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if paths[m.Name] == "" {
			paths[m.Name] = filepath.ToSlash(name)
			all = append(all, m)
		}
		return nil
	})
	if err == nil && len(all) == 0 {
		err = errors.New("it holds none")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the modules in %s: %w", folder, err)
	}
	return all, paths, nil
}

func isModule(name string) bool {
	base := filepath.Base(name)
	at := strings.Index(base, ".ko")
	return at > 0 && slices.Contains([]string{".ko", ".ko.gz", ".ko.xz", ".ko.zst"}, base[at:])
}

// readModule unpacks a module; the signature at its end is of the unpacked bytes.
func readModule(file string) ([]byte, error) {
	packed, err := readBounded(file, maxModule)
	if err != nil {
		return nil, err
	}
	var r io.Reader
	switch filepath.Ext(file) {
	case ".gz":
		r, err = gzip.NewReader(bytes.NewReader(packed))
	case ".xz":
		r, err = xz.NewReader(bytes.NewReader(packed))
	case ".zst":
		var d *zstd.Decoder
		d, err = zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule))
		if err == nil {
			defer d.Close()
			r = d
		}
	default:
		return packed, nil
	}
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", file, err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(data) > maxModule {
		err = fmt.Errorf("it is larger than %d bytes", maxModule)
	}
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", file, err)
	}
	return data, nil
}

// pack compresses an archive as every kernel since 5.9 can unpack it. One goroutine: the same bytes every time.
func pack(archive []byte) ([]byte, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(8<<20), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("compress the archive: %w", err)
	}
	defer func() { _ = enc.Close() }() // EncodeAll has no stream to end
	return enc.EncodeAll(archive, nil), nil
}

func unpackArchive(packed []byte) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxContent))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return dec.DecodeAll(packed, nil)
}
