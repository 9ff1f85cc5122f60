package wire_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

const (
	protocolText = "../docs/protocol.md"
	tableBegin   = "<!-- vectors -->\n"
	tableEnd     = "<!-- /vectors -->"
)

func readText(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(protocolText)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestTextListsTheVectors holds the last section of the protocol's text to the vectors; -update writes it.
func TestTextListsTheVectors(t *testing.T) {
	var table strings.Builder
	table.WriteString("| vector | direction | valid | shows |\n|---|---|---|---|\n")
	for _, v := range vectors() {
		valid := "no"
		if v.valid {
			valid = "yes"
		}
		direction := strings.ReplaceAll(v.direction, "_", " ")
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", v.name, direction, valid, v.why)
	}
	text := readText(t)
	before, rest, ok := strings.Cut(text, tableBegin)
	old, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", protocolText)
	}
	switch {
	case old == table.String():
	case *update:
		text = before + tableBegin + table.String() + tableEnd + after
		if err := os.WriteFile(protocolText, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the table of vectors in %s is not current (go test ./wire -update)", protocolText)
	}
}

// TestTextHasEveryField holds the tables of the protocol's text to the schema.
func TestTextHasEveryField(t *testing.T) {
	text := readText(t)
	messages := pb.File_keepout_proto.Messages()
	for i := range messages.Len() {
		m := messages.Get(i)
		_, section, ok := strings.Cut(text, "\n### "+string(m.Name())+"\n")
		if !ok {
			t.Errorf("no section for %s", m.Name())
			continue
		}
		section, _, _ = strings.Cut(section, "\n#")
		rows := strings.Count(section, "\n| ")
		if n := m.Fields().Len(); n > 0 && rows != n+1 {
			t.Errorf("%s has %d fields, its table %d rows", m.Name(), n, rows-1)
		}
		for j := range m.Fields().Len() {
			f := m.Fields().Get(j)
			row := fmt.Sprintf("\n| %d | %#q | %s |", f.Number(), f.Name(), typeWord(f))
			if !strings.Contains(section, row) {
				t.Errorf("%s: no row %q", m.Name(), row[1:])
			}
		}
	}
	enums := pb.File_keepout_proto.Enums()
	for i := range enums.Len() {
		values := enums.Get(i).Values()
		for j := range values.Len() {
			v := values.Get(j)
			if !strings.Contains(text, fmt.Sprintf("| %d | %#q", v.Number(), v.Name())) {
				t.Errorf("no row for %s = %d", v.Name(), v.Number())
			}
		}
	}
}

// typeWord is how the text names a field's type.
func typeWord(f protoreflect.FieldDescriptor) string {
	word := f.Kind().String()
	switch {
	case f.IsMap():
		return "map of string to string"
	case f.Enum() != nil:
		word = string(f.Enum().Name())
	case f.Message() != nil:
		word = string(f.Message().Name())
	}
	if f.IsList() {
		return "repeated " + word
	}
	return word
}
