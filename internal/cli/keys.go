package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/issuer"
)

// signing is what all commands that use keys have in common.
type signing struct {
	media      []string
	passphrase string
	yes        bool
}

func (s *signing) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&s.media, "keys", nil, "a further folder with keys, as a medium that somebody brings")
	cmd.Flags().StringVar(&s.passphrase, "passphrase-file", "", "file whose first line is the passphrase; default: ask")
	cmd.Flags().BoolVar(&s.yes, "yes", false, "do not ask for confirmation")
}

// with opens a party's folder for one command.
func (a *app) with(s *signing, home string, do func(*issuer.Issuer) error) error {
	i, err := issuer.Open(home, s.media, a.asker(s.yes).forReading(s.passphrase))
	if err != nil {
		return err
	}
	err = do(i)
	return errors.Join(err, i.Close())
}

func (a *app) keysCommand() *cobra.Command {
	return group("keys", "Make, show, rotate and revoke the keys of a vendor or an operator",
		a.keysInitCommand(), a.keysShowCommand(), a.keysVendorCommand(), a.keysRotateCommand(), a.keysRevokeCommand(),
		a.keysSignCommand(), a.keysDiscardCommand())
}

func (a *app) keysInitCommand() *cobra.Command {
	var party, name, file string
	var none bool
	cmd := &cobra.Command{
		Use: "init DIR --as vendor|operator", Short: "Make all keys of a vendor or an operator, and an empty repository",
		Long: "Make all keys of a vendor or an operator, and an empty repository that they sign.\n\n" +
			"Keys that people keep (offline, person) are encrypted with a passphrase. Move each to a medium of\n" +
			"its own afterwards, and name the medium with --keys where it is needed.",
		Args: exactArgs(1, "a new folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			if party != string(issuer.Vendor) && party != string(issuer.Operator) {
				return usageError{errors.New("say --as vendor or --as operator")}
			}
			passphrase, err := a.newPassphrase(file, none)
			if err != nil {
				return err
			}
			if name == "" {
				name = filepath.Base(filepath.Clean(args[0]))
			}
			i, err := issuer.Init(args[0], issuer.Party(party), name, passphrase, a.today())
			if err != nil {
				return err
			}
			return errors.Join(a.showKeys(i, args[0], true), i.Close())
		},
	}
	cmd.Flags().StringVar(&party, "as", "", "vendor or operator")
	cmd.Flags().StringVar(&name, "name", "", "what the party calls itself; default: the folder's name")
	cmd.Flags().StringVar(&file, "passphrase-file", "", "file whose first line is the passphrase; default: ask")
	cmd.Flags().BoolVar(&none, "no-passphrase", false, "leave the keys unprotected: for trying things out")
	return cmd
}

// newPassphrase decides how new keys are protected. It never leaves them unprotected without being told to.
func (a *app) newPassphrase(file string, none bool) (issuer.Passphrase, error) {
	k := a.asker(false)
	var chosen string
	var err error
	switch {
	case none && file != "":
		return nil, usageError{errors.New("--no-passphrase and --passphrase-file exclude each other")}
	case none:
		return nil, nil //nolint:nilnil // no passphrase
	case file != "":
		chosen, err = fromFile(file)
	case !k.there():
		return nil, usageError{fmt.Errorf("name --passphrase-file FILE, or say --no-passphrase: %w", errNobody)}
	default:
		chosen, err = k.choose()
	}
	return func(string) (string, error) { return chosen, nil }, err
}

func (a *app) keysShowCommand() *cobra.Command {
	var s signing
	cmd := &cobra.Command{
		Use: "show DIR", Short: "Show the keys, what they may do, and until when their signatures are good",
		Args: exactArgs(1, "the folder of a vendor or an operator"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.with(&s, args[0], func(i *issuer.Issuer) error { return a.showKeys(i, args[0], false) })
		},
	}
	s.flags(cmd)
	return cmd
}

