package capture

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	"mythiccache/internal/testserver"
)

// commitRound is what one run of pgbench gave.
type commitRound struct {
	rate    float64
	commits int
	cost    cost
}

var (
	pgbenchRate  = regexp.MustCompile(`tps = ([\d.]+)`)
	pgbenchCount = regexp.MustCompile(`actually processed: (\d+)`)
)

// pgbench runs a script against a contestant that starts with neat tables and
// nothing under way.
func (b *bed) pgbench(ctx context.Context, c *contestant, file, protocol string) (commitRound, error) {
	if err := c.exec(ctx, "VACUUM books", "VACUUM processing_sessions", "CHECKPOINT"); err != nil {
		return commitRound{}, err
	}
	program, err := findPgbench(ctx)
	if err != nil {
		return commitRound{}, err
	}
	before, err := b.spent(ctx, c)
	if err != nil {
		return commitRound{}, err
	}
	cmd := exec.CommandContext(ctx, program, "--no-vacuum", "--protocol="+protocol, "--client=32", "--jobs=2",
		"--time="+strconv.Itoa(int(commitPeriod.Seconds())), "--file="+file,
		"--host=127.0.0.1", "--port="+strconv.Itoa(b.postgres.Port), "--username=postgres", c.name)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return commitRound{}, fmt.Errorf("pgbench: %w: %s", err, out)
	}
	after, err := b.spent(ctx, c)
	if err != nil {
		return commitRound{}, err
	}
	after.load = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	rate, count := pgbenchRate.FindSubmatch(out), pgbenchCount.FindSubmatch(out)
	if rate == nil || count == nil {
		return commitRound{}, fmt.Errorf("pgbench said nothing of its rate: %s", out)
	}
	r := commitRound{cost: after.minus(before)}
	r.rate, err = strconv.ParseFloat(string(rate[1]), 64)
	if err == nil {
		r.commits, err = strconv.Atoi(string(count[1]))
	}
	if err != nil {
		return commitRound{}, fmt.Errorf("pgbench's rate: %w", err)
	}
	return r, c.carried(ctx)
}

// findPgbench looks beside the server, or where a link to it leads, and on PATH.
func findPgbench(ctx context.Context) (string, error) {
	bin, err := testserver.PostgresBin(ctx)
	if err != nil {
		return "", err
	}
	beside := []string{filepath.Join(bin, "pgbench")}
	if server, err := filepath.EvalSymlinks(filepath.Join(bin, "postgres")); err == nil {
		beside = append(beside, filepath.Join(filepath.Dir(server), "pgbench"))
	}
	for _, name := range append(beside, "pgbench") {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no pgbench here, which comes with PostgreSQL's server programs or with its contrib package")
}
