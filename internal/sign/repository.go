package sign

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// Bounds of a repository. A file that is longer is not read to its end.
const (
	maxRoot      = 512_000   // bytes
	maxTimestamp = 16_384    // bytes
	maxSnapshot  = 2_000_000 // bytes
	maxTargets   = 5_000_000 // bytes, of each targets file
	maxRotations = 256       // root files after the one that trust began with
)

// repository reads one TUF repository step by step, as the client workflow of the specification (5.3 to 5.6) says.
// What it verifies it remembers in seen at once, before the next file is looked at.
type repository struct {
	who  string // for people: "the vendor acme", "the operator"
	dir  fs.FS
	seen *Seen

	root      *rootFile
	timestamp *timestampFile
	snapshot  *snapshotFile
	targets   *targetsFile
	expiries  []expiry
}

// expiry is when a file that was used ends to be current.
type expiry struct {
	file string
	at   time.Time
}

// load verifies root, timestamp, snapshot and targets. Expiry is judged by the caller: what is verified but old still
// counts for what must not be believed any more.
func (r *repository) load(trusted []byte) error {
	if err := r.loadRoot(trusted); err != nil {
		return err
	}
	if err := r.loadTimestamp(); err != nil {
		return err
	}
	if err := r.loadSnapshot(); err != nil {
		return err
	}
	r.targets = &targetsFile{}
	return r.loadTargets("targets", role(r.root.Roles["targets"], r.root.Keys), r.targets)
}

// loadRoot walks from the trusted root to the newest one: each is signed by the one before and by itself.
func (r *repository) loadRoot(trusted []byte) error {
	const first = "the root that trust begins with"
	current, err := r.rootFrom(first, trusted, nil)
	if err != nil {
		return err
	}
	before, raw := current, trusted
	for range maxRotations {
		name := rootName(current.Version + 1)
		if _, err := fs.Stat(r.dir, name); errors.Is(err, fs.ErrNotExist) {
			break
		}
		next, err := r.readFile(name, maxRoot)
		if err != nil {
			return err
		}
		newer, err := r.rootFrom(name, next, current)
		if err != nil {
			return err
		}
		if newer.Version != current.Version+1 {
			return r.refuse(CodeOlder, name, "it says that it is version %d", newer.Version)
		}
		current, raw = newer, next
	}
	r.root = current
	r.seen.Root = bytes.Clone(raw)
	r.expiries = append(r.expiries, expiry{"root", current.Expires})
	for _, online := range []string{"timestamp", "snapshot"} {
		if revokes(role(before.Roles[online], before.Keys), role(current.Roles[online], current.Keys)) {
			// A stolen online key may have pushed the versions as high as they go. The root took the key away.
			r.seen.Timestamp, r.seen.Snapshot, r.seen.Files = 0, 0, map[string]int64{}
		}
	}
	return nil
}

// rootFrom verifies one root file by itself and, when there is one, by the root before it.
func (r *repository) rootFrom(name string, raw []byte, before *rootFile) (*rootFile, error) {
	f, err := openFile(raw)
	if err != nil {
		return nil, r.refuse(CodeMetadata, name, "%v", err)
	}
	if before != nil {
		if err := r.signed(name, f, role(before.Roles["root"], before.Keys)); err != nil {
			return nil, err
		}
	}
	var root rootFile
	if err := f.read("root", &root); err != nil {
		return nil, r.refuse(CodeMetadata, name, "%v", err)
	}
	if err := r.signed(name, f, role(root.Roles["root"], root.Keys)); err != nil {
		return nil, err
	}
	if !root.Consistent {
		return nil, r.refuse(CodeMetadata, name, "it has no consistent snapshots, which Keepout demands")
	}
	return &root, nil
}

// revokes reports whether a newer role lacks a key that the older one had.
func revokes(older, newer Role) bool {
	return slices.ContainsFunc(older.Keys, func(old ed25519.PublicKey) bool {
		return !slices.ContainsFunc(newer.Keys, func(k ed25519.PublicKey) bool { return bytes.Equal(k, old) })
	})
}

