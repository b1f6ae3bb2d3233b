package gauge_test

import (
	"os"
	"os/exec"
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
