// Package openapi writes an OpenAPI 3.1 document from a compiled .proto file, as the Connect protocol serves it over
// plain HTTP with JSON.
//
// It guarantees that the same file gives the same bytes.
package openapi

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// object is a JSON object; its keys come out sorted.
type object = map[string]any

// Generate turns a FileDescriptorSet, compiled with its comments, into a document.
func Generate(compiled []byte) ([]byte, error) {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(compiled, &set); err != nil {
		return nil, fmt.Errorf("read the compiled file: %w", err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, fmt.Errorf("read the compiled file: %w", err)
	}
	g := generator{paths: object{}, schemas: object{}}
	title := ""
	files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		title = string(f.Package())
		for i := range f.Services().Len() {
			g.service(f.Services().Get(i))
		}
		return true
	})
	g.schemas["Error"] = object{"type": "object", "properties": object{
		"code":    object{"type": "string", "description": "for example permission_denied"},
		"message": object{"type": "string", "description": "KO-nnnn: what is wrong. Next: what to do"},
	}}
	out, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info":    object{"title": title, "version": "1"},
		"paths":   g.paths,
		"components": object{
			"schemas":         g.schemas,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}, "host": object{"type": "mutualTLS"}},
		},
	}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write the document: %w", err)
	}
	return append(out, '\n'), nil
}

type generator struct{ paths, schemas object }

func (g *generator) service(s protoreflect.ServiceDescriptor) {
	scheme := "token"
	if strings.HasPrefix(string(s.Name()), "Host") {
		scheme = "host"
	}
	for i := range s.Methods().Len() {
		m := s.Methods().Get(i)
		call := object{
			"operationId": string(m.Name()), "tags": []string{string(s.Name())}, "summary": comment(m),
			"security":    []object{{scheme: []string{}}},
			"requestBody": object{"required": true, "content": jsonOf(g.ref(m.Input()))},
			"responses": object{
				"200":     object{"description": "done", "content": jsonOf(g.ref(m.Output()))},
				"default": object{"description": "refused", "content": jsonOf(object{"$ref": "#/components/schemas/Error"})},
			},
		}
		g.paths["/"+string(s.FullName())+"/"+string(m.Name())] = object{"post": call}
	}
}

func jsonOf(schema object) object { return object{"application/json": object{"schema": schema}} }

// ref names a message's schema, and makes it when it is first named.
func (g *generator) ref(m protoreflect.MessageDescriptor) object {
	name := string(m.Name())
	if g.schemas[name] == nil {
		properties := object{}
		g.schemas[name] = object{"type": "object", "properties": properties}
		if text := comment(m); text != "" {
			g.schemas[name] = object{"type": "object", "properties": properties, "description": text}
		}
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			properties[f.JSONName()] = g.field(f)
		}
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func (g *generator) field(f protoreflect.FieldDescriptor) object {
	var schema object
	switch {
	case f.IsMap():
		schema = object{"type": "object", "additionalProperties": g.value(f.MapValue())}
	case f.IsList():
		schema = object{"type": "array", "items": g.value(f)}
	default:
		schema = g.value(f)
	}
	if text := comment(f); text != "" {
		schema["description"] = text
	}
	return schema
}

// value is the schema of one value, in the JSON that protobuf writes.
func (g *generator) value(f protoreflect.FieldDescriptor) object {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return object{"type": "boolean"}
	case protoreflect.StringKind:
		return object{"type": "string"}
	case protoreflect.BytesKind:
		return object{"type": "string", "contentEncoding": "base64"}
	case protoreflect.EnumKind:
		var names []string
		for i := range f.Enum().Values().Len() {
			names = append(names, string(f.Enum().Values().Get(i).Name()))
		}
		return object{"type": "string", "enum": names}
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return g.ref(f.Message())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return object{"type": "number"}
	case protoreflect.Int64Kind, protoreflect.Uint64Kind, protoreflect.Sint64Kind, protoreflect.Fixed64Kind,
		protoreflect.Sfixed64Kind:
		return object{"type": "string", "pattern": "^-?[0-9]+$"} // a JSON number has no 64 bits
	default:
		return object{"type": "integer"}
	}
}

// comment is what stands above or behind something, on one line.
func comment(d protoreflect.Descriptor) string {
	at := d.ParentFile().SourceLocations().ByDescriptor(d)
	return strings.Join(strings.Fields(at.LeadingComments+" "+at.TrailingComments), " ")
}
