package cli

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

// maxListed bounds the files that list looks at.
const maxListed = 1000

// claimedSigners are the key ids in an envelope, each once, by what the envelope says.
func claimedSigners(sealed []byte) ([]sign.KeyID, error) {
	var e struct {
		Signatures []struct {
			KeyID sign.KeyID `json:"keyid"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(sealed, &e); err != nil {
		return nil, fmt.Errorf("read signatures: %w", err)
	}
	seen := map[sign.KeyID]bool{}
	var out []sign.KeyID
	for _, s := range e.Signatures {
		if !seen[s.KeyID] {
			seen[s.KeyID] = true
			out = append(out, s.KeyID)
		}
	}
	return out, nil
}

// listedFix is one line of list.
type listedFix struct {
	File    string           `json:"file"`
	State   string           `json:"state"`
	Fix     *remediation.Fix `json:"fix,omitempty"`
	Signers []sign.KeyID     `json:"signers,omitempty"`
	Error   string           `json:"error,omitempty"`
}

func (a *app) remediationList(api *fleetAPI) *cobra.Command {
	var trust string
	var remote bool
	cmd := &cobra.Command{
		Use: "list [FOLDER]", Short: "List drafts and fixes with their signatures",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("want one folder at most, got %d", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if remote {
				return api.listFixes(cmd.Context())
			}
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			keys, err := readPublicKeys(trust)
			if err != nil {
				return err
			}
			list, err := listFixes(dir, keys, time.Now())
			if err != nil {
				return err
			}
			return a.printFixes(list, keys != nil)
		},
	}
	cmd.Flags().StringVar(&trust, "trust", "",
		"file with the organisation's public keys in PEM: signatures are verified by them")
	cmd.Flags().BoolVar(&remote, "fleet", false, "those at the control plane")
	return cmd
}

// readPublicKeys reads Ed25519 keys in PEM; none where no file is named.
func readPublicKeys(path string) ([]ed25519.PublicKey, error) {
	if path == "" {
		return nil, nil
	}
	text, err := readBounded(path, 64<<10)
	if err != nil {
		return nil, err
	}
	var out []ed25519.PublicKey
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		key, isEd25519 := parsed.(ed25519.PublicKey)
		if err != nil || !isEd25519 {
			return nil, fmt.Errorf("%s: a key in it is no Ed25519 public key", path)
		}
		out = append(out, key)
	}
	if out == nil {
		return nil, fmt.Errorf("%s holds no key in PEM", path)
	}
	return out, nil
}

func listFixes(dir string, keys []ed25519.PublicKey, now time.Time) ([]listedFix, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	list := []listedFix{}
	for _, e := range entries[:min(len(entries), maxListed)] {
		path := filepath.Join(dir, e.Name())
		switch {
		case strings.HasSuffix(e.Name(), draftSuffix):
			list = append(list, listedDraft(path))
		case strings.HasSuffix(e.Name(), fixSuffix):
			list = append(list, listedSealed(path, keys, now))
		}
	}
	return list, nil
}

func listedDraft(path string) listedFix {
	l := listedFix{File: path, State: "draft"}
	data, err := readBounded(path, remediation.MaxFix)
	if err == nil {
		var f remediation.Fix
		if f, err = remediation.Decode(data); err == nil {
			l.Fix = &f
		}
	}
	if err != nil {
		l.State, l.Error = "damaged", err.Error()
	}
	return l
}

func listedSealed(path string, keys []ed25519.PublicKey, now time.Time) listedFix {
	l := listedFix{File: path}
	sealed, f, signers, err := readFix(path)
	if err != nil {
		l.State, l.Error = "damaged", err.Error()
		return l
	}
	l.Fix, l.Signers = &f, signers
	if keys != nil {
		// One of them is enough to learn which of them have signed.
		if _, l.Signers, err = sign.Open(keys, 1, remediation.PayloadType, sealed); err != nil {
			l.Error = err.Error()
		}
	}
	need := 2
	if f.Vendor != "" || f.Kind == remediation.Revocation {
		need = 1
	}
	l.State = fmt.Sprintf("%d of %d signatures", min(len(l.Signers), need), need)
	if len(l.Signers) >= need {
		l.State = "ready"
	}
	if now.After(f.Expires) {
		l.State = "expired"
	}
	return l
}

func (a *app) printFixes(list []listedFix, verified bool) error {
	if a.output == "json" {
		return printJSON(a.out, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(a.out, "No drafts and no fixes here.")
		return err
	}
	for _, l := range list {
		if l.Fix == nil {
			fmt.Fprintf(a.out, "%-20s %s: %s\n", l.State, l.File, strings.Join(a.wrap(l.Error, ""), " "))
			continue
		}
		fmt.Fprintf(a.out, "%-20s %s: %s: %s\n", l.State, l.File, l.Fix.Kind, actionsOf(l.Fix))
	}
	if !verified {
		fmt.Fprintln(a.out, "The signatures were counted and not verified: --trust FILE verifies them.")
	}
	return nil
}

// actionsOf says in one line what a fix does.
func actionsOf(f *remediation.Fix) string {
	var parts []string
	for _, action := range f.Actions {
		parts = append(parts, action.String())
	}
	if len(f.Revokes) > 0 {
		parts = append(parts, "revoke "+strings.Join(f.Revokes, ", "))
	}
	for _, id := range f.RevokesKeys {
		parts = append(parts, "revoke the key "+id)
	}
	return strings.Join(parts, ", ")
}

// showFix prints all of a fix for who signs it, where it is, and what comes next.
func (a *app) showFix(f *remediation.Fix, path, next string) error {
	if a.output == "json" {
		return printJSON(a.out, listedFix{File: path, Fix: f, State: "written"})
	}
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(a.out, "  %-9s %s\n", name, text)
		}
	}
	fmt.Fprintf(a.out, "%s %s\n", f.Kind, a.paint.in(bold, f.ID))
	line("reason", f.Reason)
	for _, action := range f.Actions {
		line("does", action.String())
	}
	line("revokes", strings.Join(f.Revokes, ", "))
	for _, id := range f.RevokesKeys {
		line("revokes", "the key "+id)
	}
	line("for", audience(f))
	line("signed by", signedBy(f))
	line("expires", f.Expires.UTC().Format("2 January 2006 15:04 UTC"))
	line("file", path)
	line("next", next)
	return nil
}

// audience says which machines take a fix.
func audience(f *remediation.Fix) string {
	var parts []string
	if f.Test {
		parts = append(parts, "rehearsals only")
	}
	if f.Bundle != "" {
		parts = append(parts, "the machine that sent report "+f.Bundle)
	}
	if f.Symptom.Signature != "" {
		parts = append(parts, "failures with signature "+f.Symptom.Signature)
	}
	if p := f.Symptom.Provider; p != "" {
		if f.Symptom.Engine != "" {
			p += " engine " + f.Symptom.Engine
		}
		if f.Symptom.Content != "" {
			p += " content " + f.Symptom.Content
		}
		parts = append(parts, "machines with "+p)
	}
	if n := len(f.Machines.IDs); n > 0 {
		parts = append(parts, plural(n, "named machine")+" only")
	}
	return strings.Join(parts, ", ")
}

func signedBy(f *remediation.Fix) string {
	switch {
	case f.Vendor != "":
		return "the vendor of " + f.Vendor
	case f.Kind == remediation.Revocation:
		return "the organisation, one key"
	}
	return "the organisation, two keys"
}
