package diagnostics

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Bounds of what is read, in bytes.
const (
	maxSmallFile = 64 << 10
	maxListFile  = 1 << 20   // /proc/modules
	maxRecords   = 512       // pstore records
	maxRecord    = 256 << 10 // one of them
	maxLog       = 16 << 20  // a panic log altogether
)

// Gather reads what the running kernel and its file system tell, below root, normally os.DirFS("/"). What is not
// there is left out: diagnostics are for machines on which something is wrong. owner names the package that a path
// belongs to, or is nil.
func Gather(root fs.FS, owner func(path string) string) Input {
	in := Input{MachineID: firstLine(root, "etc/machine-id")}
	in.Versions.Kernel = firstLine(root, "proc/sys/kernel/osrelease")
	in.Versions.System = systemName(small(root, "etc/os-release"))
	in.Known.Hosts = hostNames(root)
	in.Known.Users = people(small(root, "etc/passwd"))
	in.Known.Machines = []string{
		firstLine(root, "proc/sys/kernel/random/boot_id"), firstLine(root, "sys/class/dmi/id/product_serial"),
		firstLine(root, "sys/class/dmi/id/board_serial"), firstLine(root, "sys/class/dmi/id/product_uuid"),
	}
	in.Taint = taints(firstLine(root, "proc/sys/kernel/tainted"))
	in.Modules = taintedModules(root, in.Versions.Kernel, owner)
	in.PanicLog = panicLog(root)
	return in
}

// bounded reads the beginning of a file.
func bounded(root fs.FS, name string, limit int64) []byte {
	f, err := root.Open(name)
	if err != nil {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	if err = errors.Join(err, f.Close()); err != nil && len(data) == 0 {
		return nil
	}
	return data
}

func small(root fs.FS, name string) []byte { return bounded(root, name, maxSmallFile) }

func firstLine(root fs.FS, name string) string {
	line, _, _ := bytes.Cut(small(root, name), []byte{'\n'})
	return strings.TrimSpace(string(line))
}

// hostNames are the kernel's and the configured one, and the first label of each.
func hostNames(root fs.FS) []string {
	names := []string{firstLine(root, "proc/sys/kernel/hostname"), firstLine(root, "etc/hostname")}
	out := make([]string, 0, 2*len(names))
	for _, name := range names {
		label, _, _ := strings.Cut(name, ".")
		out = append(out, name, label)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// The user ids of people, as login.defs(5) of all large distributions has them.
const (
	firstPerson = 1000
	lastPerson  = 60000
)

// people are the login names, real names and names of home folders in passwd(5).
func people(passwd []byte) []string {
	var out []string
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 7 {
			continue
		}
		if uid, err := strconv.Atoi(f[2]); err != nil || uid < firstPerson || uid > lastPerson {
			continue
		}
		full, _, _ := strings.Cut(f[4], ",")
		out = append(out, f[0], full)
		out = append(out, strings.Fields(full)...)
		if home := path.Base(f[5]); home != "." && home != "/" {
			out = append(out, home)
		}
	}
	return out
}

func systemName(release []byte) string {
	for line := range strings.Lines(string(release)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(value, `"'`)
		}
	}
	return ""
}

// taintWords are the bits of /proc/sys/kernel/tainted (Documentation/admin-guide/tainted-kernels.rst), from the lowest.
func taintWords() []string {
	return []string{
		"P proprietary module", "F module was forced", "S out of specification", "R module was unloaded by force",
		"M machine check", "B bad page", "U asked for by user space", "D died (oops or BUG)", "A ACPI table overridden",
		"W warning", "C staging module", "I workaround for firmware", "O module from outside the kernel",
		"E unsigned module", "L soft lockup", "K live patched", "X distribution's own", "T struct layout randomised",
		"N test",
	}
}

func taints(text string) []string {
	value, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil
	}
	var out []string
	for bit, words := range taintWords() {
		if value&(1<<bit) != 0 {
			out = append(out, words)
		}
	}
	return out
}

// taintedModules are the loaded modules that taint the kernel: whose code is in it besides the distribution's.
func taintedModules(root fs.FS, release string, owner func(string) string) []Module {
	var out []Module
	files := map[string]string{}
	s := bufio.NewScanner(bytes.NewReader(bounded(root, "proc/modules", maxListFile)))
	for s.Scan() {
		f := strings.Fields(s.Text())
		// name size uses users state address (letters)
		if len(f) < 7 || !strings.HasPrefix(f[6], "(") {
			continue
		}
		m := Module{Name: f[0], Taint: strings.Trim(f[6], "()")}
		if len(files) == 0 {
			files = moduleFiles(bounded(root, path.Join("lib/modules", path.Base("/"+release), "modules.dep"), 8<<20))
		}
		m.Owner = moduleOwner(path.Join("/lib/modules", release, files[m.Name]), files[m.Name], owner)
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Module) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// moduleFiles maps the modules' names to their files in modules.dep.
func moduleFiles(dep []byte) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(string(dep)) {
		file, _, found := strings.Cut(line, ":")
		if !found {
			continue
		}
		name, _, _ := strings.Cut(path.Base(file), ".ko")
		out[strings.ReplaceAll(name, "-", "_")] = file
	}
	return out
}

func moduleOwner(full, file string, owner func(string) string) string {
	if file == "" {
		return "not in modules.dep"
	}
	if owner != nil {
		if name := owner(full); name != "" {
			return name
		}
	}
	if strings.HasPrefix(file, "updates/dkms/") {
		return "dkms"
	}
	return "no package"
}

