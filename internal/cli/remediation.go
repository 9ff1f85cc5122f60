package cli

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

// Names of the files: a draft is JSON that nobody has signed, a fix is the signed envelope.
const (
	draftSuffix = ".draft.json"
	fixSuffix   = ".fix"
)

func (a *app) remediationCommand() *cobra.Command {
	f := &fleetAPI{a: a}
	return f.flag(group("remediation", "Write, sign and approve fixes for machines that do not start",
		a.remediationCreate(), a.remediationSign(f), a.remediationApprove(f), a.remediationList(f), a.remediationRevoke(f),
		a.remediationSend(f)))
}

// drafting are the flags of create.
type drafting struct {
	fix     remediation.Fix
	kind    string
	actions []string
	lasts   time.Duration
	dir     string
}

func (a *app) remediationCreate() *cobra.Command {
	d := &drafting{}
	cmd := &cobra.Command{
		Use: "create ID --reason TEXT --do ACTION…", Short: "Write the draft of a fix",
		Long: "Write the draft of a fix into ID.draft.json. A campaign is for every machine with a symptom, a\n" +
			"targeted fix answers one report. The actions are:\n\n" +
			"  disable-provider ID       rollback-content ID      restore-file PATH SHA256\n" +
			"  safe-mode                 unset-safe-mode          hold               collect",
		Args: exactArgs(1, "an id for the fix"),
		RunE: func(_ *cobra.Command, args []string) error {
			now := time.Now().UTC().Truncate(time.Second)
			f := &d.fix
			f.Format, f.ID, f.Issued, f.Expires = remediation.Format, args[0], now, now.Add(d.lasts)
			f.Kind = remediation.Kind(d.kind)
			if f.Kind == remediation.Campaign && f.Sequence == 0 {
				f.Sequence = uint64(now.Unix()) // later ones are higher, whoever writes them
			}
			for _, text := range d.actions {
				action, err := parseAction(text)
				if err != nil {
					return usageError{err}
				}
				f.Actions = append(f.Actions, action)
			}
			encoded, err := remediation.Encode(f)
			if err != nil {
				return usageError{err}
			}
			path := filepath.Join(d.dir, f.ID+draftSuffix)
			if err := durable.WriteFile(path, encoded, 0o644); err != nil {
				return err
			}
			return a.showFix(f, path, "keepout remediation sign "+path+" --key KEY")
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.kind, "kind", string(remediation.Campaign), "campaign or targeted")
	f.StringArrayVar(&d.actions, "do", nil, "an action; may be given several times")
	f.StringVar(&d.fix.Reason, "reason", "", "why; people at the machines read it")
	f.DurationVar(&d.lasts, "for", 72*time.Hour, "how long the fix is good")
	f.Uint64Var(&d.fix.Sequence, "sequence", 0, "of a campaign, higher than all before it; default: the time")
	f.StringVar(&d.fix.Symptom.Signature, "signature", "", "of a campaign: the failure's signature")
	f.StringVar(&d.fix.Symptom.Provider, "provider", "", "of a campaign: machines with this provider")
	f.StringVar(&d.fix.Symptom.Engine, "engine", "", "of a campaign: and this version of its engine")
	f.StringVar(&d.fix.Symptom.Content, "content", "", "of a campaign: and this version of its content")
	f.StringVar(&d.fix.Bundle, "bundle", "", "of a targeted fix: the digest of the report that it answers")
	f.StringArrayVar(&d.fix.Machines.IDs, "machine", nil,
		"only for the machine with this pseudonym; may be given several times")
	f.StringVar(&d.fix.Vendor, "vendor", "", "the provider whose vendor signs; default: the organisation")
	f.BoolVar(&d.fix.Test, "test", false, "harmless, for keepout recovery test")
	f.StringVar(&d.dir, "dir", ".", "folder for the draft")
	return cmd
}

// parseAction reads an action as it is typed.
func parseAction(text string) (remediation.Action, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return remediation.Action{}, errors.New("an empty action")
	}
	action := remediation.Action{Verb: remediation.Verb(words[0])}
	want := 1
	switch action.Verb {
	case remediation.DisableProvider, remediation.RollbackContent:
		want = 2
	case remediation.RestoreFile:
		want = 3
	case remediation.SafeMode, remediation.UnsetSafeMode, remediation.Hold, remediation.Collect:
	default:
		return action, fmt.Errorf("action %q is not known: %v", words[0], remediation.Verbs())
	}
	switch {
	case len(words) != want:
		return action, fmt.Errorf("%s takes %s, got %d", action.Verb, plural(want-1, "argument"), len(words)-1)
	case want == 2:
		action.Provider = words[1]
	case want == 3:
		action.Path, action.SHA256 = words[1], words[2]
	}
	return action, nil
}

