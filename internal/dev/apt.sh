#!/bin/sh
# apt.sh PACKAGE…: as root, installs packages of Debian or Ubuntu without a
# question, and leaves no server of theirs running or to be started at boot.
# Called by provision.sh.
#
# The packages of PostgreSQL and Redis would each start a server on the usual
# port. So while they are installed, policy-rc.d forbids starting services and
# postgresql-common is told to create no cluster; both are then as before.
set -eu

export DEBIAN_FRONTEND=noninteractive LC_ALL=C
policy=/usr/sbin/policy-rc.d
clusters=/etc/postgresql-common/createcluster.conf

install() {
	apt-get install --yes --quiet --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@"
}

made_policy=
kept_clusters=
restore() {
	[ -z "$made_policy" ] || rm -f "$policy"
	[ -z "$kept_clusters" ] || mv -f "$kept_clusters" "$clusters"
}
trap restore EXIT
trap 'exit 1' HUP INT TERM

apt-get update --quiet -o DPkg::Lock::Timeout=300

if [ ! -e "$policy" ]; then
	made_policy=yes
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

redis_is_new=
for package in "$@"; do
	case $package in
	postgresql*)
		install postgresql-common
		kept_clusters=$clusters.kept
		cp -p "$clusters" "$kept_clusters"
		echo 'create_main_cluster = false' >>"$clusters"
		;;
	redis-server)
		dpkg-query --show --showformat='${db:Status-Status}' redis-server 2>/dev/null | grep -qx installed || redis_is_new=yes
		;;
	esac
done

install "$@"

# Its package enables the service for the next boot, and starts it where a
# policy of this machine's own lets it.
if [ -n "$redis_is_new" ] && command -v systemctl >/dev/null 2>&1; then
	systemctl disable --now redis-server >/dev/null 2>&1 || true
fi
