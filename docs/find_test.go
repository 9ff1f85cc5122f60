package docs_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/docs"
)

// TestEveryRowIsFound: each row of the table can be printed, as plain text.
func TestEveryRowIsFound(t *testing.T) {
	t.Parallel()
	codes := regexp.MustCompile(`(?m)^\| (KO-\d{4}) \|`).FindAllStringSubmatch(docs.Errors, -1)
	if len(codes) < 20 {
		t.Fatalf("only %d codes", len(codes))
	}
	for _, m := range codes {
		e, ok := docs.Find(m[1])
		if !ok || e.Code != m[1] || e.Topic == "" || e.Means == "" || e.Do == "" {
			t.Errorf("%s: %+v", m[1], e)
		}
		if strings.ContainsAny(e.Means+e.Do, "`*\x00") || strings.Contains(e.Means+e.Do, "](") {
			t.Errorf("%s is not plain: %+v", m[1], e)
		}
	}
	for _, none := range []string{"", "KO", "KO-9999", "code", "KO-1001 | x"} {
		if e, ok := docs.Find(none); ok {
			t.Errorf("%q: %+v", none, e)
		}
	}
}
