#!/bin/sh
# others.sh DIR: installs webdis, and what fastify and FastAPI need: packages of Node into
# DIR, from the registry that npm is set up for, and of Python from the system or, where
# it has none, from pip, into DIR too. What cannot be had is left out of the figures, so
# this never fails.
set -u

dir=$1
root=$(cd "$(dirname "$0")/../../.." && pwd)
mkdir -p "$dir"

say() { echo "bench-api: $*" >&2; }

# apt_install PACKAGE…: where that is how this machine gets them.
apt_install() {
	command -v apt-get >/dev/null 2>&1 || return 1
	if [ "$(id -u)" = 0 ]; then
		sh "$root/internal/dev/apt.sh" "$@" >&2
	else
		sudo -n sh "$root/internal/dev/apt.sh" "$@" >&2
	fi
}

command -v webdis >/dev/null 2>&1 || apt_install webdis || say "webdis is not to be had here"

if [ ! -d "$dir/node_modules/fastify" ] || [ ! -d "$dir/node_modules/ioredis" ]; then
	command -v npm >/dev/null 2>&1 &&
		npm install --prefix "$dir" --no-audit --no-fund --no-package-lock --silent fastify@5 ioredis@5 >&2 ||
		say "npm does not install fastify and ioredis here"
fi

# The places are those of the benchmark.
has_python() {
	for python in /usr/bin/python3 "$dir/venv/bin/python"; do
		if "$python" -c "import fastapi, uvicorn, uvloop, httptools, redis.asyncio" >/dev/null 2>&1; then return 0; fi
	done
	return 1
}

if ! has_python; then
	apt_install python3-fastapi python3-uvicorn python3-uvloop python3-httptools python3-redis python3-hiredis
	has_python || { python3 -m venv "$dir/venv" && "$dir/venv/bin/pip" install --quiet fastapi uvicorn uvloop httptools redis hiredis; } >&2 ||
		say "neither apt-get nor pip installs FastAPI, uvicorn and redis here"
fi
exit 0