func (a *app) remediationSign(api *fleetAPI) *cobra.Command {
	var key string
	var send bool
	cmd := &cobra.Command{
		Use: "sign DRAFT --key KEY", Short: "Put the first signature under a draft",
		Args: exactArgs(1, "the draft's file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readBounded(args[0], remediation.MaxFix)
			if err != nil {
				return err
			}
			f, err := remediation.Decode(data)
			if err != nil {
				return err
			}
			private, err := readPrivateKey(key)
			if err != nil {
				return err
			}
			path := filepath.Join(filepath.Dir(args[0]), f.ID+fixSuffix)
			if err := sealFix(path, &f, private); err != nil {
				return err
			}
			next := "another person: keepout remediation approve " + path + " --key KEY"
			if f.Vendor != "" {
				next = "send it to the organisation's server"
			}
			if send {
				if next, err = api.sendFix(cmd.Context(), path); err != nil {
					return err
				}
			}
			return a.showFix(&f, path, next)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "file with an Ed25519 private key (openssl genpkey -algorithm ed25519)")
	cmd.Flags().BoolVar(&send, "fleet", false, "send it to the control plane, where it waits for the second person")
	return cmd
}

func sealFix(path string, f *remediation.Fix, key ed25519.PrivateKey) error {
	payload, err := remediation.Encode(f)
	if err != nil {
		return err
	}
	sealed, err := sign.Seal([]ed25519.PrivateKey{key}, remediation.PayloadType, payload)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return usageError{fmt.Errorf("%s exists already: approve it, or choose another id", path)}
	}
	return durable.WriteFile(path, sealed, 0o644)
}

func (a *app) remediationApprove(api *fleetAPI) *cobra.Command {
	var key string
	var yes, send bool
	cmd := &cobra.Command{
		Use: "approve FIX --key KEY --yes", Short: "Look at a signed fix, and put the second signature under it",
		Long: "Look at a signed fix, and put the second signature under it. It must be another key than the first: a\n" +
			"fix is what two people have read. Without --yes it is only shown. With --fleet a fix that waits at the\n" +
			"control plane goes by its id, and is approved there; a vendor's fix needs no second key for that.",
		Args: exactArgs(1, "the signed fix's file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if send {
				return api.approveFix(cmd.Context(), args[0], key, yes)
			}
			sealed, f, signers, err := readFix(args[0])
			if err != nil {
				return err
			}
			if !yes {
				return a.showFix(&f, args[0], "if that is right: the same command with --yes")
			}
			if sealed, err = cosign(sealed, signers, key); err != nil {
				return err
			}
			if err := durable.WriteFile(args[0], sealed, 0o644); err != nil {
				return err
			}
			return a.showFix(&f, args[0], "keepout remediation send "+args[0])
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "file with an Ed25519 private key")
	cmd.Flags().BoolVar(&yes, "yes", false, "sign what is shown")
	cmd.Flags().BoolVar(&send, "fleet", false, "the fix waits at the control plane: name its id")
	return cmd
}

// cosign adds a second key's signature.
func cosign(sealed []byte, signers []sign.KeyID, key string) ([]byte, error) {
	private, err := readPrivateKey(key)
	if err != nil {
		return nil, err
	}
	if slices.Contains(signers, sign.IDOf(remediation.PublicKeys(private)[0])) {
		return nil, health.Problem{
			Code: "KO-2531", Title: "this key has signed the fix already; the second signature must be another person's",
			Severity: health.Failure, Fix: "give the file to a colleague",
		}
	}
	return sign.Cosign(sealed, private)
}

// readFix reads a signed fix and who claims to have signed it. Nothing of it is verified: it is for people who look.
func readFix(path string) (sealed []byte, f remediation.Fix, signers []sign.KeyID, err error) {
	if sealed, err = readBounded(path, remediation.MaxEnvelope); err != nil {
		return nil, f, nil, err
	}
	f, signers, err = parseFix(path, sealed)
	return sealed, f, signers, err
}

