package issuer

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/keepout-security/keepout/internal/durable"
)

// The folders and files of an issuer.
const (
	homeFile    = "issuer.json"
	keysDir     = "keys"
	metadataDir = "metadata"
	pendingDir  = "pending"
)

// Issuer is one party's keys and repository. It is not safe for concurrent use; two processes must not write to one
// folder at the same time (Open takes a lock).
type Issuer struct {
	home  string
	about about
	ring  keyring
	lock  *durable.FileLock
}

type about struct {
	Version int    `json:"version"`
	Party   Party  `json:"party"`
	Name    string `json:"name"`
}

// Party is whose repository it is.
func (i *Issuer) Party() Party { return i.about.Party }

// Name is what the party calls itself.
func (i *Issuer) Name() string { return i.about.Name }

// Repository is the folder to publish: copy it, whole, to where hosts can read it. It holds no secret.
func (i *Issuer) Repository() string { return filepath.Join(i.home, metadataDir) }

// Close gives the folder free.
func (i *Issuer) Close() error { return i.lock.Close() }

// Init makes a party's keys and an empty repository. The folder must not exist, or be empty. Keys that are not online
// get the passphrase that ask gives; an empty one means none.
func Init(home string, party Party, name string, ask Passphrase, now time.Time) (*Issuer, error) {
	if party != Vendor && party != Operator {
		return nil, refuse(CodeHome, "say vendor or operator", "%q is no party", party)
	}
	if entries, err := os.ReadDir(home); err == nil && len(entries) > 0 {
		return nil, refuse(CodeHome, "name a new folder; keepout keys show says what is there", "%s is not empty", home)
	}
	for _, dir := range []string{home, filepath.Join(home, keysDir), filepath.Join(home, metadataDir)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make a folder: %w", err)
		}
	}
	raw, err := json.Marshal(about{Version: 1, Party: party, Name: name})
	if err != nil {
		return nil, err
	}
	public, err := makeKeys(filepath.Join(home, keysDir), party, ask)
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFileOn(durable.OS(), filepath.Join(home, homeFile), append(raw, '\n'), 0o644); err != nil {
		return nil, err
	}
	i, err := Open(home, nil, ask)
	if err != nil {
		return nil, err
	}
	return i, errors.Join(i.begin(public, now))
}

// makeKeys makes all keys of a party. The passphrase is asked for once for each place that has one.
func makeKeys(dir string, party Party, ask Passphrase) (map[string][]ed25519.PublicKey, error) {
	out := map[string][]ed25519.PublicKey{}
	for _, r := range roles(party) {
		for n := range r.keys {
			passphrase := ""
			if r.place != Online && ask != nil {
				var err error
				if passphrase, err = ask(fmt.Sprintf("%s-%d%s", r.name, n+1, keySuffix)); err != nil {
					return nil, err
				}
			}
			key, err := makeKey(dir, r.name, n+1, passphrase)
			if err != nil {
				return nil, err
			}
			out[r.name] = append(out[r.name], key)
		}
	}
	return out, nil
}

// begin writes the first root, targets and roles.
func (i *Issuer) begin(public map[string][]ed25519.PublicKey, now time.Time) error {
	root := metadata.Root(until(now, rootLifetime))
	targets := metadata.Targets(until(now, rootLifetime))
	targets.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	for _, r := range roles(i.about.Party) {
		if r.paths != "" {
			targets.Signed.Delegations.Roles = append(targets.Signed.Delegations.Roles, metadata.DelegatedRole{
				Name: r.name, KeyIDs: []string{}, Threshold: r.threshold, Terminating: true, Paths: []string{r.paths},
			})
		}
		for _, public := range public[r.name] {
			if err := addKey(root, targets, r, public); err != nil {
				return err
			}
		}
		for _, name := range r.signs() {
			root.Signed.Roles[name].Threshold = r.threshold
		}
	}
	if _, err := i.publishRoot(root); err != nil {
		return err
	}
	if _, err := i.publishTargets("targets", targets); err != nil {
		return err
	}
	for _, r := range roles(i.about.Party) {
		if r.lifetime > 0 {
			if _, err := i.publishTargets(r.name, metadata.Targets(until(now, r.lifetime))); err != nil {
				return err
			}
		}
	}
	return i.seal(now)
}

func addKey(root *metadata.Metadata[metadata.RootType], targets *metadata.Metadata[metadata.TargetsType], r keyRole,
	public ed25519.PublicKey,
) error {
	key, err := metadata.KeyFromPublicKey(public)
	if err != nil {
		return fmt.Errorf("describe a key: %w", err)
	}
	if r.paths != "" {
		return targets.Signed.AddKey(key, r.name)
	}
	for _, name := range r.signs() {
		if err := root.Signed.AddKey(key, name); err != nil {
			return err
		}
	}
	return nil
}

// until is a time that TUF can write: whole seconds in UTC.
func until(now time.Time, lifetime time.Duration) time.Time {
	return now.Add(lifetime).UTC().Truncate(time.Second)
}

// Open opens a party's folder for signing. Keys are looked for in its own folder and in further ones (media that
// other people bring), and read when they are needed.
func Open(home string, more []string, ask Passphrase) (*Issuer, error) {
	raw, err := os.ReadFile(filepath.Join(home, homeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse(CodeHome, "make one: keepout keys init", "%s holds no keys of a vendor or operator", home)
	}
	if err != nil {
		return nil, refuse(CodeHome, "see that you may read it", "%v", err)
	}
	i := &Issuer{home: home}
	if err := json.Unmarshal(raw, &i.about); err != nil || i.about.Version != 1 {
		return nil, refuse(CodeHome, "use the version of keepout that made it", "%s is not understood: %v",
			filepath.Join(home, homeFile), err)
	}
	i.ring = keyring{
		dirs: append([]string{filepath.Join(home, keysDir)}, more...), ask: ask, read: map[string]ed25519.PrivateKey{},
	}
	if i.lock, err = durable.Lock(filepath.Join(home, ".lock")); err != nil {
		return nil, refuse(CodeHome, "wait until it has ended", "somebody else is signing in %s: %v", home, err)
	}
	return i, nil
}
