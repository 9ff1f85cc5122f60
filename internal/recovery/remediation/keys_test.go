package remediation

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/sign"
)

func idOf(name string) string { return string(sign.IDOf(PublicKeys(keyFrom(name))[0])) }

func takesBack(names ...string) Fix {
	f := revocation()
	f.Revokes = nil
	for _, n := range names {
		f.RevokesKeys = append(f.RevokesKeys, idOf(n))
	}
	return f
}

// TestRevokedKeysSignNothing: two keys take back any key, one only itself, strangers and vendors none; what a key signs
// that was taken back counts for nothing, alone or as one of two, and it takes nothing back either.
func TestRevokedKeysSignNothing(t *testing.T) {
	t.Parallel()
	code := func(state State, f Fix, signers ...string) (State, string) {
		plan, err := Judge(trust(), state, machine(), seal(t, f, signers...))
		var p health.Problem
		if errors.As(err, &p) {
			return state, p.Code
		}
		return plan.State, ""
	}
	for name, c := range map[string]struct {
		signers []string
		keys    []string
		code    string
	}{
		"two, of a third":        {[]string{"ada", "bob"}, []string{"cyd"}, ""},
		"two, of one of them":    {[]string{"ada", "bob"}, []string{"bob"}, ""},
		"two, of a vendor's":     {[]string{"ada", "bob"}, []string{"acme"}, ""},
		"one, of itself":         {[]string{"cyd"}, []string{"cyd"}, ""},
		"one, of another":        {[]string{"cyd"}, []string{"ada"}, CodeOverreach},
		"one, of itself and all": {[]string{"cyd"}, []string{"cyd", "ada"}, CodeOverreach},
		"one twice":              {[]string{"cyd", "cyd"}, []string{"ada"}, CodeOverreach},
		"a stranger":             {[]string{"eve"}, []string{"eve"}, CodeSignature},
		"a vendor":               {[]string{"acme"}, []string{"acme"}, CodeSignature},
	} {
		if _, got := code(State{}, takesBack(c.keys...), c.signers...); got != c.code {
			t.Errorf("%s: %q, want %q", name, got, c.code)
		}
	}
	state, _ := code(State{}, takesBack("cyd", "acme"), "ada", "bob")
	if len(state.RevokedKeys) != 2 || !state.Floor.IsZero() {
		t.Fatalf("after it %+v", state)
	}
	for name, c := range map[string]struct {
		fix     Fix
		signers []string
		code    string
	}{
		"one of two":    {campaign(), []string{"ada", "cyd"}, CodeSignature},
		"the vendor":    {byVendor(), []string{"acme"}, CodeSignature},
		"a revocation":  {revocation(), []string{"cyd"}, CodeSignature},
		"the others":    {campaign(), []string{"ada", "bob"}, ""},
		"all three":     {campaign(), []string{"ada", "bob", "cyd"}, ""},
		"the same once": {takesBack("cyd"), []string{"ada", "bob"}, CodeReplay},
	} {
		if _, got := code(state, c.fix, c.signers...); got != c.code {
			t.Errorf("%s: %q, want %q", name, got, c.code)
		}
	}
	if after, got := code(state, campaign(), "ada", "bob"); got != "" || len(after.RevokedKeys) != 2 {
		t.Errorf("a fix lets a key come back: %+v, %s", after, got)
	}
	data, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Remember(data); err != nil || !reflect.DeepEqual(again, state) {
		t.Errorf("remembered %+v, %v", again, err)
	}
}
