package rescue

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/recovery/diagnostics"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/rehearsal"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/recovery/settings"
	"github.com/keepout-security/keepout/internal/rescue/plan"
	"github.com/keepout-security/keepout/internal/sign"
)

const machineID = "0123456789abcdef0123456789abcdef"

// signer makes a key that is the same in every run.
func signer(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// rig is one machine in recovery: a folder for its boot file system, a server, and a clock that runs only while nothing
// else does, so that hours pass in moments and nothing depends on how fast the test's host is.
type rig struct {
	t      *testing.T
	m      Machine
	dir    *esp.Dir
	config plan.Config
	now    atomic.Int64 // nanoseconds since start
	idle   atomic.Bool  // nothing is under way
	start  time.Time

	mu      sync.Mutex
	left    []plan.Act
	records []*crash.Record
}

func newRig(t *testing.T, answer http.HandlerFunc) *rig {
	t.Helper()
	return newRigOn(t, t.TempDir(), answer)
}

func newRigOn(t *testing.T, folder string, answer http.HandlerFunc) *rig {
	t.Helper()
	r := &rig{t: t, dir: esp.Open(folder), start: time.Now()}
	if err := r.dir.Prepare(); err != nil {
		t.Fatal(err)
	}
	// boot-2 ended while it started acme-av; boot-3, in safe mode, started nobody, left no crumb, and ended, too.
	crumb := boot.Crumb{Boot: "boot-2", Provider: "acme-av", Engine: "7.2", Content: "291"}
	if err := r.dir.LeaveCrumb(crumb); err != nil {
		t.Fatal(err)
	}
	r.keep(func(s *boot.State) {
		s.Boot, s.Mode, s.Next, s.Failures, s.Suspect = "boot-3", boot.Safe, boot.Safe, 2, crumb
	})
	r.config = plan.Config{TotalWait: time.Hour, RetryInterval: 10 * time.Minute}
	config := settings.Config{
		Version: 1, Machine: machineID, Built: r.start.Add(-time.Hour), Server: "https://x",
		Volume: settings.Volume{Type: "vfat", ID: "x", Dir: "keepout"},
	}
	bundles := &bundler{config: config}
	r.m = Machine{
		Config: config, Dir: r.dir, BootID: "boot-4", Now: r.clock, Log: t.Logf,
		Panics: fstest.MapFS{"dmesg-erst-1": {Data: []byte("Panic#1 Part1\n<0>[ 1.0] Kernel panic - not syncing: x\n")}},
		Forget: func(string) error { return nil },
		Trust: remediation.Trust{
			Organisation: sign.Role{Keys: remediation.PublicKeys(signer("first"), signer("second")), Threshold: 2},
		},
		Bundle:  bundles.make,
		Connect: func(context.Context) (string, error) { return "192.0.2.7", nil },
		Screen:  r.screen,
		Leave:   r.leave,
		Arm:     func(int, int) error { return nil },
		Left:    -1,
	}
	if answer != nil {
		r.serve(answer, ServerOptions{})
	}
	return r
}

// serve starts a TLS server and makes it the machine's.
func (r *rig) serve(answer http.HandlerFunc, o ServerOptions) *httptest.Server {
	r.t.Helper()
	server := httptest.NewUnstartedServer(answer)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // some tests are about refused certificates
	server.StartTLS()
	r.t.Cleanup(server.Close)
	r.use(server, o)
	return server
}

func (r *rig) use(server *httptest.Server, o ServerOptions) {
	r.t.Helper()
	o.Roots = x509.NewCertPool()
	o.Roots.AddCert(server.Certificate())
	if o.Now == nil {
		o.Now = time.Now
	}
	client, err := NewServer(server.URL, o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.m.Server = client
}

func (r *rig) keep(change func(*boot.State)) {
	r.t.Helper()
	s := r.dir.State().State
	change(&s)
	if err := r.dir.Keep(&s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) clock() time.Time { return r.start.Add(time.Duration(r.now.Load())) }

func (r *rig) screen(record *crash.Record, _ bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, record)
}

func (r *rig) leave(a plan.Act) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = append(r.left, a)
}

// watched tells which phase the visit is in.
type watched struct {
	*Visit
	r *rig
}

func (w watched) Show(s plan.State) {
	w.Visit.Show(s)
	w.r.idle.Store(s.Phase == plan.Waiting || s.Phase == plan.Menu)
}

// visit plays one visit until the machine leaves or, at the menu, until nothing has happened for a day.
func (r *rig) visit() plan.State {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	v, facts := Open(r.m)
	tick := make(chan time.Time)
	done := make(chan plan.State, 1)
	go func() {
		s := Run(ctx, watched{v, r}, Clock{Now: r.clock, Tick: tick}, nil, r.config, facts)
		if v.kept != nil {
			<-v.kept // at the menu nobody waits for it
		}
		done <- s
	}()
	patience := time.After(time.Minute)
	for {
		step := 5 * time.Second
		if !r.idle.Load() {
			step = 0
			time.Sleep(time.Millisecond)
		}
		select {
		case s := <-done:
			return s
		case tick <- time.Time{}:
			r.now.Add(int64(step))
		case <-patience:
			r.t.Fatal("the visit has no end")
		}
		if time.Duration(r.now.Load()) > 24*time.Hour {
			cancel()
		}
	}
}

// wantOutcome checks how a visit ended: a restart, or the menu for good.
func (r *rig) wantOutcome(s plan.State, want plan.Phase) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	restarts := len(r.left)
	if s.Phase != want || (want == plan.Leaving) != (restarts == 1) || restarts > 1 {
		r.t.Errorf("phase %s after %q (trouble: %s), want %s", s.Phase, r.left, s.Trouble, want)
	}
}

