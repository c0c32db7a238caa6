package plan

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/backstep/backstep/internal/release"
)

// Number orders the claims on a target. Epoch counts the ledgers that have taken the target over from another one. Seq is
// the number of an event of the ledger; Sub counts the claims made under that event: 0 is what the event itself gives, 1
// the second phase of its run, and without the ledger whoever comes next takes the following one.
type Number struct {
	Epoch uint64 `json:"epoch,omitempty"`
	Seq   uint64 `json:"seq"`
	Sub   uint64 `json:"sub,omitempty"`
}

// Compare is -1, 0 or +1, as n is below, equal to or above m.
func (n Number) Compare(m Number) int {
	return cmp.Or(cmp.Compare(n.Epoch, m.Epoch), cmp.Compare(n.Seq, m.Seq), cmp.Compare(n.Sub, m.Sub))
}

// String is 12, or 12.1, or 12.1 of epoch 2.
func (n Number) String() string {
	s := fmt.Sprint(n.Seq)
	if n.Sub > 0 {
		s += fmt.Sprintf(".%d", n.Sub)
	}
	if n.Epoch > 0 {
		s += fmt.Sprintf(" of epoch %d", n.Epoch)
	}
	return s
}

// ParseNumber is the number that String has written as s.
func ParseNumber(s string) (Number, error) {
	var n Number
	pair, epoch, later := strings.Cut(s, " of epoch ")
	seq, sub, again := strings.Cut(pair, ".")
	for _, part := range []struct {
		there bool
		text  string
		to    *uint64
	}{{true, seq, &n.Seq}, {again, sub, &n.Sub}, {later, epoch, &n.Epoch}} {
		if !part.there {
			continue
		}
		var err error
		if *part.to, err = strconv.ParseUint(part.text, 10, 64); err != nil {
			return Number{}, fmt.Errorf("number %q: want for example 12, 12.1 or 12.1 of epoch 2", s)
		}
	}
	return n, nil
}

// Aim is what a claim is for.
type Aim string

// The aims. Each but Do says who is to serve in the end, so that anybody can carry it out.
const (
	Arm    Aim = "arm"    // the release is judged; nothing is moved
	Do     Aim = "do"     // a deploy is under way
	Done   Aim = "done"   // the deploy has moved all the traffic
	Undo   Aim = "undo"   // the deploy failed, and what it moved goes back
	Fire   Aim = "fire"   // a rollback
	Follow Aim = "follow" // the target is brought to what the ledger says
)

// Token is the right to change a target, for as long as no higher claim is made.
type Token struct {
	Number Number `json:"number"`
	Holder string `json:"holder"` // a text that only this run has; LedgerHolder when all who follow an event share it
}

// LedgerHolder holds the claims of those who only do what an event of the ledger says.
const LedgerHolder = "ledger"

// Claim is the record that a target keeps: the highest one made on it. It is all that is needed to go back when the
// ledger cannot be reached.
type Claim struct {
	Token
	Ledger   string           `json:"ledger"` // the ledger that owns what is on the target
	Aim      Aim              `json:"aim"`
	Wanted   release.Release  `json:"wanted"`          // who is to have all the traffic
	Entry    string           `json:"entry,omitempty"` // the name of Wanted's entry in the ledger
	Back     *release.Release `json:"back,omitempty"`  // where a rollback of Wanted goes; nil when there is no good release
	Restored bool             `json:"restored,omitempty"`
	// Event is the digest of the event that gave Number its seq; "" when that was skipped. The ledger is held to it.
	Event release.Digest `json:"event,omitempty"`
	// Configurations are those of Wanted and Back, so that they can be started without the ledger.
	Configurations map[release.Fingerprint]release.Configuration `json:"configurations,omitempty"`
	Good           bool                                          `json:"good,omitempty"` // Wanted was verified and baked
	// Former are the ledgers that this one has taken over from: what carries their names on the target is ours as well.
	Former []string `json:"former,omitempty"`
	// Key is what the fingerprints of secrets are made with. It is kept on the targets only: there it protects nothing, since who
	// can read it can read the secrets; in the ledger it would let everybody try them out.
	Key string `json:"key,omitempty"`
}

// Note is what a rollback leaves on a target before it moves the traffic, for the ledger to adopt. It stays until the
// ledger has it.
type Note struct {
	ID        string          `json:"id"`
	Number    Number          `json:"number"` // of the claim it came with
	Left      release.Release `json:"left"`
	LeftEntry string          `json:"left_entry,omitempty"` // the name of its entry in the ledger
	To        release.Release `json:"to"`
	Condemn   bool            `json:"condemn,omitempty"` // quarantine Left
	Freeze    bool            `json:"freeze,omitempty"`
	Author    release.Author  `json:"author"`
	At        time.Time       `json:"at"` // for people; never used to order anything
	Why       string          `json:"why,omitempty"`
	Evidence  string          `json:"evidence,omitempty"`
}

// Condemned is the note that quarantines the release, or nil.
func (s State) Condemned(id release.ID) *Note {
	for i := range s.Notes {
		if n := &s.Notes[i]; n.Condemn && n.Left.ID() == id {
			return n
		}
	}
	return nil
}
