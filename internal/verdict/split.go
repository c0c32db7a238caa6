package verdict

import (
	"fmt"
	"math"
	"time"
)

// split is the part of the traffic that the candidate gets, as its ticks have it. While that changes, a tick says nothing: what
// hits both sides for a part of it has hit one of them more.
type split struct {
	candidate, baseline float64
	unlike              time.Duration // since when ticks do not fit
	dropped             bool
}

// fitting says what becomes of a tick.
type fitting uint8

const (
	fits fitting = iota
	drop
	anew // the first one of another split; it does not count
)

// How far a tick's split may be from the one before: in standard deviations, and as a part of the smaller side's share. After
// splitAnew it is taken for the new one.
const (
	splitDeviations = 4
	splitPart       = 0.15
	splitAnew       = 40 * time.Second
)

func (s *split) fits(t Tick) fitting {
	c, all := float64(t.Candidate.Requests), float64(t.Candidate.Requests+t.Baseline.Requests)
	before := s.candidate + s.baseline
	if before > 0 {
		share := s.candidate / before
		off := math.Abs(c - all*share)
		deviation := math.Sqrt(all * share * (1 - share) * (1 + all/before))
		if off > splitDeviations*deviation && off/all > splitPart*min(share, 1-share) {
			if !s.dropped {
				s.dropped, s.unlike = true, t.Elapsed
			}
			if t.Elapsed-s.unlike < splitAnew {
				return drop
			}
			*s = split{candidate: c, baseline: all - c}
			return anew
		}
	}
	s.dropped = false
	s.candidate, s.baseline = s.candidate+c, s.baseline+all-c
	return fits
}

// How far the candidate's part of the requests may be from its weight: in standard deviations, which a right split exceeds once in a thousand
// times, and as a part of all requests and of the weight, since requests that were under way at the shift are counted on the old side.
const (
	mismatchDeviations = 3.29
	mismatchLeast      = 0.001
	mismatchPart       = 0.1
)

// mismatch says that the candidate got another part of the requests than its weight, or "": then who asks which side is no chance, and the
// evidence is invalid (a sample ratio mismatch; Fabijan et al., KDD 2019).
func mismatch(c, b Counts, share float64) string {
	all := float64(c.Requests + b.Requests)
	off := math.Abs(float64(c.Requests)/max(all, 1) - share)
	if share <= 0 || share >= 1 || off <= max(mismatchLeast, mismatchPart*share) || off*all <= mismatchDeviations*math.Sqrt(all*share*(1-share)) {
		return ""
	}
	return fmt.Sprintf("the evidence is invalid: the release should get %s of the requests, and got %d of %d, which is %s: look at the load balancer, and at what keeps customers on one side",
		percent(share), c.Requests, c.Requests+b.Requests, percent(float64(c.Requests)/all))
}

// streak is a row of ticks in each of which half or more of the candidate's requests failed, and no more than a quarter of the baseline's.
type streak struct {
	ticks int
	begun time.Duration // the end of the tick before it
	last  time.Duration
	size  float64 // of an event, as it was known before
	Pair
}

// How long a streak must last to be plain, where there is another release that is well, and where there is none to compare with; and how many
// requests, or events of errors, it must have.
const (
	streakTicks    = 2
	streakLasts    = 2 * time.Second
	streakAlone    = 3 * time.Second
	streakRequests = 20
	streakEvents   = 8
)

// add adds a tick of this length. One without requests of the candidate changes nothing.
func (s *streak) add(t Tick, length time.Duration, w weather) {
	c, b := t.Candidate, t.Baseline
	switch {
	case c.Requests == 0:
		return
	case 2*c.Errors < c.Requests || 4*b.Errors > b.Requests:
		*s = streak{}
		return
	}
	if s.ticks == 0 {
		s.begun, s.size = t.Elapsed-length, 1
		if w.longer && w.event >= largeEvent {
			s.size = w.event
		}
	}
	s.ticks, s.last = s.ticks+1, t.Elapsed
	s.Candidate, s.Baseline = s.Candidate.Add(c), s.Baseline.Add(b)
}

// plain says why a release has failed without statistics, after what was seen of it in all, or "".
func (s *streak) plain(all Counts, counted string) string {
	lasts := streakLasts
	if s.Baseline.Requests == 0 {
		lasts = streakAlone
	}
	if s.ticks < streakTicks || s.last-s.begun < lasts || s.Candidate.Requests < streakRequests ||
		s.size > 1 && float64(s.Candidate.Errors) < streakEvents*s.size {
		return ""
	}
	if s.Candidate == all {
		return counted + ": half or more"
	}
	return fmt.Sprintf("%s, and of late %d of %d: half or more", counted, s.Candidate.Errors, s.Candidate.Requests)
}