// told reports whether the screen said something at some time.
func (r *rig) told(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, record := range r.records {
		for _, s := range record.Steps {
			if strings.Contains(s.Text+" "+s.Detail, text) {
				return true
			}
		}
	}
	return false
}

// answerWith is a server that has one envelope for everybody.
func answerWith(envelope func(protocol.FixRequest) []byte, revocations ...[]byte) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		w.Header().Set("Content-Type", protocol.ContentType)
		if req.URL.Path != protocol.FixPath {
			return
		}
		q, err := protocol.DecodeRequest(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		response := protocol.FixResponse{Version: 1, Status: protocol.NoFix, Revocations: revocations}
		if e := envelope(q); e != nil {
			response.Status, response.Envelope = protocol.HasFix, e
		}
		_ = json.NewEncoder(w).Encode(response)
	}
}

// fixFor is the fix for a question, signed by two keys.
func fixFor(t testing.TB, q protocol.FixRequest, change func(*remediation.Fix)) []byte {
	f := &remediation.Fix{
		Format: 1, ID: "fix-1", Kind: remediation.Targeted, Bundle: q.Digest, Reason: "it ends the machine",
		Issued: time.Now().Add(-time.Hour), Expires: time.Now().Add(time.Hour), Test: q.Test,
		Actions: []remediation.Action{{Verb: remediation.DisableProvider, Provider: "acme-av"}},
	}
	if q.Test {
		f.Actions = []remediation.Action{{Verb: remediation.Collect}}
	}
	if change != nil {
		change(f)
	}
	text, err := remediation.Encode(f)
	if err != nil {
		t.Error(err)
	}
	sealed, err := sign.Seal([]ed25519.PrivateKey{signer("first"), signer("second")}, remediation.PayloadType, text)
	if err != nil {
		t.Error(err)
	}
	return sealed
}

func TestVisitWithAFix(t *testing.T) {
	t.Parallel()
	r := newRig(t, answerWith(func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }))
	r.wantOutcome(r.visit(), plan.Leaving)
	intents, err := r.dir.Intents()
	if err != nil || len(intents) != 1 || intents[0].Name != "fix-fix-1.json" {
		t.Errorf("intents %v, %v", intents, err)
	}
	var found intent.Failure
	text, err := os.ReadFile(r.dir.Join("failure.json"))
	if err := errors.Join(err, json.Unmarshal(text, &found)); err != nil || found.At.Before(r.start) ||
		found.At.After(r.clock()) {
		t.Errorf("what the fix is held against at the next start: %s, %v", text, err)
	}
	if s := r.dir.State().State; s.Next != boot.Normal || s.Recoveries != 1 || s.Failures != 3 {
		t.Errorf("state %+v", s)
	}
	records, err := crash.List(os.DirFS(r.dir.Join(esp.Diag)))
	if err != nil || len(records) != 1 || records[0].Outcome == nil || records[0].Starting.ID != "acme-av" {
		t.Errorf("records %+v, %v", records, err)
	}
	bundles, err := filepath.Glob(r.dir.Join("diag/bundle-*"))
	if err != nil || len(bundles) != 1 {
		t.Errorf("bundles %q, %v", bundles, err)
	}
}

