package testvm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStoryIsKept: the page shows every picture beside its words, in order, and what failed is said.
func TestStoryIsKept(t *testing.T) {
	t.Parallel()
	told := []scene{
		{At: time.Second, Text: "it <panics>", Picture: "a.png"},
		{At: 90 * time.Second, Text: "it recovers", Picture: "b.png"},
		{At: 91 * time.Second, Text: "measured: 3 s", Number: true},
	}
	for _, failed := range []bool{false, true} {
		dir := t.TempDir()
		if err := keepStory(dir, "A story", failed, told); err != nil {
			t.Fatal(err)
		}
		for name, wants := range map[string][]string{
			"index.html": {
				"<h1>A story", `src="a.png"`, "1.0 s", "it &lt;panics&gt;", `src="b.png"`, "90.0 s", "<li>measured: 3 s",
			},
			"story.txt": {"   1.0 s  it <panics>", filepath.Join(dir, "a.png"), "  90.0 s  it recovers", "measured: 3 s"},
		} {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			rest := string(text)
			for _, want := range wants {
				_, after, found := strings.Cut(rest, want)
				if rest = after; !found {
					t.Errorf("%s lacks %q, or has it too early", name, want)
				}
			}
			if strings.Contains(string(text), "FAILED") != failed {
				t.Errorf("%s does not say how it ended", name)
			}
		}
	}
}

func TestSecondsAfter(t *testing.T) {
	t.Parallel()
	if got := SecondsAfter(t, "keepout-rescue: screen: 2.50 s after the kernel's start"); got != 2.5 {
		t.Errorf("%v", got)
	}
}
