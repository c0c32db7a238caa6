package operate

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/executor"
	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/step"
	"github.com/backstep/backstep/internal/verdict"
)

// Forecast declares the command that says before a deploy what a verify can know in its time.
func Forecast(kinds config.Kinds) step.Step {
	var traffic, share, errors float64
	return command(kinds, "forecast", "Say what verify can know in its time, before the deploy",
		"Says how long a good release takes to pass, and how long releases with two, four and ten times the errors take to be found: by the checks that are "+
			"configured, and by the meters when `traffic` says how many requests customers make. What cannot be known in the time of the bake gets the verdict unknown. "+
			"It asks nobody and changes nothing; the figures are estimates, right within a factor of two.",
		[]input.Input{
			input.Bind(&traffic, "traffic", "How many requests customers make in a second.", parseTraffic).Or("0"),
			input.Share(&share, "share", "The share of them that the new release gets while it is compared.").Or("10%"),
			input.Share(&errors, "errors", "The share of requests that fail by nature.").Or("0.5%"),
		},
		func(_ context.Context, x *executor.Executor, out io.Writer, asJSON bool) error {
			all := x.Forecast(traffic, share, errors)
			if len(all) == 0 {
				return fault.Inputf("environment %s has no evidence to speak of", x.Name).WithHint("configure probes; for a meter, say --traffic")
			}
			return show(out, asJSON, all, func() { forecast(out, all, errors) })
		})
}

func parseTraffic(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f <= 1e9) {
		return 0, fmt.Errorf("%q: want requests a second, for example 30", s)
	}
	return f, nil
}

func forecast(out io.Writer, all []executor.Forecast, errors float64) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	for _, f := range all {
		fmt.Fprintf(w, "%s\t%s a second of the new release, %s of the old one, %s %% fail by nature\n", f.Source, figure(f.Candidate), figure(f.Baseline), figure(100*errors))
		enough := "the bake and its patience are long enough"
		if !f.Enough {
			enough = "longer than the bake and its patience: some good releases get the verdict unknown"
		}
		fmt.Fprintf(w, "  a pass\tusually after %s, 95 of 100 within %s: %s\n", span(f.Pass), span(f.Late), enough)
		for _, found := range f.Finds {
			text := "is not found: it is less than what nobody minds"
			if found.Takes < verdict.Never {
				text = "is usually found in " + span(found.Takes)
			}
			fmt.Fprintf(w, "  %s times the errors\t%s\n", figure(found.Times), text)
		}
		fmt.Fprintf(w, "  every request fails\tis found in 0.3 s to 2 s\n")
	}
}

func figure(f float64) string { return strconv.FormatFloat(f, 'g', 3, 64) }

// span is a time as people say it, in two figures.
func span(d time.Duration) string {
	switch {
	case d >= verdict.Never:
		return "no time at all"
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f minutes", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f hours", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}
