package gauge_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
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

// bed is a number, and says when it is closed.
type bed struct {
	n      float64
	closed *bool
}

var errClosed = errors.New("the bed does not close well")

func (b bed) Close(context.Context) error {
	*b.closed = true
	return errClosed
}

func TestFiguresAreChosenByName(t *testing.T) {
	var measured []string
	var figures []gauge.Figure[bed]
	for _, name := range []string{"one", "two", "three"} {
		figures = append(figures, gauge.Figure[bed]{Name: name, Measure: func(context.Context, bed) ([]gauge.Line, error) {
			measured = append(measured, name)
			return nil, nil
		}})
	}
	for _, c := range []struct {
		asked, want []string
		wrong       string
	}{
		{asked: nil, want: []string{"one", "two", "three"}},
		{asked: []string{"three", "one"}, want: []string{"three", "one"}},
		{asked: []string{"one", "tow"}, wrong: "one, two, three"},
	} {
		measured = nil
		made, closed := false, false
		err := gauge.Run(t.Context(), gauge.Options{Names: c.asked, Out: io.Discard, Log: io.Discard}, figures, func(context.Context, gauge.Options) (bed, error) {
			made = true
			return bed{closed: &closed}, nil
		})
		if !slices.Equal(measured, c.want) || made != closed || made != (c.wrong == "") {
			t.Errorf("%v: measured %v; a bed was made: %t, closed: %t", c.asked, measured, made, closed)
		}
		if c.wrong == "" && !errors.Is(err, errClosed) || c.wrong != "" && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%v: %v", c.asked, err)
		}
	}
}

func TestAMissedFigureIsNoError(t *testing.T) {
	var out, log strings.Builder
	figures := []gauge.Figure[bed]{{Name: "bed", Measure: func(_ context.Context, b bed) ([]gauge.Line, error) {
		return []gauge.Line{
			{Figure: "reaches", Reach: "≥ 1", Measured: gauge.Spread("%.0f", []float64{b.n, 1, 9}), Reached: true},
			{Figure: "misses", Reach: "≥ 9", Measured: "2", Baseline: "3", Ratio: "0.7", Notes: []string{"why"}},
		}, nil
	}}}
	closed := false
	err := gauge.Run(t.Context(), gauge.Options{Out: &out, Log: &log}, figures, func(context.Context, gauge.Options) (bed, error) {
		return bed{n: 7, closed: &closed}, nil
	})
	if err.Error() != errClosed.Error() {
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
