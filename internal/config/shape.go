package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// Bounds of a document. The YAML library recurses and copies once for each level, so depth is bounded before it
// sees anything.
const (
	maxDepth  = 16 // brackets within brackets
	maxIndent = 80 // columns before the first word of a line, and before a dash
	maxErrors = 20 // that are told at once
)

// refused are the parts of YAML that a configuration does not need. An alias within its own anchor would make the
// library recurse until the process dies, which no recover can stop.
var refused = map[token.Type]string{
	token.AnchorType:     "anchors (&name) are not supported",
	token.AliasType:      "aliases (*name) are not supported",
	token.MergeKeyType:   "merge keys (<<) are not supported",
	token.TagType:        "tags (!name) are not supported",
	token.MappingKeyType: "keys that begin with ? are not supported",
}

// scan refuses what must not reach the parser.
func (d *document) scan(tokens token.Tokens) error {
	depth, line := 0, 0
	for _, t := range tokens {
		if what := refused[t.Type]; what != "" {
			return d.where(t, what, "write the value out")
		}
		first := t.Position.Line > line
		line = t.Position.Line
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		default:
		}
		indented := t.Position.Column > maxIndent && depth <= 0 && (first || t.Type == token.SequenceEntryType)
		if depth > maxDepth || indented {
			return d.where(t, "too deeply nested", d.fix())
		}
	}
	return nil
}

// shape compares a parsed document with the Go type that it will be decoded into, so that what is wrong is said
// in the words of the file, at its place, and all at once.
type shape struct {
	d    *document
	errs []error
}

func (s *shape) bad(n ast.Node, what, fix string) {
	if len(s.errs) < maxErrors {
		s.errs = append(s.errs, s.d.where(firstToken(n), what, fix))
	}
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// check looks at one value; name is its key, for people.
func (s *shape) check(n ast.Node, t reflect.Type, name string) {
	if n == nil || n.Type() == ast.NullType {
		return // as if the key were not there
	}
	want := ""
	switch {
	case reflect.PointerTo(t).Implements(textUnmarshaler):
		s.checkText(n, t, name)
	case t.Kind() == reflect.Struct:
		want = s.checkStruct(n, t, name)
	case t.Kind() == reflect.Map:
		want = s.checkMap(n, t)
	case t.Kind() == reflect.Slice:
		want = s.checkList(n, t, name)
	case t.Kind() == reflect.String:
		want = s.checkString(n, name)
	case t.Kind() == reflect.Bool:
		if _, ok := n.(*ast.BoolNode); !ok {
			want = "true or false"
		}
	default:
		want = checkInteger(n, t)
	}
	if want != "" {
		s.bad(n, fmt.Sprintf("%s is %s, want %s", name, kindOf(n), want), s.d.fix())
	}
}

// entries returns the pairs of a mapping.
func entries(n ast.Node) (pairs []*ast.MappingValueNode, ok bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func (s *shape) checkStruct(n ast.Node, t reflect.Type, name string) (want string) {
	pairs, ok := entries(n)
	if !ok {
		return "keys with values"
	}
	known := map[string]reflect.Type{}
	keys := keysIn(t, known)
	for _, pair := range pairs {
		key := pair.Key.GetToken().Value
		if t, ok := known[key]; ok {
			s.check(pair.Value, t, key)
			continue
		}
		s.bad(pair, fmt.Sprintf("unknown key %q", key), "the keys of "+name+" are: "+strings.Join(keys, ", "))
	}
	return ""
}

// keysIn lists the keys of a struct, with those of structs that are part of it, and notes their types in known.
func keysIn(t reflect.Type, known map[string]reflect.Type) (keys []string) {
	for f := range t.Fields() {
		switch key := f.Tag.Get("yaml"); key {
		case "":
		case inline:
			keys = append(keys, keysIn(f.Type, known)...)
		default:
			known[key], keys = f.Type, append(keys, key)
		}
	}
	return keys
}

// inline is the tag of a struct whose keys are those of the struct around it.
const inline = ",inline"

func (s *shape) checkMap(n ast.Node, t reflect.Type) (want string) {
	pairs, ok := entries(n)
	if !ok {
		return "keys with values"
	}
	for _, pair := range pairs {
		s.check(pair.Value, t.Elem(), pair.Key.GetToken().Value)
	}
	return ""
}

func (s *shape) checkList(n ast.Node, t reflect.Type, name string) (want string) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		return "a list"
	}
	for _, v := range list.Values {
		s.check(v, t.Elem(), "an entry of "+name)
	}
	return ""
}

// checkString accepts a number where it stays the same as text: 010 and 1.50 would not.
func (s *shape) checkString(n ast.Node, name string) (want string) {
	same := true
	switch n := n.(type) {
	case *ast.IntegerNode:
		same = fmt.Sprint(n.Value) == n.Token.Value
	case *ast.FloatNode:
		same = strconv.FormatFloat(n.Value, 'g', -1, 64) == n.Token.Value
	case ast.ScalarNode:
	default:
		return "text"
	}
	if !same {
		s.bad(n, name+" would be read as a number", `write it in quotes: "`+n.GetToken().Value+`"`)
	}
	return ""
}

// checkText tries the type's own reader.
func (s *shape) checkText(n ast.Node, t reflect.Type, name string) {
	var text string
	switch n := n.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.LiteralNode:
		text = n.Value.Value
	case ast.ScalarNode:
		text = n.GetToken().Value
	default:
		s.bad(n, fmt.Sprintf("%s is %s, want one value", name, kindOf(n)), s.d.fix())
		return
	}
	into, ok := reflect.New(t).Interface().(encoding.TextUnmarshaler)
	if !ok {
		return
	}
	if err := into.UnmarshalText([]byte(text)); err != nil {
		what, fix := err.Error(), s.d.fix()
		if i := strings.LastIndex(what, ": write "); i >= 0 {
			what, fix = what[:i], what[i+2:]
		}
		s.bad(n, name+": "+what, fix)
	}
}

func checkInteger(n ast.Node, t reflect.Type) (want string) {
	number, ok := n.(*ast.IntegerNode)
	if !ok {
		return "a whole number"
	}
	zero, fits := reflect.Zero(t), false
	switch v := number.Value.(type) {
	case int64:
		fits = zero.CanInt() && !zero.OverflowInt(v) || zero.CanUint() && v >= 0 && !zero.OverflowUint(uint64(v))
	case uint64:
		fits = zero.CanUint() && !zero.OverflowUint(v) || zero.CanInt() && v <= 1<<62 && !zero.OverflowInt(int64(v))
	}
	if fits {
		return ""
	}
	if zero.CanUint() {
		return "a whole number from 0"
	}
	return "a smaller one"
}

// kindOf is what a person would call a value.
func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + n.GetToken().Value
	case *ast.BoolNode:
		return n.GetToken().Value
	}
	return "text"
}

// firstToken is where a value begins; the library calls the first colon the token of a mapping.
func firstToken(n ast.Node) *token.Token {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return n.GetToken()
}
