package executor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/plan"
	"github.com/backstep/backstep/internal/release"
	"github.com/backstep/backstep/internal/secret"
	"github.com/backstep/backstep/internal/target"
)

// configurations are what releases are started with, as the ledger and the targets have them, and as backstep.yml wants it today.
type configurations struct {
	today   release.Configuration
	sources []string            // the variables that backstep.yml takes secrets from; no other is ever read
	getenv  func(string) string // "" is not set
	secrets *secret.Known

	mu     sync.Mutex
	known  map[release.Fingerprint]release.Configuration
	former []string            // the ledgers that this one has taken over from
	goods  map[release.ID]bool // what was verified and baked
	key    []byte              // what the fingerprints of secrets are made with
}

// keyBytes is the length of a new key.
const keyBytes = 32

func newConfigurations(env *config.Environment, sources []string, getenv func(string) string, secrets *secret.Known) *configurations {
	return &configurations{today: env.Start, sources: sources, getenv: getenv, secrets: secrets,
		known: map[release.Fingerprint]release.Configuration{}, goods: map[release.ID]bool{}}
}

// learn takes over what the ledger and the targets know. The key is that of the highest claim that has one.
func (c *configurations) learn(s ledger.Snapshot, fleet []plan.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, config := range s.Configurations {
		if config.Fingerprint() == id { // what it is called is not for the ledger to say
			c.known[id] = config
		}
	}
	if len(s.Former) > 0 {
		c.former = s.Former
	}
	for _, e := range s.Recent {
		c.goods[e.Release.ID()] = e.Good
	}
	var highest plan.Number
	for _, state := range fleet {
		if s.Live == nil { // there is no ledger at hand
			c.goods[state.Claim.Wanted.ID()] = state.Claim.Good
			if back := state.Claim.Back; back != nil {
				c.goods[back.ID()] = true
			}
		}
		if s.Live == nil && len(c.former) == 0 {
			c.former = state.Claim.Former
		}
		maps.Copy(c.known, state.Configurations)
		maps.Copy(c.known, state.Claim.Configurations)
		key, err := hex.DecodeString(state.Claim.Key)
		if err == nil && len(key) > 0 && state.Claim.Number.Compare(highest) >= 0 {
			c.key, highest = key, state.Claim.Number
		}
	}
}

// sealed is the fingerprint of what a release would be started with today. The targets were looked at before: they keep the key.
func (c *configurations) sealed() release.Fingerprint {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.today) == 0 {
		return ""
	}
	if len(c.key) == 0 {
		c.key = make([]byte, keyBytes)
		rand.Read(c.key)
	}
	today := c.today.Sealed(c.key, c.read)
	id := today.Fingerprint()
	c.known[id] = today
	return id
}

// of is the configuration with this fingerprint.
func (c *configurations) of(id release.Fingerprint) (release.Configuration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	config, ok := c.known[id]
	return config, ok || id == ""
}

// printKey is what the fingerprints of secrets are made with.
func (c *configurations) printKey() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.key
}

// start is what r is started with: what it was started with when it was deployed, with the secrets of today.
func (c *configurations) start(r release.Release) (target.Started, error) {
	config, ok := c.of(r.Config)
	if !ok {
		return target.Started{}, fault.Errorf(fault.Failed, "%s cannot be started: neither the ledger nor the target has its configuration %s any more", r, r.Config).
			WithHint("deploy the image again, with the configuration of today")
	}
	values, err := config.Fill(c.secret)
	if err != nil {
		return target.Started{}, fault.Errorf(fault.Input, "start %s: %w", r, err).
			WithHint("set it in the job, or in the secrets of the environment")
	}
	return target.Started{Values: values, Config: config, Secrets: config.Prints(c.printKey(), c.secret)}, nil
}

// secret is today's value of a secret, zero when it is not set. Only what backstep.yml names is read: who can write the ledger must
// not get at the job's other secrets. When the file has another variable at that place now, it is that one.
func (c *configurations) secret(name, key, variable string) secret.Value {
	if !slices.Contains(c.sources, variable) {
		variable = ""
		for _, v := range c.today[name] {
			if v.Key == key {
				variable = v.Secret
			}
		}
	}
	return c.read(variable)
}

// read is the secret in a variable, which is known from then on; "" names none.
func (c *configurations) read(variable string) secret.Value {
	if variable == "" {
		return secret.Value{}
	}
	return c.secrets.Learn(c.getenv(variable))
}

