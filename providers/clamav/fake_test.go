package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keepout-security/keepout/provider"
)

// asProvider is the argument with which the test binary becomes the provider.
const asProvider = "run-as-provider"

// TestMain lets the test binary stand in for two programs, so that processes are real in these tests: clamd,
// told by its argument, and the provider itself.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 {
		if conf, ok := strings.CutPrefix(os.Args[1], "--config-file="); ok {
			fmt.Println(fakeClamd(conf))
			os.Exit(1)
		}
		if os.Args[1] == asProvider {
			provider.Main(newEngine(&antivirus{find: findClamd}))
		}
	}
	os.Exit(m.Run())
}

// fakeClamd speaks clamd's protocol. A file's first word decides on its answer: the name of a signature in
// the folder (the first word of each .hdb), or one of die, hang, fail, limit, garbage.
func fakeClamd(conf string) error {
	text, err := os.ReadFile(conf)
	if err != nil {
		return err
	}
	options := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		options[key] = value
	}
	known := map[string]bool{}
	paths, _ := filepath.Glob(options["DatabaseDirectory"] + "/*.hdb")
	for _, path := range paths {
		word, err := firstWord(os.Open(path))
		if err != nil {
			return err
		}
		if word == "broken" {
			return fmt.Errorf("ERROR: Malformed database")
		}
		known[word] = true
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: options["LocalSocket"], Net: "unix"})
	if err != nil {
		return err
	}
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return err
		}
		go serve(conn, known)
	}
}

func serve(conn *net.UnixConn, known map[string]bool) {
	defer conn.Close()
	buf, oob := make([]byte, 64), make([]byte, 64)
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return
	}
	// The byte that carries the descriptor may arrive with the command or after it.
	switch command, _, _ := strings.Cut(string(buf[:n]), "\x00"); command {
	case "zPING":
		conn.Write([]byte("PONG\x00"))
	case "zVERSION":
		conn.Write([]byte("ClamAV 9.9.9/27800/Mon Nov 17 08:59:40 2025\x00"))
	case "zFILDES":
		if oobn == 0 {
			if _, oobn, _, _, err = conn.ReadMsgUnix(buf, oob); err != nil {
				return
			}
		}
		messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			return
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			return
		}
		word, _ := firstWord(os.NewFile(uintptr(fds[0]), "passed"), nil)
		answer(conn, word, known)
	}
}

func answer(conn *net.UnixConn, word string, known map[string]bool) {
	reply := "fd[7]: OK\x00"
	switch {
	case known[word]:
		reply = "fd[7]: " + word + " FOUND\x00"
	case word == "die":
		os.Exit(3)
	case word == "hang":
		_, _ = io.Copy(io.Discard, conn)
	case word == "fail":
		reply = "fd[7]: Can't allocate memory ERROR\x00"
	case word == "limit":
		reply = "fd[7]: Heuristics.Limits.Exceeded.MaxScanTime FOUND\x00"
	case word == "garbage":
		reply = strings.Repeat("fd[7]: OK\n", 1000)
	}
	conn.Write([]byte(reply))
}

func firstWord(f *os.File, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer f.Close()
	words := bufio.NewScanner(io.NewSectionReader(f, 0, 1024))
	words.Split(bufio.ScanWords)
	words.Scan()
	return strings.TrimRight(words.Text(), "\x00"), words.Err()
}