// TestPanicRecordsAreForgottenOnceKept: the firmware's small memory is cleared when what it held is kept elsewhere, and
// not before.
func TestPanicRecordsAreForgottenOnceKept(t *testing.T) {
	t.Parallel()
	for _, kept := range []bool{true, false} {
		r := newRig(t, answerWith(func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }))
		var mu sync.Mutex
		var forgotten []string
		r.m.Forget = func(record string) error {
			mu.Lock()
			defer mu.Unlock()
			forgotten = append(forgotten, record)
			return nil
		}
		if !kept { // a file in the place of the folder
			if err := os.WriteFile(r.dir.Join(esp.Diag), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r.wantOutcome(r.visit(), plan.Leaving)
		if want := map[bool]int{true: 1, false: 0}[kept]; len(forgotten) != want {
			t.Errorf("kept %v, forgotten %q", kept, forgotten)
		}
	}
}

// TestVisitWithoutDiagnostics: a machine that makes no bundle gets a fix all the same, and keeps its story.
func TestVisitWithoutDiagnostics(t *testing.T) {
	t.Parallel()
	campaign := func(q protocol.FixRequest) []byte {
		return fixFor(t, q, func(f *remediation.Fix) {
			f.Kind, f.Bundle, f.Sequence, f.Symptom.Provider = remediation.Campaign, "", 1, "acme-av"
		})
	}
	r := newRig(t, answerWith(campaign))
	config := r.m.Config
	config.Diagnostics = string(diagnostics.Off)
	r.m.Config, r.m.Bundle = config, (&bundler{config: config}).make
	s := r.visit()
	r.wantOutcome(s, plan.Leaving)
	if s.Remedy.Source != plan.Server || s.Remedy.ID != "fix-1" {
		t.Errorf("the remedy is %s", s.Remedy)
	}
	records, err := crash.List(os.DirFS(r.dir.Join(esp.Diag)))
	if err != nil || len(records) != 1 || records[0].Outcome == nil {
		t.Errorf("records %+v, %v", records, err)
	}
	if bundles, _ := filepath.Glob(r.dir.Join("diag/bundle-*")); len(bundles) > 0 {
		t.Errorf("bundles are kept: %q", bundles)
	}
}

// TestServersThatHelpNobody: whatever the server does, the machine ends with a restart by the local rule, and says why.
func TestServersThatHelpNobody(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		told   string
	}{
		"500": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
		}, "it answered 500"},
		"slow": {func(_ http.ResponseWriter, req *http.Request) {
			_, _ = io.Copy(io.Discard, req.Body) // else the server does not notice that the client went away
			<-req.Context().Done()
		}, "it did not answer in time"},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", protocol.ContentType)
			for block := make([]byte, 64<<10); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, "its answer is longer"},
		"a drop at a time": {func(w http.ResponseWriter, req *http.Request) {
			_, _ = io.Copy(io.Discard, req.Body)
			for w.Header().Set("Content-Type", protocol.ContentType); req.Context().Err() == nil; {
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		}, "it did not answer in time"},
		"captive portal": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>Please accept our terms</html>")
		}, "may want somebody to sign in"},
		"sends elsewhere": {func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "https://login.example.org/", http.StatusFound)
		}, "may want somebody to sign in"},
		"for another machine": {answerWith(func(q protocol.FixRequest) []byte {
			return fixFor(t, q, func(f *remediation.Fix) { f.Machines.IDs = []string{strings.Repeat("f", 32)} })
		}), "for other machines"},
		"for another failure": {answerWith(func(q protocol.FixRequest) []byte {
			return fixFor(t, q, func(f *remediation.Fix) { f.Bundle = strings.Repeat("0", 64) })
		}), "answers another report"},
		"unsigned": {answerWith(func(protocol.FixRequest) []byte { return []byte("{}") }), "a fix was refused"},
		"nothing":  {answerWith(func(protocol.FixRequest) []byte { return nil }), "no fix for this machine yet"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.serve(c.answer, ServerOptions{Limit: 300 * time.Millisecond})
			r.wantOutcome(r.visit(), plan.Leaving)
			if !r.told(c.told) {
				t.Errorf("the screen never said %q", c.told)
			}
			if got := r.dir.State().State.Orders.Disabled; len(got) != 1 || got[0] != "acme-av" {
				t.Errorf("disabled %q", got)
			}
		})
	}
}

// TestClockAt1970: a certificate that is not yet valid by a clock that is known to be wrong does not keep the fix away.
func TestClockAt1970(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.serve(answerWith(func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }),
		ServerOptions{Floor: time.Unix(86400, 0), Now: func() time.Time { return time.Unix(42, 0) }})
	s := r.visit()
	r.wantOutcome(s, plan.Leaving)
	if s.Remedy.Source != plan.Server {
		t.Errorf("remedy %s: %s", s.Remedy, s.Trouble)
	}
}

