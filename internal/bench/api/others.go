package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// other is a server that people would otherwise put in our place.
type other struct {
	name, log, path string
	environ         []string
	lacks           func() string // what it lacks to run here; "": nothing
	command         func(b *bed, file string, port int) ([]string, error)
}

// othersDir is where others.sh puts the packages of those that it installs, as the
// Makefile calls it.
const othersDir = ".local/bench-api"

// likeOurs is what the program sets by itself.
var likeOurs = []string{"GOGC=200"}

//go:embed fastify.mjs
var fastify []byte

//go:embed fastapi_app.py
var fastapi []byte

var others = []other{
	{
		name: fromMemory, log: "memory", path: "/", environ: likeOurs, lacks: nothing,
		command: func(_ *bed, file string, port int) ([]string, error) { return bareCommand(file, port, "memory") },
	},
	{
		name: withRedis, log: "goredis", path: "/", environ: likeOurs, lacks: nothing,
		command: func(_ *bed, file string, port int) ([]string, error) { return bareCommand(file, port, "redis") },
	},
	{name: ofWebdis, log: "webdis", path: "/GET/" + bareKey + ".txt", lacks: lacksWebdis, command: webdisCommand},
	{name: ofNode, log: "fastify", path: "/", lacks: lacksNode, command: nodeCommand},
	{name: ofPython, log: "fastapi", path: "/", lacks: lacksPython, command: pythonCommand},
}

func nothing() string { return "" }

func bareCommand(file string, port int, from string) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find myself: %w", err)
	}
	return []string{self, BareCommand, file, strconv.Itoa(port), from}, nil
}

func lacksWebdis() string {
	if _, err := exec.LookPath("webdis"); err != nil {
		return "there is no webdis on PATH"
	}
	return ""
}

// webdisCommand gives it a configuration of its own: as many threads as its package
// has, on this Redis, without a log of requests.
func webdisCommand(b *bed, _ string, port int) ([]string, error) {
	text, err := json.Marshal(map[string]any{
		"redis_host": "127.0.0.1", "redis_port": b.Redis.Port, "http_host": "127.0.0.1", "http_port": port,
		"threads": 2, "pool_size": 20, "daemonize": false, "database": 0, "verbosity": 0, "logfile": filepath.Join(b.dir, "webdis.requests"),
	})
	if err != nil {
		return nil, fmt.Errorf("configure webdis: %w", err)
	}
	return []string{"webdis", filepath.Join(b.dir, "webdis.json")}, writeFile(filepath.Join(b.dir, "webdis.json"), text)
}

func lacksNode() string {
	if _, err := exec.LookPath("node"); err != nil {
		return "there is no node on PATH"
	}
	for _, name := range []string{"fastify", "ioredis"} {
		if _, err := os.Stat(filepath.Join(othersDir, "node_modules", name)); err != nil {
			return "npm has not installed " + name
		}
	}
	return ""
}

// nodeCommand lays the program beside its packages, where node looks for them.
func nodeCommand(_ *bed, file string, port int) ([]string, error) {
	program := filepath.Join(othersDir, "server.mjs")
	return []string{"node", program, file, strconv.Itoa(port), bareKey}, writeFile(program, fastify)
}

// python is one that has what FastAPI needs: the system's, or that of the others'
// packages; "" where neither does. The places are those of others.sh.
func python() string {
	for _, program := range []string{"/usr/bin/python3", filepath.Join(othersDir, "venv", "bin", "python")} {
		if exec.Command(program, "-c", "import fastapi, uvicorn, uvloop, httptools, redis.asyncio").Run() == nil {
			return program
		}
	}
	return ""
}

func lacksPython() string {
	if python() == "" {
		return "there is no Python that has fastapi, uvicorn, uvloop, httptools and redis"
	}
	return ""
}

func pythonCommand(b *bed, file string, port int) ([]string, error) {
	program := filepath.Join(b.dir, "fastapi_app.py")
	return []string{python(), program, file, strconv.Itoa(port), bareKey}, writeFile(program, fastapi)
}

func writeFile(name string, text []byte) error {
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(name), err)
	}
	return nil
}
