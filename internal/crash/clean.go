package crash

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Replacement stands for what cannot be shown, whether one byte or a run of them.
const Replacement = '?'

// Clean makes a text of unknown origin safe to show and to keep: one line, valid UTF-8, at most limit characters, of
// which the last is an ellipsis where something was cut. Runs of white space become one space. Control characters,
// characters without a glyph of their own (among them those that turn the direction of what follows), combining marks
// (which stack without bound) and bytes that are no UTF-8 become one Replacement for each run.
func Clean(text string, limit int) string {
	var b strings.Builder
	count, space, odd := 0, false, false
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		i += size
		if unicode.IsSpace(r) {
			space, odd = count > 0, false
			continue
		}
		if !showable(r, size) {
			if odd {
				continue
			}
			r, odd = Replacement, true
		} else {
			odd = false
		}
		if space {
			b.WriteByte(' ')
			count++
			space = false
		}
		b.WriteRune(r)
		if count++; count > limit {
			return cut(b.String(), limit)
		}
	}
	return b.String()
}

// showable reports whether a character that was decoded from size bytes has a glyph and stays within its cell.
func showable(r rune, size int) bool {
	if r == utf8.RuneError && size <= 1 {
		return false
	}
	return unicode.IsPrint(r) && !unicode.Is(unicode.M, r) && !unicode.Is(unicode.Co, r)
}

// cut shortens a text to limit characters, the last of them an ellipsis.
func cut(text string, limit int) string {
	runes := []rune(text)
	if len(runes) <= limit {
		return text
	}
	if limit <= 0 {
		return ""
	}
	return strings.TrimRight(string(runes[:limit-1]), " ") + "…"
}

// Cleaned is a copy of the record in which every text went through Clean and every list is within its bound. A suspect
// without a reason is gone: there is no blame without evidence. What a list loses at its end is said in its last line.
func (r *Record) Cleaned() Record {
	out := *r
	out.Format = Format
	out.Code, out.Address = Clean(r.Code, MaxName), Clean(r.Address, MaxText)
	out.Cause = Clean(r.Cause, MaxText)
	out.Attempts = min(max(r.Attempts, 0), 9999)
	if r.Starting != nil {
		p := r.Starting.cleaned()
		out.Starting = &p
	}
	out.Suspect = nil
	if r.Suspect != nil {
		s := Suspect{Product: r.Suspect.cleaned(), Reason: strings.TrimRight(Clean(r.Suspect.Reason, MaxText), ".")}
		if s.Reason != "" && s.Label() != "" {
			out.Suspect = &s
		}
	}
	out.Steps = nil
	for _, s := range r.Steps[:min(len(r.Steps), MaxSteps)] {
		out.Steps = append(out.Steps, Step{
			Progress: s.Progress.known(), Text: Clean(s.Text, MaxText), Detail: Clean(s.Detail, MaxText),
		})
	}
	out.Details = nil
	for _, line := range r.Details[:min(len(r.Details), MaxDetails)] {
		out.Details = append(out.Details, Clean(line, MaxText))
	}
	if lost := len(r.Details) - MaxDetails; lost > 0 {
		out.Details[MaxDetails-1] = plural(lost+1, "more line") + " left out"
	}
	out.Choices, out.Keys = cleanKeys(r.Choices, MaxChoices), cleanKeys(r.Keys, MaxKeys)
	if r.Outcome != nil {
		o := *r.Outcome
		o.Action, o.By = strings.TrimRight(Clean(o.Action, MaxText), "."), Clean(o.By, MaxText)
		out.Outcome = &o
	}
	return out
}

func (p *Product) cleaned() Product {
	out := Product{
		ID: Clean(p.ID, MaxName), Name: Clean(p.Name, MaxName), Engine: Clean(p.Engine, MaxName),
		Content: Clean(p.Content, MaxName),
	}
	if out.ID != "" && strings.ContainsRune(out.Name, Replacement) && !strings.ContainsRune(p.Name, Replacement) {
		out.Name = "" // a mutilated name is worse than the id
	}
	return out
}

func (p Progress) known() Progress {
	switch p {
	case Waiting, Running, Done, Failed, Skipped:
		return p
	}
	return Waiting
}

func cleanKeys(keys []Key, limit int) []Key {
	var out []Key
	for _, k := range keys[:min(len(keys), limit)] {
		if k := (Key{Name: Clean(k.Name, 8), Text: Clean(k.Text, MaxName)}); k.Name != "" {
			out = append(out, k)
		}
	}
	return out
}
