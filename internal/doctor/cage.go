package doctor

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/roster"
)

// checkCages says by which layers each running provider is confined.
func checkCages(f *facts) []Finding {
	n := notes{section: Cage}
	if f.status == nil {
		return nil // checkCore has said so
	}
	for i := range f.status.Providers {
		p := &f.status.Providers[i]
		if p.PID == 0 {
			continue // the proof says that it does not run
		}
		l := layersOf(p)
		title := p.ID + " is confined by " + list(l.on)
		if len(l.on) == 0 {
			title = p.ID + " is not confined"
		}
		if len(l.off)+len(l.reasons) == 0 && !l.reduced {
			n.ok("cage", title).Provider = p.ID
			continue
		}
		if len(l.off) > 0 {
			title += "; without " + list(l.off)
		}
		if len(l.reasons) > 0 {
			title += ": " + strings.Join(l.reasons, "; ")
		}
		n.warning("cage", "KO-1304", title, "start keepoutd as root; docs/limits.md says what each layer needs").
			Provider = p.ID
	}
	return n.all
}

// layers is a confinement in words.
type layers struct {
	on, off []string // names
	reasons []string // why something is missing
	reduced bool
}

// layersOf reads a confinement by its JSON, so that a layer which a later version adds is shown by its name: what is
// true is on, what is false is off, "reduced" is either a flag or holds the reasons, and of an object about one layer
// a text is its reason.
func layersOf(p *roster.Status) (l layers) {
	b, err := json.Marshal(p.Confinement)
	if err != nil {
		return layers{reduced: true, reasons: []string{err.Error()}}
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		return layers{reduced: true, reasons: []string{err.Error()}}
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		l.take(key, fields[key])
	}
	return l
}

func (l *layers) take(key string, value any) {
	name := strings.ReplaceAll(key, "_", " ")
	switch v := value.(type) {
	case bool:
		switch {
		case key == "reduced":
			l.reduced = l.reduced || v
		case v:
			l.on = append(l.on, name)
		default:
			l.off = append(l.off, name)
		}
	case string:
		if v != "" && explains(key) {
			l.reasons = append(l.reasons, v)
		} else if v != "" {
			l.on = append(l.on, name+" "+v)
		}
	case float64:
		if v != 0 {
			l.on = append(l.on, fmt.Sprintf("%s %v", name, v))
		}
	case []any:
		for _, each := range v {
			l.item(key, each)
		}
	case map[string]any:
		l.object(name, v)
	}
}

// explains reports whether a text under this key says why something is missing.
func explains(key string) bool {
	return slices.ContainsFunc([]string{"reduced", "reason", "why", "missing", "lack"}, func(word string) bool {
		return strings.Contains(key, word)
	})
}

func (l *layers) item(key string, value any) {
	switch v := value.(type) {
	case string:
		if explains(key) {
			l.reasons = append(l.reasons, v)
		} else {
			l.on = append(l.on, v)
		}
	case map[string]any:
		name, _ := v["name"].(string)
		if layer, ok := v["layer"].(string); ok {
			name = layer
		}
		l.object(name, v)
	}
}

// object is about one layer: a flag says whether it is on, texts beside its name say why not.
func (l *layers) object(name string, fields map[string]any) {
	on, said := true, ""
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		switch v := fields[key].(type) {
		case bool:
			on = on && v
		case string:
			if key != "name" && key != "layer" && v != "" {
				said = v
			}
		}
	}
	switch {
	case on:
		l.on = append(l.on, name)
	case said == "":
		l.off = append(l.off, name)
	default:
		l.off = append(l.off, name+" ("+said+")")
	}
}

// list joins words as in a sentence.
func list(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}
