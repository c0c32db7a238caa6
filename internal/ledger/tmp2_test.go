package ledger
import ("testing";"time";"strings";"os";"fmt")
func TestTmpBase(t *testing.T) {
	var n int; var l limits; var p plant
	fmt.Sscan(os.Getenv("N"), &n, &l.kills, &l.outages, &l.doubts, &l.states, &l.inTurn, &l.cold, &p)
	sum := 0
	for _, jobs := range crews(n) {
				begin := time.Now()
				f := newModel(jobs, p, l).search()
				sum += f.states
				t.Logf("%v: %d states, %.1f s %v", jobs, f.states, time.Since(begin).Seconds(), f.whole)
				if f.broken != "" {
					t.Errorf("%v: %s\n%s", jobs, f.broken, strings.Join(f.trace, "\n"))
				}
	}
	t.Log(sum)
}
