package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/ledger/ledgertest"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/target"
	"github.com/backstep/backstep/internal/target/targettest"
	"github.com/backstep/backstep/internal/verdict"
	"github.com/backstep/backstep/internal/wayback"
)

// place is an environment in memory, with images in a registry of this process. Each run on it is an executor of its own.
type place struct {
	withoutLogs bool
	secrets     *secret.Known // nil when there are none
	t           *testing.T
	book        *ledgertest.Memory
	target      *targettest.Memory
	repository  string
	images      map[string]release.Release
	runs        int

	mu     sync.Mutex
	health map[string]func(context.Context) bool // by the short digest; a release answers well unless it says otherwise
}

func newPlace(t *testing.T) *place {
	return &place{t: t, book: &ledgertest.Memory{}, target: targettest.NewMemory(), repository: registrytest.InProcess(t) + "/acme/shop",
		images: map[string]release.Release{}, health: map[string]func(context.Context) bool{}}
}

// image pushes an image of this version, unless it is there.
func (p *place) image(version string) release.Release {
	p.t.Helper()
	if r, ok := p.images[version]; ok {
		return r
	}
	client := registry.New()
	config, err := client.PutBlob(p.t.Context(), p.repository, fmt.Appendf(nil, `{"config":{"Labels":{"org.opencontainers.image.version":%q}}}`, version))
	if err == nil {
		body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[]}`,
			registry.OCIManifest, config)
		_, err = client.Put(p.t.Context(), p.repository, version, registry.OCIManifest, body)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := client.Resolve(p.t.Context(), registry.Reference{Repository: p.repository, Tag: version})
	if err != nil {
		p.t.Fatal(err)
	}
	p.images[version] = r
	return r
}

// fails makes a version answer badly from now on.
func (p *place) fails(version string) {
	p.answers(version, func(context.Context) bool { return false })
}

func (p *place) answers(version string, well func(context.Context) bool) {
	r := p.image(version)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.health[r.Digest.Short()] = well
}

// Check is a probe of the place.
func (p *place) Check(ctx context.Context, address string) probe.Result {
	p.mu.Lock()
	well := p.health[strings.TrimSuffix(address, ":80")]
	p.mu.Unlock()
	if well != nil && !well(ctx) {
		return probe.Result{Outcome: probe.Fail, Got: "500"}
	}
	return probe.Result{Outcome: probe.Pass}
}

// run is a new run on the place, on another machine than all others.
func (p *place) run() *Executor {
	p.runs++
	env := &config.Environment{Name: "production", Strategy: plan.BlueGreen, Keep: 2, KeepLogs: !p.withoutLogs, ReadyTimeout: time.Second, Drain: time.Millisecond,
		Verify: config.Verify{Bake: 200 * time.Millisecond, Patience: 20 * time.Second, Objective: 0.01, Intolerable: 0.3, Alpha: 0.01, Beta: 0.05, Harmless: 1,
			Probes: []config.ProbeConfig{{Name: "http", Every: time.Millisecond, Timeout: time.Second, Probe: p}}}}
	configs := newConfigurations(env, nil, func(string) string { return "" }, p.secrets)
	return &Executor{Name: "production", Config: env, configs: configs, Ledger: keeping{p.book, configs}, Owner: p.repository + " production", registry: registry.New(), image: p.repository,
		sites: []wayback.Site{{Name: "production", Target: p.target, Router: p.target}}, world: World{Now: time.Now, Secrets: p.secrets},
		log:    slog.New(slog.NewTextHandler(io.Discard, nil)),
		author: release.Author{Actor: "ada", Machine: fmt.Sprint("machine ", p.runs), Process: 1}, holder: fmt.Sprint("holder ", p.runs)}
}

var rollsBack = Judging{RollBack: func(v verdict.Verdict) bool { return v == verdict.Fail }}

func (p *place) deploy(version string) error {
	_, err := p.run().Deploy(p.t.Context(), Deployment{Image: p.repository + ":" + p.image(version).Version, AllowOlder: true})
	return err
}

func (p *place) verify() (Verification, error) { return p.run().Verify(p.t.Context(), rollsBack) }

// good deploys and verifies versions, one after the other.
func (p *place) good(versions ...string) {
	p.t.Helper()
	for _, v := range versions {
		p.must(p.deploy(v))
		if got, err := p.verify(); err != nil || got.Evidence.Verdict != verdict.Pass {
			p.t.Fatalf("verify %s: %v, %v", v, got.Evidence.Verdict, err)
		}
	}
}

func (p *place) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) refused(err error, code fault.Code, text string) {
	p.t.Helper()
	if err == nil || fault.CodeOf(err) != code || !strings.Contains(err.Error(), text) {
		p.t.Fatalf("got code %d, %v\nwant code %d and %q", fault.CodeOf(err), err, code, text)
	}
}

// serving is the version that has all the traffic, "" when none has.
func (p *place) serving() string {
	p.t.Helper()
	for _, in := range p.state().Instances {
		if in.Weight == 100 {
			return in.Release.Version
		}
	}
	return ""
}

func (p *place) state() plan.State {
	p.t.Helper()
	s, err := p.target.Observe(context.Background())
	p.must(err)
	return s
}

func (p *place) newest() ledger.Event {
	p.t.Helper()
	e, err := p.book.Newest(context.Background())
	p.must(err)
	return e
}

// agrees makes sure that customers get what the ledger calls live, and that it is this version.
func (p *place) agrees(version string) ledger.Snapshot {
	p.t.Helper()
	s := p.newest().State
	if s.Live == nil || s.Live.Release.Version != version || p.serving() != version || s.Intent != nil {
		p.t.Fatalf("the ledger says %+v (intent %+v), customers get %q; want %s", s.Live, s.Intent, p.serving(), version)
	}
	return s
}

func (p *place) quarantined(versions ...string) {
	p.t.Helper()
	var got []string
	for _, q := range p.newest().State.Quarantined {
		got = append(got, q.Release.Version)
	}
	if !slices.Equal(got, versions) {
		p.t.Fatalf("in quarantine: %v, want %v", got, versions)
	}
}

var errGone = errors.New("the registry is gone")

// gone takes the ledger away, and back answers for it again.
func (p *place) gone() { p.book.SetFail(func(string) error { return errGone }) }
func (p *place) back() { p.book.SetFail(nil) }

// A fail is followed by one shift. With the ledger gone since the bake began, what happened is kept on the target; it is honoured
// there, and the next run of any step writes it down.
func TestTheTrafficGoesBackWithoutTheLedger(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	p.answers("1.1.0", func(context.Context) bool { p.gone(); return false })
	v, err := p.verify()
	p.must(err)
	if v.BackErr != nil || v.Back.Release.Version != "1.0.0" || !errors.Is(v.Back.Unwritten, errGone) || p.serving() != "1.0.0" {
		t.Fatalf("%+v, %v; %s serves", v.Back, v.BackErr, p.serving())
	}
	notes := p.state().Notes
	if len(notes) != 1 || notes[0].Left.Version != "1.1.0" || !notes[0].Condemn || !strings.Contains(notes[0].Evidence, "500") {
		t.Fatalf("notes: %+v", notes)
	}
	p.back()
	p.refused(p.deploy("1.1.0"), fault.Refused, "frozen")
	p.quarantined("1.1.0")
	s := p.agrees("1.0.0")
	if !s.Live.Restored || s.LastGood.Release.Version != "1.0.0" || len(p.state().Notes) != 0 {
		t.Errorf("%+v; notes %+v", s.Live, p.state().Notes)
	}
}

// By hand, too: the target knows the way back, and a second press does not go further.
func TestByHandWithoutTheLedger(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0", "1.1.0")
	p.must(p.deploy("1.2.0"))
	p.gone()
	out, err := p.run().Rollback(t.Context(), Rollback{Reason: "slow"})
	if err != nil || out.Release.Version != "1.1.0" || out.Unwritten == nil || p.serving() != "1.1.0" {
		t.Fatalf("%+v, %v; %s serves", out, err, p.serving())
	}
	again, err := p.run().Rollback(t.Context(), Rollback{Reason: "again"})
	if err != nil || !again.Already || p.serving() != "1.1.0" {
		t.Fatalf("%+v, %v; %s serves", again, err, p.serving())
	}
	p.back()
	p.refused(p.deploy("1.2.0"), fault.Refused, "frozen")
	p.agrees("1.1.0")
	p.quarantined("1.2.0")
}

// The verdict is on the release that verify was started for, and on no other.
func TestTheRightReleaseIsCondemned(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	other := rollsBack
	other.Release = p.image("1.0.0").ID()
	before := p.newest().Seq
	_, err := p.run().Verify(t.Context(), other)
	p.refused(err, fault.Refused, "is not live: 1.1.0")
	if now := p.newest().Seq; now != before {
		t.Errorf("%d events were written", now-before)
	}

	// While verify watches, a deploy is refused; one with a reason takes its place, and the verdict touches nobody.
	deployed := make(chan error, 2)
	var once sync.Once
	p.answers("1.1.0", func(context.Context) bool {
		once.Do(func() {
			for p.newest().State.Intent != nil && p.state().Claim.Aim != plan.Arm {
				time.Sleep(time.Millisecond)
			}
			p.must(p.book.Beat(context.Background(), p.newest().State.Intent.Seq))
			deployed <- p.deploy("1.2.0")
			_, err := p.run().Deploy(context.Background(), Deployment{Image: p.repository + ":1.2.0", TakeOver: "the fix"})
			deployed <- err
			p.fails("1.1.0")
		})
		return false
	})
	p.image("1.2.0")
	v, err := p.verify()
	if err == nil {
		err = v.BackErr
	}
	p.refused(err, fault.Refused, "taken over")
	p.refused(<-deployed, fault.Refused, "verify of 1.1.0")
	p.must(<-deployed)
	p.agrees("1.2.0")
	p.quarantined()
}

// A release that is dead when verify begins is a fail verdict, not a riddle for a person.
func TestDeadWhenVerifyBegins(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	p.target.SetPhase(p.image("1.1.0").ID(), plan.Failed, "it ended with exit code 1")
	v, err := p.verify()
	p.must(err)
	if v.Evidence.Verdict != verdict.Fail || v.Evidence.Reason != "the release died: it ended with exit code 1" || v.BackErr != nil {
		t.Fatalf("%s, %s, %v", v.Evidence.Verdict, v.Evidence.Reason, v.BackErr)
	}
	p.agrees("1.0.0")
	p.quarantined("1.1.0")
}

// What is good stays good when it is deployed once more.
func TestGoodStaysGood(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.0.0"))
	if live := p.agrees("1.0.0").Live; !live.Good {
		t.Fatalf("%+v", live)
	}
	p.must(p.deploy("1.1.0"))
	p.fails("1.1.0")
	v, err := p.verify()
	p.must(errors.Join(err, v.BackErr))
	p.agrees("1.0.0")
}

// A rollback that is asked for twice is done once; further back takes a name.
func TestTwiceAskedOnceDone(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0", "1.1.0", "1.2.0")
	for i := range 3 {
		out, err := p.run().Rollback(t.Context(), Rollback{Reason: "slow"})
		if err != nil || out.Release.Version != "1.1.0" || out.Already != (i > 0) {
			t.Fatalf("%d: %+v, %v", i, out, err)
		}
	}
	p.quarantined("1.2.0")
	if out, err := p.run().Rollback(t.Context(), Rollback{To: "1.0.0", Reason: "slow"}); err != nil || out.Release.Version != "1.0.0" {
		t.Fatalf("%+v, %v", out, err)
	}
	p.agrees("1.0.0")
}

// A dry run writes nothing and moves nothing, also when there is something to end.
func TestDryRunsChangeNothing(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0", "1.1.0")
	p.killed("1.2.0", "stage")
	changes := 0
	p.target.After = func(op string) {
		if op != "observe" && op != "find" && op != "has" && op != "logs" {
			changes++
		}
	}
	before := p.newest().Seq
	if _, err := p.run().Rollback(t.Context(), Rollback{DryRun: true}); err != nil {
		t.Error(err)
	}
	if _, err := p.run().Deploy(t.Context(), Deployment{Image: p.repository + ":1.2.0", DryRun: true}); err != nil {
		t.Error(err)
	}
	if now := p.newest().Seq; now != before || changes > 0 {
		t.Errorf("%d events and %d changes of the target", now-before, changes)
	}
}

// killed deploys version and is cut off from everything after its first operation op.
func (p *place) killed(version, op string) {
	p.t.Helper()
	p.image(version)
	x := p.run()
	ctx, cancel := context.WithCancel(p.t.Context())
	dead := errors.New("killed")
	after := p.target.After
	p.target.After = func(done string) {
		if done == op {
			cancel()
			p.gone()
			p.target.Fail = func(string) error { return dead }
		}
	}
	_, err := x.Deploy(ctx, Deployment{Image: p.repository + ":" + version})
	if err == nil {
		p.t.Fatal("it was not killed")
	}
	p.back()
	p.target.Fail, p.target.After = func(string) error { return nil }, after
}

// Whatever a dead deploy has moved, the next run takes it back; for a person's rollback that was all there was to do.
func TestADeadDeployIsTakenBack(t *testing.T) {
	for _, op := range []string{"claim", "stage", "shift"} {
		for _, next := range []string{"rollback", "verify"} {
			t.Run(op+" "+next, func(t *testing.T) {
				p := newPlace(t)
				p.good("1.0.0", "1.1.0")
				p.killed("1.2.0", op)
				if next == "rollback" {
					out, err := p.run().Rollback(t.Context(), Rollback{Reason: "slow"})
					if err != nil || out.Release.Version != "1.1.0" || !out.Already {
						t.Fatalf("%+v, %v", out, err)
					}
				} else if v, err := p.verify(); err != nil || v.Release.Version != "1.1.0" {
					t.Fatalf("%+v, %v", v, err)
				}
				p.agrees("1.1.0")
				p.quarantined()
			})
		}
	}
}

// A deploy that fails keeps what a rollback of the release before it would need.
func TestAFailedDeployKeepsTheWayBackWarm(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	p.target.SetPhase(p.image("1.2.0").ID(), plan.Failed, "it ended with exit code 3")
	p.refused(p.deploy("1.2.0"), fault.RolledBack, "it ended with exit code 3")
	s := p.state()
	if in := s.Find(p.image("1.0.0").ID()); in == nil || in.Phase != plan.Ready || s.Find(p.image("1.2.0").ID()) != nil {
		t.Errorf("%+v", s.Instances)
	}
	p.agrees("1.1.0")
}

// Nobody waits for a probe that hangs, and a signal after the verdict does not stop the way back.
func TestTheVerdictWaitsForNobody(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	p.fails("1.1.0")
	ctx, interrupt := context.WithCancel(t.Context())
	shifted := make(chan struct{})
	p.target.After = func(op string) {
		switch {
		case op == "claim" && p.state().Claim.Aim == plan.Fire:
			interrupt()
		case op == "shift":
			close(shifted)
		}
	}
	x := p.run()
	x.Config.Verify.Probes = append(x.Config.Verify.Probes, config.ProbeConfig{Name: "slow", Every: time.Hour, Timeout: time.Hour,
		Probe: hanging{shifted}})
	v, err := x.Verify(ctx, rollsBack)
	p.must(errors.Join(err, v.BackErr))
	p.target.After = func(string) {}
	p.agrees("1.0.0")
}

// hanging is a probe that ends only when the traffic is back, whatever its context says.
type hanging struct{ until chan struct{} }

func (h hanging) Check(context.Context, string) probe.Result {
	<-h.until
	return probe.Result{}
}

// A router that is gone is tried for a while; then the intent stays, and the next run carries it to its end.
func TestTheNextRunFinishesWhatCouldNotBeDone(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	p.fails("1.1.0")
	x := p.run()
	down := fmt.Errorf("haproxy: %w", target.ErrUnreachable)
	p.target.Fail = func(op string) error {
		if op == "shift" {
			return down
		}
		return nil
	}
	x.patience = 50 * time.Millisecond
	v, err := x.Verify(t.Context(), rollsBack)
	p.must(err)
	p.refused(v.BackErr, fault.HalfWay, "haproxy: the target cannot be reached")
	if in := p.newest().State.Intent; in == nil || in.Kind != ledger.VerifyStarted {
		t.Fatalf("the intent is %+v", in)
	}
	p.target.Fail = func(string) error { return nil }
	p.refused(p.deploy("1.2.0"), fault.Refused, "frozen")
	p.agrees("1.0.0")
	p.quarantined("1.1.0")
}

// A fail with nowhere to go is written all the same.
func TestAFailWithoutAWayBackIsWritten(t *testing.T) {
	p := newPlace(t)
	p.must(p.deploy("1.0.0"))
	p.fails("1.0.0")
	v, err := p.verify()
	p.must(err)
	p.refused(v.BackErr, fault.HalfWay, "there is no good release to go back to")
	if e := p.newest(); e.Kind != ledger.Rejected || !strings.Contains(e.Evidence, "500") {
		t.Errorf("%s: %s", e.Kind, e.Evidence)
	}
}

// The last lines of what is left are in the ledger before it is removed: not too many of them, without secrets, and none for who
// wants none.
func TestLastWords(t *testing.T) {
	said := append(slices.Repeat([]string{strings.Repeat("x", 1000)}, 9), "panic: no such table: orders: hunter2-hunter2")
	for _, withoutLogs := range []bool{false, true} {
		p := newPlace(t)
		p.withoutLogs, p.secrets = withoutLogs, secret.NewKnown(nil)
		p.secrets.Learn("hunter2-hunter2")
		p.good("1.0.0")
		p.must(p.deploy("1.1.0"))
		p.fails("1.1.0")
		p.target.SetLogs(p.image("1.1.0").ID(), said...)
		v, err := p.verify()
		p.must(errors.Join(err, v.BackErr))
		e := p.newest()
		if p.state().Find(p.image("1.1.0").ID()) != nil {
			t.Errorf("it is there still: %+v", p.state().Instances)
		}
		if kept := strings.Contains(e.Evidence, "no such table: orders: ***"); kept == withoutLogs || strings.Contains(e.Evidence, "hunter2") || len(e.Evidence) > wordBytes+500 {
			t.Errorf("without logs %v: %d bytes: %s", withoutLogs, len(e.Evidence), e.Evidence)
		}
	}
}

// What an event says in words has no secret, nor has the note on the target, whoever wrote it.
func TestEventsHaveNoSecrets(t *testing.T) {
	const hidden = "hunter2-hunter2"
	p := newPlace(t)
	p.secrets = secret.NewKnown(nil)
	p.secrets.Learn(hidden)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	p.fails("1.1.0")
	if _, err := p.run().Rollback(t.Context(), Rollback{Reason: "it said " + hidden}); err != nil {
		t.Fatal(err)
	}
	_, err := p.run().Ledger.Commit(t.Context(), func(e ledger.Event) (ledger.Event, error) {
		return ledger.SetFreeze(e, "since "+hidden, nil, p.run().Stamp())
	})
	p.must(err)
	for seq := p.newest().Seq; seq > 0; seq-- {
		e, err := p.book.At(t.Context(), seq)
		p.must(err)
		text, err := json.Marshal(e)
		p.must(err)
		if strings.Contains(string(text), hidden) {
			t.Errorf("event %d, %s: %s", seq, e.Kind, text)
		}
	}
	note := p.run().note(ledger.Event{State: ledger.Snapshot{Intent: &ledger.Intent{}}}, RolledBack{}, "it said "+hidden)
	if note.Why != "it said ***" {
		t.Errorf("the note says %q", note.Why)
	}
}

// A cold way back is started while the release bakes, and serves on a fail.
func TestAColdWayBackIsStarted(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	p.target.Remove(p.image("1.0.0").ID())
	p.answers("1.1.0", func(context.Context) bool { return p.state().Find(p.image("1.0.0").ID()) == nil })
	v, err := p.verify()
	p.must(errors.Join(err, v.BackErr))
	p.agrees("1.0.0")
}

// A secret that is missing closes only what needs it.
func TestAMissingSecretDoesNotCloseTheWayBack(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0", "1.1.0")
	p.must(p.deploy("1.2.0"))
	x := p.run()
	x.Config.Unset = fault.Inputf("DSN is not set")
	x.Config.Verify.Probes[0].Probe, x.Config.Verify.Probes[0].Err = nil, fault.Inputf("TOKEN is not set")
	_, err := x.Deploy(t.Context(), Deployment{Image: p.repository + ":1.2.0"})
	p.refused(err, fault.Input, "DSN is not set")
	out, err := x.Rollback(t.Context(), Rollback{Reason: "slow"})
	if err != nil || out.Release.Version != "1.1.0" {
		t.Fatalf("%+v, %v", out, err)
	}
	p.agrees("1.1.0")
}

// A release that ends and is started again by the engine has died, however well it answers in between.
func TestARestartIsADeath(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	restarts := 0
	x := p.run()
	x.sites[0].Target = restarting{p.target, p.image("1.1.0").ID(), &restarts}
	x.Config.Verify.Bake = 10 * time.Second
	v, err := x.Verify(t.Context(), rollsBack)
	p.must(errors.Join(err, v.BackErr))
	if v.Evidence.Reason != "the release died: it ended, and was started again (1 times)" {
		t.Errorf("%s", v.Evidence.Reason)
	}
	p.agrees("1.0.0")
}

// restarting is a target that says of one release that it was restarted once more each time it is looked at.
type restarting struct {
	*targettest.Memory
	id    release.ID
	count *int
}

func (r restarting) Find(ctx context.Context, id release.ID) (*plan.Instance, error) {
	in, err := r.Memory.Find(ctx, id)
	if in != nil && id == r.id {
		*r.count++
		in.Restarts = min(*r.count-1, 1)
	}
	return in, err
}

// What the target has kept is complete, although the registry has lost it.
func TestAnImageThatTheTargetHasKeptIsComplete(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0", "1.1.0")
	p.target.Remove(p.image("1.0.0").ID())
	if _, err := registry.New().Delete(t.Context(), p.repository, string(p.image("1.0.0").Digest)); err != nil {
		t.Fatal(err)
	}
	out, err := p.run().Rollback(t.Context(), Rollback{Reason: "slow"})
	if err != nil || out.Release.Version != "1.0.0" {
		t.Fatalf("%+v, %v", out, err)
	}
	p.agrees("1.0.0")
}

// A person rolls back without the registry while verify watches a healthy release: the pass that follows does not undo it.
func TestAPassDoesNotUndoARollback(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	var once sync.Once
	pressed := make(chan error, 1)
	p.answers("1.1.0", func(context.Context) bool {
		once.Do(func() {
			p.gone()
			_, err := p.run().Rollback(context.Background(), Rollback{Reason: "the colour is wrong"})
			pressed <- err
			p.back()
		})
		return true
	})
	_, err := p.verify()
	p.must(<-pressed)
	p.refused(err, fault.Refused, "the verdict pass on 1.1.0")
	p.agrees("1.0.0")
	p.quarantined("1.1.0")
}

// A rollback that lands between a deploy's look and its claim ends the deploy, which brings back nothing.
func TestADeployDoesNotBringBackWhatWasLeft(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	p.image("1.2.0")
	var once sync.Once
	p.book.SetFail(func(op string) error {
		if op != "pin" {
			return nil
		}
		var err error
		once.Do(func() { // the deploy is started, and has claimed nothing yet
			p.gone()
			_, err = p.run().Rollback(context.Background(), Rollback{Reason: "slow"})
			p.back()
		})
		return err
	})
	err := p.deploy("1.2.0")
	p.refused(err, fault.Refused, "somebody rolled back in between: ada")
	p.agrees("1.0.0")
	p.quarantined("1.1.0")
}

// Status says where the target is not as the ledger says, and changes nothing.
func TestStatusLooksAtTheTarget(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0", "1.1.0")
	want := func(difference string) {
		t.Helper()
		s, err := p.run().Status(t.Context())
		p.must(errors.Join(err, s.LedgerErr, s.TargetErr))
		if s.Difference != difference {
			t.Errorf("%q, want %q", s.Difference, difference)
		}
	}
	want("")
	id := p.image("1.1.0").ID()
	p.target.SetPhase(id, plan.Failed, "it ended with exit code 1")
	want(p.image("1.1.0").String() + " has failed: it ended with exit code 1")
	p.target.Remove(id)
	want(p.image("1.1.0").String() + " is not there")
	p.gone()
	_, err := p.run().Rollback(t.Context(), Rollback{Reason: "slow"})
	p.must(err)
	p.back()
	want(fmt.Sprintf("a rollback from %s to %s by ada is not written yet: slow", p.image("1.1.0"), p.image("1.0.0")))
	p.target.Fail = func(string) error { return target.ErrUnreachable }
	if s, err := p.run().Status(t.Context()); err != nil || s.LedgerErr != nil || !errors.Is(s.TargetErr, target.ErrUnreachable) || s.Newest.Seq == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// Without the registry, a deploy that was being undone is taken back by hand, and the good release is not left for an older one.
func TestByHandOverAHalfDoneUndo(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0", "1.1.0")
	p.image("1.2.0")
	p.fails("1.2.0")
	shifts := 0
	p.target.Fail = func(op string) error {
		if op == "shift" {
			if shifts++; shifts > 1 {
				return target.ErrUnreachable
			}
		}
		return nil
	}
	x := p.run()
	x.Config.Strategy, x.Config.Weights = plan.Canary, []int{50}
	x.patience = 30 * time.Millisecond
	_, err := x.Deploy(t.Context(), Deployment{Image: p.repository + ":1.2.0"})
	p.refused(err, fault.HalfWay, "take back 1.2.0")
	p.target.Fail = func(string) error { return nil }
	p.gone()
	out, err := p.run().Rollback(t.Context(), Rollback{Reason: "1.2.0 is bad"})
	if err != nil || out.Release.Version != "1.1.0" || p.serving() != "1.1.0" {
		t.Fatalf("%+v, %v", out, err)
	}
	p.back()
	p.must(p.deploy("1.3.0"))
	p.quarantined()
	p.agrees("1.3.0")
}

// Somebody died between making and starting the old release: what fires starts it.
func TestAWayBackThatWasNeverStarted(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	p.fails("1.1.0")
	made := p.image("1.0.0").ID()
	p.target.SetPhase(made, plan.Starting, "it was not started yet")
	p.target.After = func(op string) {
		if op == "stage" {
			p.target.SetPhase(made, plan.Ready, "")
		}
	}
	v, err := p.verify()
	p.must(errors.Join(err, v.BackErr))
	p.target.After = func(string) {}
	p.agrees("1.0.0")
}

// A rollback without the registry overtakes a deploy that is at work: what it decided stands, freeze and all.
func TestALivingDeployIsOvertaken(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0", "1.1.0")
	p.image("1.2.0")
	p.target.After = func(op string) {
		if op != "shift" {
			return
		}
		p.target.After = func(string) {}
		p.gone()
		out, err := p.run().Rollback(context.Background(), Rollback{Reason: "it is bad"})
		p.must(err)
		if out.Left.Version != "1.2.0" {
			t.Errorf("%+v", out)
		}
		p.back()
	}
	p.refused(p.deploy("1.2.0"), fault.Refused, "a newer run has taken over")
	s := p.agrees("1.1.0")
	p.quarantined("1.2.0")
	if s.FreezeBy(ledger.ByRollback) == nil {
		t.Error("the freeze is lost")
	}
}

// With a registry that can only be read, the decision is that of the ledger: also a release by its name that is cold.
func TestByNameWithAReadOnlyRegistry(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0", "1.1.0", "1.2.0")
	p.book.SetFail(func(op string) error {
		if op == "commit" {
			return errGone
		}
		return nil
	})
	out, err := p.run().Rollback(t.Context(), Rollback{To: "1.0.0", Reason: "slow"})
	if err != nil || out.Release.Version != "1.0.0" || p.serving() != "1.0.0" {
		t.Fatalf("%+v, %v", out, err)
	}
	p.gone()
	for _, to := range []string{"", "1.0.0"} {
		if again, err := p.run().Rollback(t.Context(), Rollback{To: to, Reason: "slow"}); err != nil || !again.Already {
			t.Fatalf("to %q: %+v, %v", to, again, err)
		}
	}
	p.back()
	_, err = p.verify()
	p.must(err)
	p.agrees("1.0.0")
	p.quarantined("1.2.0")
}

// Who did it, and why, survive it that somebody else writes it down.
func TestTheNextRunWritesWhoAndWhy(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0")
	p.must(p.deploy("1.1.0"))
	p.answers("1.1.0", func(context.Context) bool { p.gone(); return false })
	_, err := p.verify()
	p.must(err)
	p.back()
	bob := p.run()
	bob.author.Actor = "bob"
	_, err = bob.Deploy(t.Context(), Deployment{Image: p.repository + ":1.0.0"})
	p.refused(err, fault.Refused, "by ada")
	s := p.newest()
	if q := s.State.Quarantined[0]; q.Author.Actor != "ada" || !strings.HasPrefix(q.Reason, "verdict fail") || s.Author.Actor != "ada" || !strings.HasPrefix(s.Reason, "verdict fail") {
		t.Errorf("%+v; %s: %s", q, s.Author, s.Reason)
	}
}

// A fail verdict is a fail verdict, whether it can be written or not.
func TestAFailThatCannotBeWritten(t *testing.T) {
	p := newPlace(t)
	p.must(p.deploy("1.0.0"))
	p.answers("1.0.0", func(context.Context) bool { p.gone(); return false })
	v, err := p.verify()
	p.must(err)
	if v.Evidence.Verdict != verdict.Fail || !errors.Is(v.Unwritten, errGone) || v.BackErr == nil {
		t.Errorf("%s, unwritten %v, %v", v.Evidence.Verdict, v.Unwritten, v.BackErr)
	}
}

// Nothing to do is said only of what serves.
func TestAlreadyBackIsTrue(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0", "1.1.0")
	_, err := p.run().Rollback(t.Context(), Rollback{Reason: "slow"})
	p.must(err)
	p.target.Remove(p.image("1.0.0").ID())
	p.target.Lose(p.image("1.0.0").ID())
	_, err = p.run().Rollback(t.Context(), Rollback{Reason: "it is gone"})
	p.refused(err, fault.HalfWay, "but it does not serve")
}

// The registry was lost: an empty ledger takes over what the target knows, with what was good and what was found bad.
func TestAdoptAfterTheLedgerWasLost(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0", "1.1.0")
	p.must(p.deploy("1.2.0"))
	p.gone()
	if _, err := p.run().Rollback(t.Context(), Rollback{Reason: "slow"}); err != nil {
		t.Fatal(err)
	}
	p.book = &ledgertest.Memory{}
	p.refused(p.deploy("1.0.0"), fault.HalfWay, "but the ledger ends with event 0")
	before := p.state().Claim
	out, err := p.run().Adopt(t.Context(), "lost", false, func(Adoption) {})
	p.must(err)
	if out.Live.Release != p.image("1.1.0") || len(out.Good) != 1 || out.Good[0].Release != p.image("1.0.0") {
		t.Errorf("adopted %+v", out.Estate)
	}
	p.agrees("1.1.0")
	p.quarantined("1.2.0")
	now := p.state().Claim
	if now.Number.Compare(before.Number) <= 0 || now.Key != before.Key {
		t.Errorf("the claim is %+v, was %+v", now, before)
	}
	if _, err := p.run().Adopt(t.Context(), "again", false, func(Adoption) {}); fault.CodeOf(err) != fault.Input {
		t.Errorf("adopted twice: %v", err)
	}
	_, err = ledger.Unfreeze(p.newest(), "", "mended", ledger.Stamp{})
	p.must(err)
	if _, err := p.run().Rollback(t.Context(), Rollback{To: "1.0.0", Reason: "slower"}); err != nil {
		t.Fatal(err)
	}
	p.agrees("1.0.0")
}

// A restored release that never answers is found before the rollback counts as done: a person has to look.
func TestTheRestoredReleaseFailsAsWell(t *testing.T) {
	p := newPlace(t)
	p.good("1.0.0", "1.1.0")
	p.fails("1.0.0")
	_, err := p.run().Rollback(t.Context(), Rollback{Reason: "drill"})
	p.refused(err, fault.HalfWay, "the restored release fails as well: ")
	if e := p.newest(); e.Kind != ledger.RollbackFailed {
		t.Errorf("the newest event is %s", e.Kind)
	}
}