func (a *app) showKeys(i *issuer.Issuer, home string, fresh bool) error {
	o, err := i.Show()
	if err != nil {
		return err
	}
	if a.output == "json" {
		return printJSON(a.out, o)
	}
	fmt.Fprintf(a.out, "%s %s, root version %d\n\n", o.Party, o.Name, o.Root)
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEYS\tMUST SIGN\tBELONG\tTHEY\tHERE")
	for _, set := range o.Sets {
		fmt.Fprintf(w, "%s\t%d of %d\t%s\t%s\t%s\n", set.Name, set.Threshold, len(set.IDs), set.Place, set.What,
			orNone(strings.Join(set.AtHand, " ")))
	}
	fmt.Fprintln(w, "\nMETADATA\tVERSION\tGOOD UNTIL")
	for _, f := range o.Files {
		fmt.Fprintf(w, "%s\t%d\t%s\n", f.Role, f.Version, f.Expires.UTC().Format("2006-01-02 15:04 UTC"))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	for _, v := range o.Vendors {
		fmt.Fprintf(a.out, "\nvendor %s may release %s (root version %d)\n", v.Name, strings.Join(v.Providers, ", "), v.Root)
	}
	for _, p := range o.Pending {
		fmt.Fprintf(a.out, "\na change of %s waits for signatures: keepout keys sign %s\n", p, home)
	}
	if fresh {
		fmt.Fprintf(a.out, "\nPublish %s; it holds no secret. Move the keys that say offline or person\n"+
			"to media of their own, and keep a copy of each.\n", i.Repository())
	}
	return nil
}

func (a *app) keysVendorCommand() *cobra.Command {
	var s signing
	var root string
	var providers []string
	var remove bool
	cmd := &cobra.Command{
		Use:   "vendor DIR NAME --root FILE --provider ID | --remove",
		Short: "Let a vendor make releases of providers, or end that",
		Long: "Let a vendor make releases of providers: trust in it begins with its root file, which you got from it\n" +
			"and compared with it. With --remove nothing of that vendor is activated any more.",
		Args: exactArgs(2, "an operator's folder and a vendor's name"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.with(&s, args[0], func(i *issuer.Issuer) error {
				if remove {
					if err := a.asker(s.yes).confirm("Nothing of " + args[1] + " will be activated any more."); err != nil {
						return err
					}
					p, err := i.Dismiss(args[1], a.today())
					return a.progress("vendor "+args[1]+" is removed", p, err)
				}
				if root == "" || len(providers) == 0 {
					return usageError{errors.New("name --root FILE and --provider ID, or say --remove")}
				}
				text, err := os.ReadFile(root)
				if err != nil {
					return fmt.Errorf("read the vendor's root: %w", err)
				}
				p, err := i.Admit(args[1], text, providers, a.today())
				return a.progress("vendor "+args[1]+" may release "+strings.Join(providers, ", "), p, err)
			})
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "the vendor's newest N.root.json")
	cmd.Flags().StringArrayVar(&providers, "provider", nil, "a provider's id; again for several")
	cmd.Flags().BoolVar(&remove, "remove", false, "end trust in this vendor")
	s.flags(cmd)
	return cmd
}

func (a *app) keysRotateCommand() *cobra.Command {
	var s signing
	var only string
	cmd := &cobra.Command{
		Use: "rotate DIR SET", Short: "Replace keys by new ones", Args: exactArgs(2, "a folder and a set of keys, as engine"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.with(&s, args[0], func(i *issuer.Issuer) error {
				const warning = " will count for nothing once new ones are in force."
				if err := a.asker(s.yes).confirm("The keys of " + args[1] + warning); err != nil {
					return err
				}
				p, err := i.Rotate(args[1], only, a.today())
				return a.progress(args[1]+" has new keys", p, err)
			})
		},
	}
	cmd.Flags().StringVar(&only, "only", "", "replace only this key: as engine-1, or the beginning of its id")
	s.flags(cmd)
	return cmd
}

func (a *app) keysRevokeCommand() *cobra.Command {
	var s signing
	cmd := &cobra.Command{
		Use: "revoke DIR KEY", Short: "Take a key away: it counts for nothing any more",
		Args: exactArgs(2, "a folder and a key: as engine-1, or the beginning of its id"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.with(&s, args[0], func(i *issuer.Issuer) error {
				if err := a.asker(s.yes).confirm("The key " + args[1] + " will count for nothing."); err != nil {
					return err
				}
				p, err := i.Revoke(args[1], a.today())
				return a.progress(args[1]+" is revoked", p, err)
			})
		},
	}
	s.flags(cmd)
	return cmd
}

func (a *app) keysSignCommand() *cobra.Command {
	var s signing
	cmd := &cobra.Command{
		Use: "sign DIR", Short: "Add your signatures to what waits for them",
		Args: exactArgs(1, "the folder of a vendor or an operator"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.with(&s, args[0], func(i *issuer.Issuer) error {
				p, err := i.Complete(a.today())
				if err == nil && len(p) == 0 {
					return a.done("nothing waits for signatures")
				}
				return a.progress("all that waited is in force", p, err)
			})
		},
	}
	s.flags(cmd)
	return cmd
}

func (a *app) keysDiscardCommand() *cobra.Command {
	var s signing
	cmd := &cobra.Command{
		Use: "discard DIR", Short: "Give up what waits for signatures",
		Args: exactArgs(1, "the folder of a vendor or an operator"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.with(&s, args[0], func(i *issuer.Issuer) error {
				names, err := i.Discard()
				if err != nil {
					return err
				}
				return a.done("given up: " + orNone(strings.Join(names, ", ")))
			})
		},
	}
	s.flags(cmd)
	return cmd
}

// progress says what was done, or who must sign yet.
func (a *app) progress(done string, list []issuer.Progress, err error) error {
	if err != nil {
		return err
	}
	var waiting []string
	for _, p := range list {
		if !p.Published {
			waiting = append(waiting, fmt.Sprintf("%s version %d waits: %d of %d signatures. Next: somebody with one of the "+
				"keys %s does the same, or keepout keys sign", p.Role, p.Version, p.Have, p.Need, strings.Join(p.Waiting, ", ")))
		}
	}
	if a.output == "json" {
		return printJSON(a.out, map[string]any{"done": len(waiting) == 0, "what": done, "metadata": list})
	}
	if len(waiting) == 0 || list[0].Published {
		fmt.Fprintln(a.out, done)
	}
	for _, line := range waiting {
		fmt.Fprintln(a.out, line)
	}
	return nil
}