// TestRightClockKeepsCertificatesHonest: a clock that is not known to be wrong is believed.
func TestRightClockKeepsCertificatesHonest(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.serve(answerWith(func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }),
		ServerOptions{Now: func() time.Time { return time.Now().AddDate(200, 0, 0) }})
	if s := r.visit(); s.Remedy.Source != plan.Local || !r.told("expired") {
		t.Errorf("remedy %s: %s", s.Remedy, s.Trouble)
	}
}

func TestLoopGuard(t *testing.T) {
	t.Parallel()
	r := newRig(t, answerWith(func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }))
	for visit, want := range []plan.Phase{plan.Leaving, plan.Leaving, plan.Menu, plan.Menu} {
		r.m.BootID = "visit-" + string(rune('0'+visit))
		r.mu.Lock()
		r.left = nil
		r.mu.Unlock()
		r.now.Store(0)
		r.wantOutcome(r.visit(), want)
	}
}

func TestUnusableDisks(t *testing.T) {
	t.Parallel()
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, answerWith(func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }))
		r.m.Dir, r.m.Absent = nil, "mount /dev/vda2: permission denied"
		if r.wantOutcome(r.visit(), plan.Menu); !r.told("cannot be written: mount /dev/vda2: permission denied") {
			t.Error("the screen does not say why")
		}
	})
	t.Run("cannot be written", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, answerWith(func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }))
		for _, name := range []string{esp.StateA, esp.StateB} {
			if err := os.Remove(r.dir.Join(name)); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(r.dir.Join(name), 0o700); err != nil { // also root cannot write to a folder
				t.Fatal(err)
			}
		}
		r.wantOutcome(r.visit(), plan.Menu)
		if !r.told("cannot be written") {
			t.Error("the screen does not say why")
		}
	})
	t.Run("both copies damaged", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, answerWith(func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }))
		for _, name := range []string{esp.StateA, esp.StateB} {
			if err := os.WriteFile(r.dir.Join(name), make([]byte, boot.Size), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r.wantOutcome(r.visit(), plan.Leaving)
	})
	t.Run("the fix does not fit", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, answerWith(func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }))
		if err := os.WriteFile(r.dir.Join(esp.Intents), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r.wantOutcome(r.visit(), plan.Leaving)
		if got := r.dir.State().State.Orders.Disabled; len(got) != 1 || got[0] != "acme-av" {
			t.Errorf("the local rule did not act: disabled %q", got)
		}
	})
}

func TestRehearsal(t *testing.T) {
	t.Parallel()
	r := newRig(t, answerWith(func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }))
	if err := os.WriteFile(r.dir.Join(esp.Rehearsal), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := r.dir.State()
	s := r.visit()
	r.wantOutcome(s, plan.Leaving)
	if s.Remedy.Source != plan.Test || s.Remedy.ID != "fix-1" {
		t.Errorf("remedy %+v", s.Remedy)
	}
	if after := r.dir.State(); after.Sequence != before.Sequence {
		t.Error("a rehearsal changed the boot state")
	}
	if _, err := os.Stat(r.dir.Join(esp.Rehearsal)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the next visit would be a rehearsal, too")
	}
	for _, record := range r.records {
		if story := crash.Tell(record); story.Title != "This is a rehearsal" || strings.Contains(story.Suspect, "acme") {
			t.Fatalf("a rehearsal tells of a failure: %+v", story)
		}
	}
	report, err := rehearsal.Read(r.dir)
	if err != nil || !report.Passed || report.Fix != "fix-1" || len(report.Steps) < 3 || !report.Steps[0].Done {
		t.Errorf("report %+v, %v", report, err)
	}
}

// revocation takes fix-1 back, signed by somebody.
func revocation(t testing.TB, by string) []byte {
	t.Helper()
	return revocationOf(t, by, "fix-1")
}

