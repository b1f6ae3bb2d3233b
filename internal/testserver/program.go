package testserver

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// The oldest servers that the project knows how to use. provision.sh installs
// them and looks in the same places.
const (
	minPostgres = 15
	minRedis    = 7
)

// PostgresBin returns the directory of PostgreSQL's server programs: on PATH, or
// the newest of where the systems put them.
func PostgresBin(ctx context.Context) (string, error) {
	program, err := newest(ctx, "postgres", minPostgres,
		"/usr/lib/postgresql*/*/bin", "/usr/lib/postgresql*/bin", "/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin")
	return filepath.Dir(program), err
}

// RedisServer returns the redis-server on PATH, or the newest of where the
// systems put it.
func RedisServer(ctx context.Context) (string, error) {
	return newest(ctx, "redis-server", minRedis, "/opt/homebrew/opt/redis*/bin", "/usr/local/opt/redis*/bin")
}

// newest finds a program of a major version at least: the one on PATH where it
// is new enough, else the newest in the directories.
func newest(ctx context.Context, name string, least int, dirs ...string) (string, error) {
	if path, err := exec.LookPath(name); err == nil && major(ctx, path) >= least {
		return path, nil
	}
	best, bestMajor := "", least-1
	for _, dir := range dirs {
		paths, err := filepath.Glob(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("look for %s: %w", name, err)
		}
		for _, path := range paths {
			if found := major(ctx, path); found > bestMajor {
				best, bestMajor = path, found
			}
		}
	}
	if best == "" {
		return "", fmt.Errorf("no %s of version %d or newer here; `make test` installs what is missing", name, least)
	}
	return best, nil
}

// versions matches what servers print: "postgres (PostgreSQL) 15.14 (Debian …)",
// "postgres (PostgreSQL) 18beta1", "Redis server v=7.0.15 sha=…".
var versions = regexp.MustCompile(`[ =](\d+)(\.|[a-z])`)

// major returns a program's major version, 0 when it does not say.
func major(ctx context.Context, path string) int {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return 0
	}
	match := versions.FindSubmatch(out)
	if match == nil {
		return 0
	}
	number, err := strconv.Atoi(string(match[1]))
	if err != nil {
		return 0
	}
	return number
}
