package gauge_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"mythiccache/internal/bench/gauge"
)

func TestQuantiles(t *testing.T) {
	all := []int{5, 1, 4, 2, 3}
	for q, want := range map[float64]int{0: 1, .5: 3, .79: 4, .99: 5, 1: 5} {
		if got := gauge.Quantile(all, q); got != want {
			t.Errorf("quantile %g is %d; want %d", q, got, want)
		}
	}
	if all[0] != 5 {
		t.Error("the samples were sorted in place")
	}
	if got := gauge.Median([]float64{2, 1}); got != 2 {
		t.Errorf("the median of two is %g; want the upper", got)
	}
}

// A child's time counts before and after it has ended, but not as the parent's own.
func TestTimeOfChildrenIsTheFamilys(t *testing.T) {
	pid := os.Getpid()
	own, err := gauge.CPU(pid)
	if err != nil {
		t.Fatal(err)
	}
	family, err := gauge.FamilyCPU(pid)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	const busy = 300 * time.Millisecond
	for used := time.Duration(0); used < busy; {
		if used, err = gauge.CPU(child.Process.Pid); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, when := range []string{"while the child runs", "when it has ended"} {
		now, err := gauge.FamilyCPU(pid)
		if err != nil {
			t.Fatal(err)
		}
		if now-family < busy {
			t.Errorf("%s the family used %s more; want at least %s", when, now-family, busy)
		}
		if err := child.Process.Kill(); err == nil {
			_ = child.Wait()
		}
	}
	if now, err := gauge.CPU(pid); err != nil || now-own > busy {
		t.Errorf("the process itself used %s more, %v; the child's time is not its own", now-own, err)
	}
	if resident, highest, err := gauge.Memory(pid); err != nil || resident < 1<<20 || highest < resident {
		t.Errorf("%d bytes are resident, %d at most, %v", resident, highest, err)
	}
}

func TestFiguresAreChosenByName(t *testing.T) {
	figures := []gauge.Figure[int]{{Name: "one"}, {Name: "two"}, {Name: "three"}}
	if all, err := gauge.Choose(figures, nil); err != nil || len(all) != 3 {
		t.Errorf("%d figures without a name, %v", len(all), err)
	}
	chosen, err := gauge.Choose(figures, []string{"three", "one"})
	if err != nil || len(chosen) != 2 || chosen[0].Name != "three" || chosen[1].Name != "one" {
		t.Errorf("%v, %v; want three and one", chosen, err)
	}
	if _, err := gauge.Choose(figures, []string{"tow"}); err == nil || !strings.Contains(err.Error(), "one, two, three") {
		t.Errorf("%v; want an error that names the figures", err)
	}
}

func TestAMissedFigureIsNoError(t *testing.T) {
	var out, log strings.Builder
	figures := []gauge.Figure[int]{{Name: "bed", Measure: func(_ context.Context, bed int) ([]gauge.Line, error) {
		return []gauge.Line{
			{Figure: "reaches", Reach: "≥ 1", Measured: gauge.Spread("%.0f", []float64{float64(bed), 1, 9}), Reached: true},
			{Figure: "misses", Reach: "≥ 9", Measured: "2", Baseline: "3", Ratio: "0.7", Notes: []string{"why"}},
		}, nil
	}}}
	if err := gauge.Measure(t.Context(), figures, 7, &out, &log); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"reaches  ≥ 1       7 (1–9)", "–                  –      yes", "misses   ≥ 9       2                  3", "0.7    missed", "\nmisses\n  why\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
	if !strings.Contains(log.String(), "bed, some 0s") {
		t.Errorf("the log says %q", log.String())
	}
}
