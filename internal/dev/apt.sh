#!/bin/sh
# apt.sh PACKAGE…: as root, installs packages of Debian or Ubuntu without a
# question, and leaves no server of theirs running or to be started at boot.
# Called by provision.sh.
#
# The packages of PostgreSQL, Redis and webdis would each start a server on the usual
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

new_services=
for package in "$@"; do
	case $package in
	postgresql*)
		install postgresql-common
		kept_clusters=$clusters.kept
		cp -p "$clusters" "$kept_clusters"
		echo 'create_main_cluster = false' >>"$clusters"
		;;
	redis-server | webdis)
		dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || new_services="$new_services $package"
		;;
	esac
done

install "$@"

# Their packages enable the services for the next boot, and start them where a
# policy of this machine's own lets them.
if [ -n "$new_services" ] && command -v systemctl >/dev/null 2>&1; then
	# shellcheck disable=SC2086 # the services are words
	systemctl disable --now $new_services >/dev/null 2>&1 || true
fi
