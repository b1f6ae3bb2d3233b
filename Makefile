# One command each. `make help` lists them.
#
# internal/dev/provision.sh makes sure of PostgreSQL and Redis; the rest is Go.

GOLANGCI_LINT_VERSION := v2.15.0

LOCAL := $(CURDIR)/.local
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# Tests start real servers, so a pass from the cache says little.
TEST_FLAGS ?= -race -count=1 -timeout 10m

.DEFAULT_GOAL := help
.PHONY: help run test check audit-soak conformance-openai conformance-streams interleaving nemesis nemesis-relay nemesis-streams bench bench-ai bench-api bench-capture bench-store bench-streams bench-watch lint build clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

run: ## everything on this machine, with demo data, until Ctrl-C
	@go build -o $(LOCAL)/bin/dev ./internal/dev
	@exec $(LOCAL)/bin/dev run

build: ## bin/mythic-cache
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.programVersion=$(VERSION)' -o bin/mythic-cache ./cmd/mythic-cache

# provision.sh ends with 3 where only Docker can give us servers: the tests then
# run in a container that has them.
test: ## install what is missing, then every test with the race detector
	@sh internal/dev/provision.sh postgresql redis compiler python; case $$? in \
	  0) $(MAKE) --no-print-directory check ;; \
	  3) docker compose run --rm --build tests ;; \
	  *) exit 1 ;; \
	esac

# Two tests start the program as `make build` makes it; compiled beforehand, they
# do not compile it side by side. Vet with -race shares what the tests compile.
check: build ## the tests alone, on a machine that has everything
	CGO_ENABLED=1 go vet -race ./...
	CGO_ENABLED=1 go test $(TEST_FLAGS) ./...

# OPS says how many operations of the store, SEED repeats the conditions of another
# run. Without the race detector, which make test has: more meet in the same time.
interleaving: ## a million operations of the store, with all that can meet on the way, judged by what each value has seen
	@sh internal/dev/provision.sh postgresql redis
	OPS=$${OPS:-1000000} go test -count=1 -timeout 3h -v -run '^TestInterleavings' ./cmd/mythic-cache

# NEMESIS_FAULTS says how many, NEMESIS_SEED repeats the ones of another run.
nemesis: ## 200 faults of every process, both servers and all links under load, and what readers were promised
	@sh internal/dev/provision.sh postgresql redis compiler
	NEMESIS_FAULTS=$${NEMESIS_FAULTS:-200} CGO_ENABLED=1 go test -race -count=1 -timeout 3h -v -run '^TestNemesis$$' ./cmd/mythic-cache

# The same two.
nemesis-relay: ## 200 faults of relays, servers and links under load, and what each takeover took
	@sh internal/dev/provision.sh postgresql redis compiler
	NEMESIS_FAULTS=$${NEMESIS_FAULTS:-200} CGO_ENABLED=1 go test -race -count=1 -timeout 3h -v -run '^TestRelayNemesis$$' ./cmd/mythic-cache

# AUDIT_SOAK says for how long.
audit-soak: ## ten minutes of honest load, in which the auditor has to be quiet
	@sh internal/dev/provision.sh postgresql redis compiler
	AUDIT_SOAK=$${AUDIT_SOAK:-10m} CGO_ENABLED=1 go test -race -count=1 -timeout 3h -v -run '^TestAuditorRaisesNoFalseAlarm$$' ./cmd/mythic-cache

# Every 14 faults all begins anew, with a seed of its own.
nemesis-streams: ## 200 faults of workers, Redis and links under load, and a ledger of what was handled
	@sh internal/dev/provision.sh postgresql redis compiler
	NEMESIS_FAULTS=$${NEMESIS_FAULTS:-200} CGO_ENABLED=1 go test -race -count=1 -timeout 3h -v -run '^TestStreamsNemesis$$' ./producers/stream

# STRESS_TEST_COUNT says how many at once, as in watermill's own stress tests.
conformance-streams: ## watermill's conformance suite under stress, ten times at once
	@sh internal/dev/provision.sh redis compiler
	STRESS_TEST_COUNT=$${STRESS_TEST_COUNT:-10} CGO_ENABLED=1 go test -race -tags stress -count=1 -timeout 30m -run '^TestConformance' ./producers/stream

# The client is installed from the registry that npm is set up for.
conformance-openai: ## OpenAI's client for Node against the whole program
	@sh internal/dev/provision.sh postgresql redis compiler
	@command -v npm >/dev/null || { echo "conformance-openai: needs Node 20 or newer, with npm" >&2; exit 1; }
	@mkdir -p $(LOCAL)/conformance-openai
	@cp internal/conformance/openai/* $(LOCAL)/conformance-openai
	@npm install --prefix $(LOCAL)/conformance-openai --no-audit --no-fund --no-package-lock --silent
	OPENAI_NODE=$(LOCAL)/conformance-openai CGO_ENABLED=1 go test -race -tags node -count=1 -timeout 5m -v -run '^TestConformanceOpenAINode$$' ./cmd/mythic-cache

bench: build ## the whole program beside its baselines, as tables with ratios
	@sh internal/dev/provision.sh postgresql redis wrk
	@sh internal/bench/api/others.sh $(LOCAL)/bench-api
	@go run ./internal/bench
	@go run ./internal/bench api hits

# One figure again: go run ./internal/bench ai hit
bench-ai: build ## answers of models: hits, the first word, budgets, and what they do to the rest
	@sh internal/dev/provision.sh postgresql redis
	@go run ./internal/bench ai

# One figure again: go run ./internal/bench api hits. Packages for those it stands beside
# are installed from where apt-get, npm and pip are set up to, those of npm and pip below
# .local; who cannot be installed is left out.
bench-api: build ## the API beside net/http, webdis, fastify and FastAPI: hits, latency, and a minute without Redis
	@sh internal/dev/provision.sh postgresql redis wrk
	@sh internal/bench/api/others.sh $(LOCAL)/bench-api
	@go run ./internal/bench api

# One figure again while tuning: go run ./internal/bench capture commits
bench-capture: build ## capture beside its baselines: commits, latency, drain, dead tuples, idle cost
	@sh internal/dev/provision.sh postgresql redis
	@go run ./internal/bench capture

# One figure again: go run ./internal/bench store put
bench-store: build ## the store beside bare commands: put, invalidate, memory, and from commit to invalidated
	@sh internal/dev/provision.sh postgresql redis
	@go run ./internal/bench store

# One figure again: go run ./internal/bench streams consume
bench-streams: build ## the streams beside the stock library and a bare loop
	@sh internal/dev/provision.sh postgresql redis
	@go run ./internal/bench streams

bench-watch: build ## 10,000 clients of server-sent events: how soon they see a change, and what each costs
	@sh internal/dev/provision.sh postgresql redis
	@go run ./internal/bench watch

lint: ## golangci-lint, the version that .golangci.yml is written for
	@sh internal/dev/lint.sh $(GOLANGCI_LINT_VERSION)

clean: ## remove what was built; the data in .local stays
	rm -rf bin $(LOCAL)/bin
