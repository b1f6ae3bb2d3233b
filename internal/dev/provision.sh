#!/bin/sh
# provision.sh NAME…: sees to it that this machine has what is named and installs
# what is missing.
#
#   postgresql  PostgreSQL 15 or newer, the server programs
#   redis       redis-server 7 or newer
#   compiler    a C compiler, which the race detector needs
#   python      the Python packages that the FastAPI example is checked with
#   wrk         the load generator of the benchmarks
#
# Exit status: 0 it is all here; 3 it is not and may not be installed, but
# Docker answers; 1 neither, and standard error says what to install.
#
# Nothing is installed where nothing is missing, and no server that a package
# brings is left running: ours are private processes on ports of their own.
set -eu

min_postgres=15
min_redis=7
python_modules="fastapi sqlalchemy uvicorn psycopg2"

root=$(cd "$(dirname "$0")/../.." && pwd)

say() { echo "provision: $*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

# major PROGRAM: the first number that PROGRAM --version names after a v= or a
# space, such as 15 of "postgres (PostgreSQL) 15.14" and 7 of "v=7.0.15".
major() {
	"$1" --version 2>/dev/null | sed -n 's/^[^0-9]*[ =]\([0-9][0-9]*\)\..*/\1/p; s/^[^0-9]* \([0-9][0-9]*\)[a-z].*/\1/p' | head -n 1
}

# at_least N PROGRAM
at_least() {
	[ -x "$2" ] || return 1
	found=$(major "$2")
	[ "${found:-0}" -ge "$1" ]
}

# The places are those of testserver.PostgresBin and testserver.RedisServer.
has_postgres() {
	for program in "$(command -v postgres || true)" /usr/lib/postgresql*/*/bin/postgres /usr/lib/postgresql*/bin/postgres \
		/usr/pgsql-*/bin/postgres /opt/homebrew/opt/postgresql*/bin/postgres /usr/local/opt/postgresql*/bin/postgres \
		/Applications/Postgres.app/Contents/Versions/*/bin/postgres; do
		if at_least $min_postgres "$program"; then return 0; fi
	done
	return 1
}

has_redis() {
	for program in "$(command -v redis-server || true)" /opt/homebrew/opt/redis*/bin/redis-server /usr/local/opt/redis*/bin/redis-server; do
		if at_least $min_redis "$program"; then return 0; fi
	done
	return 1
}

# A compiler without C's headers does not link.
has_cc() {
	compiler=$(go env CC 2>/dev/null || echo cc)
	have "${compiler%% *}" && echo '#include <stdlib.h>' | $compiler -E -x c - >/dev/null 2>&1
}

# The places are those of the example's check.
has_python() {
	imports="import $(echo "$python_modules" | sed 's/ /, /g')"
	for python in "$root/.local/venv/bin/python" /usr/bin/python3 "$(command -v python3 || true)"; do
		if [ -x "$python" ] && "$python" -c "$imports" >/dev/null 2>&1; then return 0; fi
	done
	return 1
}

# missing NAME…: those that are not here.
missing() {
	for name in "$@"; do
		case $name in
		postgresql) has_postgres || echo postgresql ;;
		redis) has_redis || echo redis ;;
		compiler) has_cc || echo compiler ;;
		python) has_python || echo python ;;
		wrk) have wrk || echo wrk ;;
		*)
			say "nobody here knows what $name is"
			exit 2
			;;
		esac
	done
}

# as_root COMMAND…: as root, or as whoever may become it without a password.
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_be_root() {
	[ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }
}

# apt_install NAME…: what Debian and Ubuntu call them.
apt_install() {
	packages=
	for name in "$@"; do
		case $name in
		postgresql) packages="$packages postgresql" ;;
		redis) packages="$packages redis-server" ;;
		compiler) packages="$packages gcc libc6-dev" ;;
		python) packages="$packages python3-fastapi python3-sqlalchemy python3-uvicorn python3-psycopg2" ;;
		wrk) packages="$packages wrk" ;;
		esac
	done
	say "installing$packages with apt-get"
	# shellcheck disable=SC2086 # the packages are words
	as_root sh "$root/internal/dev/apt.sh" $packages >&2
}

brew_install() {
	formulas=
	for name in "$@"; do
		case $name in
		postgresql) formulas="$formulas postgresql@17" ;;
		redis) formulas="$formulas redis" ;;
		wrk) formulas="$formulas wrk" ;;
		esac
	done
	[ -n "$formulas" ] || return 0
	say "installing$formulas with brew"
	# shellcheck disable=SC2086 # the formulas are words
	HOMEBREW_NO_AUTO_UPDATE=1 brew install $formulas >&2
}

# Where no package manager of the system has them, Python's own does.
venv_install() {
	have python3 || return 1
	say "installing the example's Python packages into .local/venv"
	python3 -m venv "$root/.local/venv" >&2 && "$root/.local/venv/bin/pip" install --quiet --requirement "$root/examples/fastapi/requirements.txt" >&2
}

wanted=$(missing "$@")
[ -n "$wanted" ] || exit 0

# shellcheck disable=SC2086 # the names are words
if have apt-get && may_be_root; then
	apt_install $wanted || say "apt-get could not install all of it"
elif have brew; then
	brew_install $wanted || say "brew could not install all of it"
fi
case $(missing "$@") in *python*) venv_install || say "pip could not install the Python packages" ;; esac

wanted=$(missing "$@")
[ -n "$wanted" ] || exit 0

if have docker && docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then
	# shellcheck disable=SC2086 # the names are words
	say "not here and not to be installed:" $wanted "- using Docker"
	exit 3
fi

say "this machine still lacks:"
for name in $wanted; do
	case $name in
	postgresql) say "  PostgreSQL $min_postgres or newer, the server (Debian: postgresql, for older releases from https://apt.postgresql.org; Fedora: postgresql-server; brew: postgresql@17)" ;;
	redis) say "  Redis $min_redis or newer, redis-server (Debian: redis-server, for older releases from https://packages.redis.io; Fedora and brew: redis)" ;;
	compiler) say "  a C compiler with headers, for the race detector (Debian: gcc libc6-dev; macOS: xcode-select --install)" ;;
	wrk) say "  wrk (Debian, Fedora and brew: wrk)" ;;
	python) say "  Python 3 with $python_modules (Debian: python3-fastapi python3-sqlalchemy python3-uvicorn python3-psycopg2)" ;;
	esac
done
say "Install them, or start Docker, or run this as root or as a user with sudo, and it installs them itself."
exit 1