// changed names the secrets of r that are not what they were when it was deployed.
func (c *configurations) changed(r release.Release) []string {
	config, _ := c.of(r.Config)
	return config.Changed(c.printKey(), c.secret)
}

// changedSince is where the configuration of r differs from that of what was live before.
func (x *Executor) changedSince(previous, r release.Release) []string {
	was, known := x.configs.of(previous.Config)
	is, _ := x.configs.of(r.Config)
	if !known || previous.Digest == "" {
		return nil
	}
	return is.Differs(was)
}

// secretsChanged names the secrets of a restored release that are not what they were when it was deployed, and reports them.
func (x *Executor) secretsChanged(r release.Release) []string {
	changed := x.configs.changed(r)
	if len(changed) > 0 {
		x.log.Warn("secrets have changed since it was deployed: it has those of today from its next start on", "release", r.Digest.Short(),
			"secrets", strings.Join(changed, " "))
	}
	return changed
}

// claimed is the claim with all that starting its releases takes.
func (c *configurations) claimed(claim plan.Claim) plan.Claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	claim.Key = hex.EncodeToString(c.key)
	claim.Configurations, claim.Former, claim.Good = nil, c.former, c.goods[claim.Wanted.ID()]
	for _, r := range []*release.Release{&claim.Wanted, claim.Back} {
		if r == nil || r.Config == "" {
			continue
		}
		if config, ok := c.known[r.Config]; ok {
			if claim.Configurations == nil {
				claim.Configurations = map[release.Fingerprint]release.Configuration{}
			}
			claim.Configurations[r.Config] = config
		}
	}
	return claim
}

// configurationsLimit bounds the configurations of one event, in bytes of JSON. Those of what is live, of the last good release and
// of what is under way are kept in any case.
const configurationsLimit = 256 << 10

// keep puts the configurations of all releases of the snapshot into it, the newest first.
func (c *configurations) keep(s *ledger.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept, size := map[release.Fingerprint]release.Configuration{}, 0
	add := func(r release.Release, must bool) {
		config, ok := c.known[r.Config]
		if own, there := s.Configurations[r.Config]; there {
			config, ok = own, true
		}
		if _, twice := kept[r.Config]; !ok || twice || r.Config == "" {
			return
		}
		text, err := json.Marshal(config)
		if err == nil && (must || size+len(text) <= configurationsLimit) {
			kept[r.Config], size = config, size+len(text)
		}
	}
	for _, e := range []*ledger.Entry{s.Live, s.LastGood} {
		if e != nil {
			add(e.Release, true)
		}
	}
	if in := s.Intent; in != nil {
		add(in.To, true)
		if in.From != nil {
			add(in.From.Release, true)
		}
	}
	for _, e := range s.Recent {
		add(e.Release, false)
	}
	if s.Configurations = kept; len(kept) == 0 {
		s.Configurations = nil
	}
}

// keeping is a ledger whose events hold the configurations of their releases, and no secrets.
type keeping struct {
	ledger.Ledger
	configs *configurations
}

func (k keeping) Commit(ctx context.Context, change func(ledger.Event) (ledger.Event, error)) (ledger.Event, error) {
	return k.Ledger.Commit(ctx, func(newest ledger.Event) (ledger.Event, error) {
		e, err := change(newest)
		if err == nil {
			k.configs.keep(&e.State)
			withoutSecrets(&e, k.configs.secrets)
		}
		return e, err
	})
}

// withoutSecrets takes the secrets out of all that an event says in words.
func withoutSecrets(e *ledger.Event, secrets *secret.Known) {
	e.Reason, e.Evidence, e.Author.URL = secrets.Redact(e.Reason), secrets.Redact(e.Evidence), secrets.Redact(e.Author.URL)
	s := &e.State
	if s.Intent != nil {
		in := *s.Intent
		in.Reason = secrets.Redact(in.Reason)
		s.Intent = &in
	}
	s.Freezes, s.Quarantined = slices.Clone(s.Freezes), slices.Clone(s.Quarantined)
	for i := range s.Freezes {
		s.Freezes[i].Reason = secrets.Redact(s.Freezes[i].Reason)
	}
	for i := range s.Quarantined {
		s.Quarantined[i].Reason = secrets.Redact(s.Quarantined[i].Reason)
	}
}
