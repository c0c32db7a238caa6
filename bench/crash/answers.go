package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/ledger"
)

// sky is the weather of a step.
type sky struct {
	share float64 // of the registry's requests that are spoiled
	gone  outage
	storm storm
}

func (s sky) calm() bool { return s.share == 0 && s.gone == none && s.storm == stillness }

func (s sky) String() string {
	switch {
	case s.storm != stillness:
		return s.storm.String()
	case s.gone != none:
		return "registry " + s.gone.String()
	case s.share > 0:
		return fmt.Sprintf("%.0f %% faults", 100*s.share)
	}
	return "calm"
}

// circumstances are what a run went through.
type circumstances struct {
	sky    sky
	alone  bool            // no other run was alive
	after  ledger.Snapshot // what is true when it has ended
	shaken bool            // something was done to containers or their engine before it, or while it ran
}

// What a run may say with exit code 7 although no other run is alive, and with 2 and 6 although all is well. The rest is a run
// that is refused because an earlier one died, or that needs a person for nothing.
var (
	barred  = []string{"the environment is frozen since", "is in quarantine since", "is in quarantine:", "was found bad"}
	misfits = []string{"the environment is not frozen", "is not in quarantine", "is not one that the ledger could go back to", "nothing is live"}
)

// answered says what is wrong with how a run ended, or nil.
func answered(o outcome, c circumstances) error {
	says := func(texts []string) bool { return slices.ContainsFunc(texts, o.says) }
	if o.stuck {
		return fmt.Errorf("it had not ended after %.0f s", o.took.Seconds())
	}
	if o.code == -1 {
		if o.point == "" && o.after == 0 {
			return errors.New("it was killed, and not by us")
		}
		return nil
	}
	if strings.Contains(o.said, "panic:") || strings.Contains(o.said, "DATA RACE") {
		return errors.New("it panics")
	}
	switch code := fault.Code(o.code); code {
	case fault.Done, fault.VerdictFail, fault.VerdictUnknown:
		return nil
	case fault.RolledBack:
		if o.step == "deploy" && !o.about.bad && c.sky.calm() && !c.shaken && c.alone && !o.says("verdict is unknown") {
			return errors.New("a healthy release was taken back")
		}
		return nil
	case fault.Refused:
		if c.alone && !says(barred) {
			return errors.New("it is refused although no other run is alive")
		}
		return nil
	case fault.HalfWay:
		if c.sky.gone != none || c.shaken || nowhere(o, c.after) {
			return nil
		}
		return errors.New("it asks for a person although the registry answers and the target can be reached")
	case fault.Input:
		if says(misfits) {
			return nil
		}
		return errors.New("it finds fault with its input")
	}
	if c.sky.calm() && !c.shaken && c.alone {
		return errors.New("it fails although nothing was in its way")
	}
	return nil
}

// nowhere says whether a run is right that there is no release to go back to.
func nowhere(o outcome, s ledger.Snapshot) bool {
	live := s.Live
	if live != nil && live.Restored && shopOf(live.Release.Version).bad {
		return o.says("a rollback is never rolled back") || o.says("the restored release fails as well")
	}
	_, _, err := s.WayBack("")
	return err != nil && o.says("there is no good release to go back to")
}

// repelled says what is wrong with how the run of a rival ended, or nil: it is refused by the name of the ledger that was there first.
func (w *world) repelled(o outcome, s sky) error {
	if w.verbose {
		fmt.Println("   ", o)
	}
	switch fault.Code(o.code) {
	case fault.Refused:
		if o.says("belongs to the ledger " + w.gates[0].owner) {
			return nil
		}
	case fault.Failed, fault.HalfWay:
		if !s.calm() {
			return nil
		}
	}
	return fmt.Errorf("a rival is not refused by name\n  %s\n%s", o, o.said)
}
