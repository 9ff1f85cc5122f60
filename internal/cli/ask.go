package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/keepout-security/keepout/internal/issuer"
)

// errNobody is what a command gets that must ask and has nobody to ask.
var errNobody = errors.New("nobody can be asked here: standard input is no terminal")

// asker asks the person at the keyboard.
type asker struct {
	in  *os.File
	out io.Writer
	yes bool // --yes: do not ask for confirmation
}

func (a *app) asker(yes bool) asker { return asker{in: os.Stdin, out: a.err, yes: yes} }

func (k asker) there() bool { return term.IsTerminal(int(k.in.Fd())) }

// confirm asks before something that cannot be undone.
func (k asker) confirm(what string) error {
	if k.yes {
		return nil
	}
	if !k.there() {
		return usageError{fmt.Errorf("%s Say --yes: %w", what, errNobody)}
	}
	fmt.Fprintf(k.out, "%s Type yes to go on: ", what)
	line, err := bufio.NewReader(k.in).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// hidden reads a line that is not shown.
func (k asker) hidden(prompt string) (string, error) {
	if !k.there() {
		return "", errNobody
	}
	fmt.Fprint(k.out, prompt)
	text, err := term.ReadPassword(int(k.in.Fd()))
	fmt.Fprintln(k.out)
	if err != nil {
		return "", fmt.Errorf("read a passphrase: %w", err)
	}
	return string(text), nil
}

const minPassphrase = 12

// choose asks twice for a passphrase that all new keys of people get.
func (k asker) choose() (string, error) {
	fmt.Fprintf(k.out, "The keys that people keep get a passphrase (at least %d characters; several words are easy to\n"+
		"remember). Nobody can recover it. Each key can be moved to a medium of its own afterwards.\n", minPassphrase)
	for range 3 {
		first, err := k.hidden("Passphrase: ")
		if err != nil {
			return "", err
		}
		if len(first) < minPassphrase {
			fmt.Fprintln(k.out, "That is too short.")
			continue
		}
		second, err := k.hidden("The same once more: ")
		if err != nil {
			return "", err
		}
		if first == second {
			return first, nil
		}
		fmt.Fprintln(k.out, "The two differ.")
	}
	return "", errors.New("no passphrase was chosen, and nothing was made")
}

// fromFile is a passphrase in the first line of a file.
func fromFile(name string) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", usageError{fmt.Errorf("%s: its first line is empty, and should be the passphrase", name)}
	}
	return line, nil
}

// forReading answers for key files that are read: from the file, or by asking, once for all of them as long as the
// answer is not told to be wrong.
func (k asker) forReading(file string) issuer.Passphrase {
	if file == "" && !k.there() {
		return nil
	}
	known := ""
	return func(name string) (string, error) {
		var err error
		switch {
		case known != "":
		case file != "":
			known, err = fromFile(file)
		default:
			known, err = k.hidden("Passphrase of " + name + ": ")
		}
		return known, err
	}
}