func (r *repository) loadTimestamp() error {
	const name = "timestamp.json"
	r.timestamp = &timestampFile{}
	raw, err := r.readFile(name, maxTimestamp)
	if err != nil {
		return err
	}
	if err := r.verify(name, raw, "timestamp", role(r.root.Roles["timestamp"], r.root.Keys), r.timestamp); err != nil {
		return err
	}
	if at := r.timestamp.SignedAt; at.After(r.timestamp.Expires) || at.After(r.root.Expires) {
		// Else a stolen online key could move the time floor beyond all that is ever signed.
		return r.refuse(CodeMetadata, name, "it says that it was signed at %s, after its own end or the root's", stamp(at))
	}
	if r.timestamp.Version < r.seen.Timestamp {
		return r.older(name, r.timestamp.Version, r.seen.Timestamp)
	}
	if v := r.timestamp.Meta["snapshot.json"].Version; v < r.seen.Snapshot {
		return r.older("the snapshot that timestamp.json names", v, r.seen.Snapshot)
	}
	r.seen.Timestamp, r.seen.Snapshot = r.timestamp.Version, r.timestamp.Meta["snapshot.json"].Version
	r.expiries = append(r.expiries, expiry{"timestamp", r.timestamp.Expires})
	return nil
}

func (r *repository) loadSnapshot() error {
	named := r.timestamp.Meta["snapshot.json"]
	name := fmt.Sprintf("%d.snapshot.json", named.Version)
	r.snapshot = &snapshotFile{}
	keys := role(r.root.Roles["snapshot"], r.root.Keys)
	if err := r.loadNamed(name, "snapshot", named, maxSnapshot, keys, r.snapshot); err != nil {
		return err
	}
	if r.snapshot.Version != named.Version {
		return r.refuse(CodeMixed, name, "it says that it is version %d", r.snapshot.Version)
	}
	for _, file := range slices.Sorted(maps.Keys(r.seen.Files)) {
		if now := r.snapshot.Meta[file]; now.Version < r.seen.Files[file] {
			return r.older("the "+file+" that "+name+" names", now.Version, r.seen.Files[file])
		}
	}
	for file, m := range r.snapshot.Meta {
		r.seen.Files[file] = m.Version
	}
	r.expiries = append(r.expiries, expiry{"snapshot", r.snapshot.Expires})
	return nil
}

// loadTargets verifies the targets file of a role that the snapshot names.
func (r *repository) loadTargets(roleName string, keys Role, into *targetsFile) error {
	named, ok := r.snapshot.Meta[roleName+".json"]
	name := fmt.Sprintf("%d.%s.json", named.Version, roleName)
	if !ok {
		return r.refuse(CodeMissing, roleName+".json", "the snapshot does not name it: nothing was ever signed in this role")
	}
	if err := r.loadNamed(name, "targets", named, maxTargets, keys, into); err != nil {
		return err
	}
	if into.Version != named.Version {
		return r.refuse(CodeMixed, name, "it says that it is version %d", into.Version)
	}
	r.expiries = append(r.expiries, expiry{roleName, into.Expires})
	return nil
}

// loadNamed reads a file that another one names by version, length and digest.
func (r *repository) loadNamed(name, kind string, named fileMeta, limit int64, keys Role, into any) error {
	raw, err := r.readFile(name, limit)
	if err != nil {
		return err
	}
	if err := named.matches(raw); err != nil {
		return r.refuse(CodeMixed, name, "it is not the file that the repository names: %v", err)
	}
	return r.verify(name, raw, kind, keys, into)
}

// verify checks the signatures of a file, and only then reads it.
func (r *repository) verify(name string, raw []byte, kind string, keys Role, into any) error {
	f, err := openFile(raw)
	if err != nil {
		return r.refuse(CodeMetadata, name, "%v", err)
	}
	if err := r.signed(name, f, keys); err != nil {
		return err
	}
	if err := f.read(kind, into); err != nil {
		return r.refuse(CodeMetadata, name, "%v", err)
	}
	return nil
}

func (r *repository) signed(name string, f *signedFile, keys Role) error {
	signers := keys.signedBy(f.message, f.signatures)
	if keys.enough(signers) {
		return nil
	}
	return r.refuse(CodeThreshold, name, "it has %d of %d needed signatures by keys of its role",
		len(signers), keys.Threshold)
}

// readFile reads a whole file of the repository. It stops one byte after the limit: a file may have no end.
func (r *repository) readFile(name string, limit int64) ([]byte, error) {
	data, err := readBounded(r.dir, name, limit)
	switch {
	case errors.Is(err, errEndless):
		return nil, r.refuse(CodeEndless, name, "it has more than %d bytes", limit)
	case err != nil:
		return nil, r.refuse(CodeMissing, name, "%v", err)
	}
	return data, nil
}

var errEndless = errors.New("too long")

func readBounded(dir fs.FS, name string, limit int64) (data []byte, err error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, errEndless
	}
	return data, err
}
