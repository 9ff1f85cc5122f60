package health_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/health"
)

func TestSort(t *testing.T) {
	t.Parallel()
	want := []health.Problem{
		{Severity: health.Failure, Code: "KO-1202"},
		{Severity: health.Failure, Code: "KO-1601"},
		{Severity: health.Warning, Code: "KO-1301", Provider: "a"},
		{Severity: health.Warning, Code: "KO-1301", Provider: "b", Title: "first"},
		{Severity: health.Warning, Code: "KO-1301", Provider: "b", Title: "second"},
		{Severity: health.Info, Code: "KO-1001"},
	}
	rapid.Check(t, func(t *rapid.T) {
		got := rapid.Permutation(want).Draw(t, "order")
		// Equal problems keep their order, so the two of provider b must be in it to begin with.
		at := map[string]int{}
		for i, p := range got {
			at[p.Title] = i
		}
		if at["first"] > at["second"] {
			got[at["first"]], got[at["second"]] = got[at["second"]], got[at["first"]]
		}
		health.Sort(got)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v", got)
		}
	})
}

func TestDegraded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		severities []health.Severity
		want       bool
	}{
		{nil, false},
		{[]health.Severity{health.Info, health.Info}, false},
		{[]health.Severity{health.Info, health.Warning}, true},
		{[]health.Severity{health.Failure}, true},
		{[]health.Severity{"catastrophe"}, true}, // from a newer daemon: rather say too much
	} {
		var problems []health.Problem
		for _, s := range c.severities {
			problems = append(problems, health.Problem{Severity: s})
		}
		if got := health.Degraded(problems); got != c.want {
			t.Errorf("%v: %v, want %v", c.severities, got, c.want)
		}
	}
}

func TestError(t *testing.T) {
	t.Parallel()
	p := health.Problem{Code: "KO-2004", Title: "no verdict is kept", Fix: "keepout events"}
	if got, want := p.Error(), "KO-2004: no verdict is kept. Next: keepout events"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.Fix = ""
	if got, want := p.Error(), "KO-2004: no verdict is kept"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var found health.Problem
	if !errors.As(fmt.Errorf("request: %w", p), &found) || found != p {
		t.Errorf("a wrapped problem is %+v", found)
	}
}

// TestCarry: a problem that stays keeps its time, whatever its words say by then; a new one begins now.
func TestCarry(t *testing.T) {
	t.Parallel()
	old, now := time.Unix(1000, 0), time.Unix(2000, 0)
	before := []health.Problem{
		{Code: "KO-1401", Title: "1 record", Since: old},
		{Code: "KO-1301", Provider: "a", Since: old},
		{Code: "KO-1201", Subject: "/srv", Since: old},
	}
	problems := []health.Problem{
		{Code: "KO-1401", Title: "7 records"},
		{Code: "KO-1301", Provider: "a"},
		{Code: "KO-1301", Provider: "b"},
		{Code: "KO-1201", Subject: "/srv"},
		{Code: "KO-1201", Subject: "/home"},
	}
	health.Carry(before, problems, now)
	for i, want := range []time.Time{old, old, now, old, now} {
		if !problems[i].Since.Equal(want) {
			t.Errorf("%+v: want since %v", problems[i], want)
		}
	}
	health.Carry(problems[2:3], problems, now.Add(time.Hour)) // what was gone begins anew
	if !problems[0].Since.Equal(now.Add(time.Hour)) || !problems[2].Since.Equal(now) {
		t.Errorf("later: %+v", problems)
	}
}

func TestUnadvised(t *testing.T) {
	t.Parallel()
	p := health.Problem{Code: "KO-2004", Title: "no verdict", Fix: "keepout events"}
	what, fix := health.Split(p.Error())
	if what != "KO-2004: no verdict" || fix != "keepout events" {
		t.Errorf("%q, %q", what, fix)
	}
	if got := health.Unadvised(errors.Join(p, errors.New("disk on fire"))); got != "KO-2004: no verdict; disk on fire" {
		t.Errorf("%q", got)
	}
}
