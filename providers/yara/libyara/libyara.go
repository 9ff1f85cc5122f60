//go:build cgo && yara

package libyara

/*
#cgo LDFLAGS: -lyara
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yara.h>

typedef struct { int line; char text[256]; } ko_mistake;

// ko_on_compile keeps the first error, which is the cause of those that follow.
static void ko_on_compile(
    int level, const char *file, int line, const YR_RULE *rule, const char *text, void *user)
{
	ko_mistake *m = user;
	(void)file, (void)rule;
	if (level != YARA_ERROR_LEVEL_ERROR || m->text[0] != 0)
		return;
	m->line = line;
	snprintf(m->text, sizeof m->text, "%s", text);
}

// ko_compiler makes a compiler that reads no other files: what counts is covered by the content version.
static int ko_compiler(YR_COMPILER **out, ko_mistake *m)
{
	int err = yr_compiler_create(out);
	if (err == ERROR_SUCCESS) {
		yr_compiler_set_callback(*out, ko_on_compile, m);
		yr_compiler_set_include_callback(*out, NULL, NULL, NULL);
	}
	return err;
}

typedef struct { char rule[256]; } ko_match;

// ko_on_scan takes the first matching rule that is not informational, and ends the scan.
static int ko_on_scan(YR_SCAN_CONTEXT *context, int message, void *data, void *user)
{
	YR_RULE *rule = data;
	YR_META *meta;
	ko_match *m = user;
	(void)context;
	if (message != CALLBACK_MSG_RULE_MATCHING)
		return CALLBACK_CONTINUE;
	yr_rule_metas_foreach(rule, meta)
	{
		if (meta->type == META_TYPE_STRING && strcmp(meta->identifier, "keepout") == 0 &&
		    strcmp(meta->string, "audit") == 0)
			return CALLBACK_CONTINUE;
	}
	snprintf(m->rule, sizeof m->rule, "%s", rule->identifier);
	return CALLBACK_ABORT;
}

// ko_scan sets the limit beside the official call, which knows whole seconds only.
static int ko_scan(YR_SCANNER *s, const uint8_t *bytes, size_t size, uint64_t limit_ns, ko_match *m)
{
	m->rule[0] = 0;
	yr_scanner_set_flags(s, SCAN_FLAGS_FAST_MODE | SCAN_FLAGS_NO_TRYCATCH | SCAN_FLAGS_REPORT_RULES_MATCHING);
	yr_scanner_set_callback(s, ko_on_scan, m);
	s->timeout = limit_ns;
	return yr_scanner_scan_mem(s, bytes, size);
}
*/
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"
)

// ErrTimeout reports that a scan took longer than it was allowed to.
var ErrTimeout = errors.New("scan took too long")

// initialize runs once in a process because libyara's state is the process's (yr_initialize).
var initialize = sync.OnceValue(func() error { return check("initialize libyara", C.yr_initialize()) })

// Source is the text of one rule file. Rules of one source are in a namespace of their own.
type Source struct {
	Path string // for messages
	Text []byte
}

// Rules are compiled rules. They never change, and any number of scanners may use them at one time.
type Rules struct{ rules *C.YR_RULES }

// Compile compiles all sources together. An error names the file, the line and libyara's message. externals
// are string variables that rules may mention; they are empty. include is refused.
func Compile(sources []Source, externals ...string) (*Rules, error) {
	if err := initialize(); err != nil {
		return nil, err
	}
	mistake := (*C.ko_mistake)(C.calloc(1, C.sizeof_ko_mistake))
	defer C.free(unsafe.Pointer(mistake))
	var compiler *C.YR_COMPILER
	if err := check("create compiler", C.ko_compiler(&compiler, mistake)); err != nil {
		return nil, err
	}
	defer C.yr_compiler_destroy(compiler)
	empty := C.CString("")
	defer C.free(unsafe.Pointer(empty))
	for _, name := range externals {
		cname := C.CString(name)
		err := check("define "+name, C.yr_compiler_define_string_variable(compiler, cname, empty))
		C.free(unsafe.Pointer(cname))
		if err != nil {
			return nil, err
		}
	}
	for i, s := range sources {
		if err := add(compiler, mistake, i, s); err != nil {
			return nil, err
		}
	}
	r := &Rules{}
	return r, check("finish compiling", C.yr_compiler_get_rules(compiler, &r.rules))
}