func parseFix(path string, sealed []byte) (f remediation.Fix, signers []sign.KeyID, err error) {
	kind, payload, err := sign.Peek(sealed)
	if err != nil {
		return f, nil, err
	}
	if kind != remediation.PayloadType {
		return f, nil, fmt.Errorf("%s is a signed statement of type %q, and no fix", path, kind)
	}
	if f, err = remediation.Decode(payload); err != nil {
		return f, nil, err
	}
	signers, err = claimedSigners(sealed)
	return f, signers, err
}

func (a *app) remediationRevoke(api *fleetAPI) *cobra.Command {
	var key, dir, reason string
	var send bool
	var lost []string
	cmd := &cobra.Command{
		Use: "revoke ID… --reason TEXT --key KEY", Short: "Take fixes back: machines that have not applied them never will",
		Long: "Take fixes back: machines that have not applied them never will. With --lost FILE a key is taken back:\n" +
			"what it signs counts no more. One key takes back itself, two take back any: have it approved by the other.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && len(lost) == 0 {
				return usageError{errors.New("want the ids of the fixes, or --lost with a public key")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if send && key == "" && len(lost) == 0 {
				return api.revokeFixes(cmd.Context(), args, reason)
			}
			keys, err := keyIDs(lost)
			if err != nil {
				return err
			}
			now := time.Now().UTC().Truncate(time.Second)
			f := remediation.Fix{
				Format: remediation.Format, ID: "revocation-" + now.Format("20060102-150405"), Kind: remediation.Revocation,
				Issued: now, Expires: now.Add(365 * 24 * time.Hour), Reason: reason, Revokes: args,
				RevokesKeys: keys,
			}
			if err := f.Check(); err != nil {
				return usageError{err}
			}
			private, err := readPrivateKey(key)
			if err != nil {
				return err
			}
			path := filepath.Join(dir, f.ID+fixSuffix)
			if err := sealFix(path, &f, private); err != nil {
				return err
			}
			next := "keepout remediation send " + path
			if f.MayRevoke([]sign.KeyID{sign.IDOf(remediation.PublicKeys(private)[0])}) != nil {
				next = "another person: keepout remediation approve " + path + " --key KEY --yes"
			} else if send {
				if next, err = api.sendFix(cmd.Context(), path); err != nil {
					return err
				}
			}
			return a.showFix(&f, path, next)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "file with one of the organisation's Ed25519 private keys")
	cmd.Flags().StringArrayVar(&lost, "lost", nil, "file with public keys that are to count no more")
	cmd.Flags().StringVar(&dir, "dir", ".", "folder for the revocation")
	cmd.Flags().StringVar(&reason, "reason", "", "why")
	cmd.Flags().BoolVar(&send, "fleet", false, "the control plane stops serving them, at once; without a key no machine "+
		"hears of it")
	return cmd
}

// remediationSend brings what was signed to the control plane: a revocation, or a fix that was signed elsewhere.
func (a *app) remediationSend(api *fleetAPI) *cobra.Command {
	return &cobra.Command{
		Use: "send FIX", Short: "Bring a signed fix or revocation to the control plane",
		Args: exactArgs(1, "the signed file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, f, _, err := readFix(args[0])
			if err != nil {
				return err
			}
			next, err := api.sendFix(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.showFix(&f, args[0], next)
		},
	}
}

// keyIDs names the public keys in files.
func keyIDs(files []string) (ids []string, err error) {
	for _, file := range files {
		keys, err := readPublicKeys(file)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			ids = append(ids, string(sign.IDOf(k)))
		}
	}
	return ids, nil
}

// readPrivateKey reads a key in PKCS #8, as OpenSSL writes it.
func readPrivateKey(path string) (ed25519.PrivateKey, error) {
	if path == "" {
		return nil, usageError{errors.New("name the file of your key: --key FILE")}
	}
	text, err := readBounded(path, 64<<10)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key in PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	key, isEd25519 := parsed.(ed25519.PrivateKey)
	if !isEd25519 {
		return nil, fmt.Errorf("%s is no Ed25519 key: openssl genpkey -algorithm ed25519", path)
	}
	return key, nil
}