// panicLog looks where a kernel's last words are kept, and takes the newest place that has some.
func panicLog(root fs.FS) []byte {
	if log := Pstore(root, "sys/fs/pstore"); len(log) > 0 {
		return log
	}
	// systemd-pstore(8) moves them here, each panic into a folder named after its time.
	dirs, err := fs.ReadDir(root, "var/lib/systemd/pstore")
	if err != nil {
		return nil
	}
	for _, d := range slices.Backward(dirs) {
		dir := path.Join("var/lib/systemd/pstore", d.Name())
		if text := bounded(root, path.Join(dir, "dmesg.txt"), maxLog); len(text) > 0 {
			return text
		}
		if log := Pstore(root, dir); len(log) > 0 {
			return log
		}
	}
	return nil
}

// record is one file of pstore: a part of a log. Part 1 is the end of the log.
type record struct {
	name        string
	kind        string // Panic or Oops
	count, part int
	text        []byte
}

var recordHead = regexp.MustCompile(`^(Panic|Oops|Emergency|Shutdown|Unknown)#(\d+) Part(\d+)\n`)

// Pstore puts the parts of the newest panic in a folder of pstore together: efi-pstore keeps one in records of about a
// kilobyte, ERST and ramoops in larger ones. A panic is preferred to an oops. Compressed records that the kernel could
// not read (.enc.z) are left out.
func Pstore(root fs.FS, dir string) []byte {
	names := newestNames(root, dir)
	records := make([]record, 0, len(names))
	for _, name := range names {
		text := bounded(root, path.Join(dir, name), maxRecord)
		r := record{name: name, text: text}
		if m := recordHead.FindSubmatch(text); m != nil {
			r.kind = string(m[1])
			r.count, _ = strconv.Atoi(string(m[2])) // too large a number is as good as none
			r.part, _ = strconv.Atoi(string(m[3]))
			r.text = text[len(m[0]):]
		}
		records = append(records, r)
	}
	if len(records) == 0 {
		return nil
	}
	newest := slices.MaxFunc(records, func(a, b record) int {
		return cmp.Or(rank(a.kind)-rank(b.kind), a.count-b.count, cmp.Compare(a.name, b.name))
	})
	var parts []record
	for _, r := range records {
		if r.kind == newest.kind && r.count == newest.count && (r.part > 0 || r.name == newest.name) {
			parts = append(parts, r)
		}
	}
	slices.SortFunc(parts, func(a, b record) int { return cmp.Or(b.part-a.part, cmp.Compare(a.name, b.name)) })
	var log []byte
	for _, r := range parts {
		if len(log) < maxLog {
			log = append(log, r.text...)
		}
	}
	return log
}

// newestNames lists the newest records: firmware may hold more than are read.
func newestNames(root fs.FS, dir string) (names []string) {
	entries, _ := fs.ReadDir(root, dir) // what cannot be listed cannot be read
	var infos []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), "dmesg-") && !strings.HasSuffix(e.Name(), ".enc.z") {
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	for _, info := range infos[max(0, len(infos)-maxRecords):] {
		names = append(names, info.Name())
	}
	return names
}

func rank(kind string) int {
	switch kind {
	case "Panic":
		return 2
	case "Oops":
		return 1
	}
	return 0
}

// ParseUnits reads what "systemctl list-units --failed --output=json" prints.
func ParseUnits(text []byte) ([]Unit, error) {
	if len(text) > maxListFile {
		return nil, errors.New("read failed units: too long")
	}
	var list []struct {
		Unit   string `json:"unit"`
		Active string `json:"active"`
		Sub    string `json:"sub"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("read failed units: %w", err)
	}
	var out []Unit
	for _, u := range list {
		out = append(out, Unit{Name: u.Unit, Result: u.Active + "/" + u.Sub})
	}
	return out, nil
}

// ParseTimings reads the properties of the service manager ("systemctl show -p FirmwareTimestampMonotonic …") and makes
// the lengths of the phases of the boot of them, as systemd-analyze(1) does.
func ParseTimings(text []byte) []Timing {
	at := map[string]int64{}
	for line := range strings.Lines(string(text[:min(len(text), maxSmallFile)])) {
		name, value, found := strings.Cut(strings.TrimSpace(line), "=")
		n, err := strconv.ParseInt(value, 10, 64)
		if found && err == nil && n > 0 {
			at[strings.TrimSuffix(name, "TimestampMonotonic")] = n / 1000
		}
	}
	var out []Timing
	add := func(phase string, ms int64) {
		if ms > 0 && ms < 1<<40 {
			out = append(out, Timing{Phase: phase, Milliseconds: ms})
		}
	}
	add("firmware", at["Firmware"]-at["Loader"])
	add("boot loader", at["Loader"])
	begin := at["Userspace"]
	if at["InitRD"] > 0 {
		add("kernel", at["InitRD"])
		add("initrd", begin-at["InitRD"])
	} else {
		add("kernel", begin)
	}
	if at["Finish"] > 0 {
		add("user space", at["Finish"]-begin)
	}
	return out
}

// TimingProperties are the properties that ParseTimings wants.
func TimingProperties() []string {
	names := []string{"Firmware", "Loader", "InitRD", "Userspace", "Finish"}
	out := make([]string, 0, len(names))
	for _, name := range names {
		out = append(out, name+"TimestampMonotonic")
	}
	return out
}