func add(compiler *C.YR_COMPILER, mistake *C.ko_mistake, i int, s Source) error {
	if at := bytes.IndexByte(s.Text, 0); at >= 0 {
		line := bytes.Count(s.Text[:at], []byte{'\n'}) + 1
		return fmt.Errorf("%s:%d: NUL byte: not a text file", s.Path, line)
	}
	text, namespace := C.CString(string(s.Text)), C.CString(fmt.Sprintf("file%d", i))
	defer C.free(unsafe.Pointer(text))
	defer C.free(unsafe.Pointer(namespace))
	if C.yr_compiler_add_string(compiler, text, namespace) == 0 {
		return nil
	}
	message := C.GoString(&mistake.text[0])
	if message == "" {
		return fmt.Errorf("%s: libyara cannot compile it and does not say why", s.Path)
	}
	line := int(mistake.line)
	if line == 0 { // libyara has no line for an end that comes too early
		line = bytes.Count(bytes.TrimRight(s.Text, "\n"), []byte{'\n'}) + 1
		message += ": unexpected end of the file"
	}
	return fmt.Errorf("%s:%d: %s", s.Path, line, message)
}

// Count returns the number of rules, private and informational ones included.
func (r *Rules) Count() int { return int(r.rules.num_rules) }

// Close frees the rules. Preconditions: all scanners made from them are closed.
func (r *Rules) Close() { C.yr_rules_destroy(r.rules) }

// Scanner is what one scan at a time needs beside the rules. It belongs to no thread.
type Scanner struct {
	scanner *C.YR_SCANNER
	match   *C.ko_match
}

// NewScanner makes a scanner, which must be closed.
func (r *Rules) NewScanner() (*Scanner, error) {
	s := &Scanner{}
	if err := check("create scanner", C.yr_scanner_create(r.rules, &s.scanner)); err != nil {
		return nil, err
	}
	s.match = (*C.ko_match)(C.calloc(1, C.sizeof_ko_match))
	return s, nil
}

// Close frees the scanner. Preconditions: no scan is running.
func (s *Scanner) Close() {
	C.yr_scanner_destroy(s.scanner)
	C.free(unsafe.Pointer(s.match))
}

// Scan returns the identifier of the first rule that matches content, in the order of the sources, or "".
// Rules with the meta value keepout = "audit" do not count. It returns ErrTimeout after limit, which libyara
// looks at every few thousand bytes.
func (s *Scanner) Scan(content []byte, limit time.Duration) (rule string, err error) {
	if limit <= 0 {
		return "", ErrTimeout
	}
	var none [1]byte
	at := &none[0]
	if len(content) > 0 {
		at = &content[0]
	}
	code := C.ko_scan(s.scanner, (*C.uint8_t)(at), C.size_t(len(content)), C.uint64_t(limit), s.match)
	if code == C.ERROR_SCAN_TIMEOUT {
		return "", ErrTimeout
	}
	if err := check("scan", code); err != nil {
		return "", err
	}
	return C.GoString(&s.match.rule[0]), nil
}

// check turns one of libyara's codes (yara/error.h) into an error.
func check(what string, code C.int) error {
	switch code {
	case C.ERROR_SUCCESS:
		return nil
	case C.ERROR_INSUFFICIENT_MEMORY:
		return fmt.Errorf("%s: out of memory", what)
	default:
		return fmt.Errorf("%s: libyara error %d", what, int(code))
	}
}
