package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
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

// serve reads commands one after the other; in a session it answers each with its number, and otherwise only the first.
func serve(conn *net.UnixConn, known map[string]bool) {
	defer conn.Close()
	var pending []byte
	var fds []int
	session, asked := false, 0
	buf, oob := make([]byte, 64), make([]byte, 64)
	for {
		end := bytes.IndexByte(pending, 0)
		if end >= 0 {
			command := string(pending[:end])
			if command == "zFILDES" && len(fds) == 0 {
				end = -1 // the byte that carries the descriptor may arrive with the command or after it
			}
		}
		if end < 0 {
			n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
			if err != nil || n == 0 {
				return
			}
			pending = append(pending, buf[:n]...)
			if messages, err := syscall.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) == 1 {
				passed, _ := syscall.ParseUnixRights(&messages[0])
				fds = append(fds, passed...)
			}
			continue
		}
		command := string(pending[:end])
		pending = pending[end+1:]
		number := ""
		if session {
			asked++
			number = strconv.Itoa(asked) + ": "
		}
		switch command {
		case "zIDSESSION":
			session = true
			continue
		case "zPING":
			conn.Write([]byte(number + "PONG\x00"))
		case "zVERSION":
			conn.Write([]byte(number + "ClamAV 9.9.9/27800/Mon Nov 17 08:59:40 2025\x00"))
		case "zFILDES":
			pending = pending[1:] // the byte that came with the descriptor
			word, _ := firstWord(os.NewFile(uintptr(fds[0]), "passed"), nil)
			fds = fds[1:]
			answer(conn, number, word, known)
		}
		if !session {
			return
		}
	}
}

func answer(conn *net.UnixConn, number, word string, known map[string]bool) {
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
	case word == "together": // answered once as many ask at one time as there are workers
		together.Done()
		together.Wait()
	case word == "last": // clamd ends the session, as it does after a while
		defer conn.Close()
	case word == "misnumbered":
		number = "9" + number
	}
	conn.Write([]byte(number + reply))
}

// together is where scans wait for each other in the process that stands in for clamd.
var together = func() *sync.WaitGroup {
	wg := new(sync.WaitGroup)
	wg.Add(workers)
	return wg
}()

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
