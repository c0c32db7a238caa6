package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	ledgerregistry "github.com/backstep/backstep/internal/ledger/registry"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/release"
)

// kept is a run on the place whose ledger is in the registry, and what the ledger reported to it.
func (p *place) kept() (x *Executor, found func() string) {
	x = p.run()
	book := ledgerregistry.New(registry.New(), p.repository, "shop", "production")
	var mu sync.Mutex
	var all []string
	book.Report = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, err.Error())
	}
	x.Ledger, x.tidied = keeping{book, x.configs}, book.Wait
	return x, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(all, "; ")
	}
}

// released makes the versions live, one after the other; all but the last are good. It returns the newest event.
func (p *place) released(versions ...string) ledger.Event {
	p.t.Helper()
	for i, version := range versions {
		p.image(version)
		x, _ := p.kept()
		_, err := x.Deploy(p.t.Context(), Deployment{Image: p.repository + ":" + version})
		if err == nil && i < len(versions)-1 {
			_, err = x.Verify(p.t.Context(), rollsBack)
		}
		x.Close()
		p.must(err)
	}
	x, _ := p.kept()
	newest, err := x.Ledger.Newest(p.t.Context())
	p.must(err)
	return newest
}

// forge puts an event under each of the tags that looks like the one after newest.
func (p *place) forge(newest ledger.Event, change func(*ledger.Event), tags ...string) {
	p.t.Helper()
	e := newest
	e.Seq, e.Kind, e.Previous = newest.Seq+1, ledger.Verified, newest.Digest
	change(&e)
	data, err := json.Marshal(e)
	p.must(err)
	text, err := json.Marshal(string(data))
	p.must(err)
	empty := `{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="}`
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.backstep.event.v1","config":%s,"layers":[%s],"annotations":{"dev.backstep.event":%s,"dev.backstep.before":%q}}`,
		registry.OCIManifest, empty, empty, text, strings.TrimPrefix(string(e.Previous), "sha256:")[:16])
	for _, tag := range tags {
		if tag == "" {
			tag = fmt.Sprintf("bs.shop.production.%08d", e.Seq)
		}
		_, err := registry.New().Put(p.t.Context(), p.repository, tag, registry.OCIManifest, []byte(body))
		p.must(err)
	}
}

// foreign makes a release of another repository the one to go back to.
func foreign(e *ledger.Event) {
	evil := release.Release{Digest: release.Digest("sha256:" + strings.Repeat("6", 64)), Repository: "evil.example/x", Version: "6.6.6"}
	entry := ledger.Entry{Release: evil, ID: "1", Seq: 1, Good: true}
	e.State.Recent = []ledger.Entry{*e.State.Live, entry}
	e.State.LastGood = &entry
}

// An event that somebody with push rights has written never decides what a rollback starts, whatever of it is right: it goes on from the
// last event that holds, or from what the target knows.
func TestARollbackNeverFollowsAForgedEvent(t *testing.T) {
	zero := release.Digest("sha256:" + strings.Repeat("0", 64))
	hint := "bs.shop.production"
	p := newPlace(t)
	unproven := p.image("0.9.0")
	turned := func(e *ledger.Event) { // a release of ours, which nobody has ever found good
		unproven.Repository = e.State.Live.Release.Repository
		entry := ledger.Entry{Release: unproven, ID: "1", Seq: 1, Good: true}
		e.State.Recent = []ledger.Entry{*e.State.Live, entry}
		e.State.LastGood = &entry
	}
	for name, c := range map[string]struct {
		change func(*ledger.Event)
		tags   []string
	}{
		"that turns the past":          {func(e *ledger.Event) { turned(e); e.Seq-- }, []string{"", hint}},
		"that turns it and jumps":      {func(e *ledger.Event) { turned(e); e.Seq += 900 }, []string{"", hint}},
		"that follows nothing":         {func(e *ledger.Event) { foreign(e); e.Previous = zero }, []string{""}},
		"in the hint too":              {func(e *ledger.Event) { foreign(e); e.Previous = zero }, []string{"", hint}},
		"in the place of the newest":   {func(e *ledger.Event) { foreign(e); e.Seq-- }, []string{"", hint}},
		"numbered 99999999":            {func(e *ledger.Event) { foreign(e); e.Seq = 99_999_999 }, []string{"", hint}},
		"that follows the newest":      {foreign, []string{""}},
		"that follows it, in the hint": {foreign, []string{"", hint}},
		"of another service":           {func(e *ledger.Event) { foreign(e); e.Service = "web" }, []string{"", hint}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			newest := p.released("1.0.0", "1.1.0")
			p.forge(newest, c.change, c.tags...)
			x, found := p.kept()
			defer x.Close()
			out, err := x.Rollback(t.Context(), Rollback{Reason: "slow"})
			if err != nil || out.Release.Version != "1.0.0" || p.serving() != "1.0.0" {
				t.Errorf("rolled back to %s, %v; %s serves; want 1.0.0", out.Release, err, p.serving())
			}
			if found() == "" && out.Unwritten == nil {
				t.Error("nobody is told")
			}
		})
	}
}

// A deploy on a ledger that names a release of another repository is refused, and adopt ends that.
func TestAForeignRepositoryIsRefused(t *testing.T) {
	p := newPlace(t)
	newest := p.released("1.0.0", "1.1.0")
	p.forge(newest, foreign, "", "bs.shop.production")
	p.image("1.2.0")
	deploy := func() error {
		x, _ := p.kept()
		defer x.Close()
		_, err := x.Deploy(t.Context(), Deployment{Image: p.repository + ":1.2.0"})
		return err
	}
	want := fmt.Sprintf("event %d names 6.6.6 (666666666666) of evil.example/x: the ledger was rewritten: the configuration has the repository %s, and no target knows it from there", newest.Seq+1, p.repository)
	if err := deploy(); !errors.Is(err, ledger.ErrForged) || fault.CodeOf(err) != fault.Refused || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if p.serving() != "1.1.0" {
		t.Errorf("%s serves", p.serving())
	}
	x, _ := p.kept()
	_, err := x.Adopt(t.Context(), "the ledger was forged", false, func(Adoption) {})
	x.Close()
	p.must(err)
	p.must(deploy())
	if p.serving() != "1.2.0" {
		t.Errorf("%s serves", p.serving())
	}
}

// What a forged event calls a configuration is not taken for it.
func TestAForgedConfigurationIsNotLearnt(t *testing.T) {
	own := release.Configuration{"env": {{Key: "DSN", Text: "ours"}}}
	theirs := release.Configuration{"env": {{Key: "DSN", Text: "theirs"}}}
	x := newPlace(t).run()
	x.configs.learn(ledger.Snapshot{Configurations: map[release.Fingerprint]release.Configuration{own.Fingerprint(): theirs}}, nil)
	if c, known := x.configs.of(own.Fingerprint()); known {
		t.Errorf("learnt %v", c)
	}
	x.configs.learn(ledger.Snapshot{Configurations: map[release.Fingerprint]release.Configuration{own.Fingerprint(): own}}, nil)
	if _, known := x.configs.of(own.Fingerprint()); !known {
		t.Error("its own is not known")
	}
}