func revocationOf(t testing.TB, by string, ids ...string) []byte {
	t.Helper()
	text, err := remediation.Encode(&remediation.Fix{
		Format: 1, ID: "r-1", Kind: remediation.Revocation, Revokes: ids, Reason: "it made things worse",
		Issued: time.Now().Add(-time.Hour), Expires: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sign.Seal([]ed25519.PrivateKey{signer(by)}, remediation.PayloadType, text)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// TestRevokedFixesAreRefused: a machine that has seen a revocation refuses the fix, in this visit and in later ones,
// also when the server then keeps silent about it; a stranger's, and one that is no revocation, stops nothing.
func TestRevokedFixesAreRefused(t *testing.T) {
	t.Parallel()
	give := func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }
	for name, c := range map[string]struct {
		revocation []byte
		refused    bool
	}{
		"one key of the organisation": {revocation(t, "first"), true},
		"a stranger's":                {revocation(t, "eve"), false},
		"nonsense":                    {[]byte("{}"), false},
		"a fix in its place":          {fixFor(t, protocol.FixRequest{Digest: strings.Repeat("0", 64)}, nil), false},
	} {
		r := newRig(t, answerWith(give, c.revocation, c.revocation))
		s := r.visit()
		r.wantOutcome(s, plan.Leaving)
		if refused := s.Remedy.Source == plan.Local; refused != c.refused || refused != r.told("was taken back") {
			t.Errorf("%s: %s (%s)", name, s.Remedy, s.Trouble)
		}
		if !c.refused {
			continue
		}
		r.m.BootID = "boot-5"
		r.now.Store(0)
		r.left = nil
		r.serve(answerWith(give), ServerOptions{})
		if s = r.visit(); s.Remedy.Source != plan.Local {
			t.Errorf("%s: in the next visit, without the revocation: %s", name, s.Remedy)
		}
	}
}

// TestARevocationWithoutRoomIsShown: it counts and does not hold, which is said once, however often the server repeats
// it.
func TestARevocationWithoutRoomIsShown(t *testing.T) {
	t.Parallel()
	var all [][]byte
	for n := range 5 {
		var ids []string
		for i := range remediation.MaxRevoked {
			ids = append(ids, fmt.Sprint("taken-back-", n*remediation.MaxRevoked+i))
		}
		all = append(all, revocationOf(t, "first", ids...))
	}
	r := newRig(t, answerWith(func(protocol.FixRequest) []byte { return nil }, all...))
	r.visit()
	last := r.records[len(r.records)-1]
	told := 0
	for _, line := range last.Details {
		if strings.Contains(line, remediation.CodeFull) {
			told++
		}
	}
	if told != 1 {
		t.Errorf("told %d times: %q", told, last.Details)
	}
}

// TestAFixThatWaitsIsShown: why a fix that was left to the next start was not applied there is on the screen of the
// next visit, and in its bundle.
func TestAFixThatWaitsIsShown(t *testing.T) {
	t.Parallel()
	const why = "KO-2530: fix one cannot be remembered: no space left on device"
	r := newRig(t, answerWith(func(protocol.FixRequest) []byte { return nil }))
	r.keep(func(s *boot.State) {
		*s, _ = s.Step(r.start, boot.Input{Kind: boot.NotRemedied, Why: why})
	})
	var made Bundle
	bundle := r.m.Bundle
	r.m.Bundle = func(e Evidence) (b Bundle, err error) {
		made, err = bundle(e)
		return made, err
	}
	r.visit()
	if text := strings.Join(r.records[len(r.records)-1].Details, "\n"); !strings.Contains(text, why) {
		t.Errorf("the screen says %q", text)
	}
	if !strings.Contains(string(made.Kept), why) {
		t.Errorf("the bundle is %s", made.Kept)
	}
}

// TestARehearsalThatFindsNothing: it comes back all the same, and the report says what did not work.
func TestARehearsalThatFindsNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer  http.HandlerFunc
		trouble string
	}{
		"no fix": {answerWith(func(protocol.FixRequest) []byte { return nil }), "no fix"},
		"a real fix": {answerWith(func(q protocol.FixRequest) []byte {
			q.Test = false
			return fixFor(t, q, nil)
		}), "for a rehearsal"},
	} {
		r := newRig(t, c.answer)
		if err := os.WriteFile(r.dir.Join(esp.Rehearsal), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r.wantOutcome(r.visit(), plan.Leaving)
		report, err := rehearsal.Read(r.dir)
		if err != nil || report.Passed || !strings.Contains(report.Trouble, c.trouble) {
			t.Errorf("%s: report %+v, %v", name, report, err)
		}
	}
}

func TestOldBundlesMakeRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t, answerWith(func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }))
	if err := os.Mkdir(r.dir.Join(esp.Diag), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		name := r.dir.Join("diag/bundle-2020" + string(rune('a'+i)))
		if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.visit()
	if left, _ := filepath.Glob(r.dir.Join("diag/bundle-*")); len(left) != esp.MaxBundles {
		t.Errorf("%d bundles stay, want %d", len(left), esp.MaxBundles)
	}
}
