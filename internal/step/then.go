package step

import (
	"context"
	"slices"

	"github.com/backstep/backstep/internal/input"
)

// Then is first with one more input, of the name of second. When it is given and first has put something out, second runs
// afterwards in the same process: with the inputs that both have, with its own, and with what first hands on.
func Then(first, second Step, help string) Step {
	var wanted bool
	both := first
	both.Shell = first.Shell || second.Shell
	both.Inputs = slices.Clone(first.Inputs)
	for _, in := range second.Inputs {
		at := slices.IndexFunc(both.Inputs, func(i input.Input) bool { return i.Name == in.Name })
		switch {
		case at >= 0:
			both.Inputs[at] = both.Inputs[at].And(in)
		case !in.Handed: // what is handed on comes from first, and from nowhere else
			both.Inputs = append(both.Inputs, in)
		}
	}
	both.Inputs = append(both.Inputs, input.Bool(&wanted, second.Name, help))
	both.Outputs = slices.Clone(first.Outputs)
	for _, out := range second.Outputs {
		if !slices.ContainsFunc(both.Outputs, func(o input.Output) bool { return o.Name == out.Name }) {
			both.Outputs = append(both.Outputs, out)
		}
	}
	both.Run = func(ctx context.Context, rt *Runtime) error {
		if err := first.Run(ctx, rt); err != nil || !wanted || len(rt.put) == 0 {
			return err
		}
		for _, in := range second.Inputs {
			value := rt.put[in.Name]
			if !in.Handed || value == "" || slices.ContainsFunc(first.Inputs, func(i input.Input) bool { return i.Name == in.Name }) {
				continue
			}
			if err := in.Set([]string{value}); err != nil {
				return err
			}
		}
		return second.Run(ctx, rt)
	}
	return both
}
