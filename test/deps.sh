#!/usr/bin/env bash
# Installs the Debian packages that building and testing need and that are
# missing, and prints the path of the pg_config to build with.
#
# The server is the one that PG_CONFIG names; else the newest installed; else
# the release's own.
set -euo pipefail

readonly oldest=15	# the first PostgreSQL the extension supports
readonly debian=/usr/lib/postgresql

say() { echo "deps: $*" >&2; }
die() { say "$*"; exit 1; }

as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "neither root nor sudo: cannot run $*"
	fi
}

# Print those of the packages that are not installed.
missing()
{
	local package
	for package; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
			echo "$package"
	done
}

apt()
{
	local log
	log=$(mktemp)
	if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
		-o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 \
		"$@" </dev/null >"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		die "apt-get $1 failed"
	fi
	rm -f "$log"
}

updated=
update()
{
	[ -z "$updated" ] || return 0
	say "apt-get update"
	apt update
	updated=1
}

# The server's package makes a cluster and starts it on port 5432, unless it is
# told not to.  The tests start servers of their own.
readonly no_cluster=/etc/postgresql-common/createcluster.d/prometheus-test.conf
forbid_cluster()
{
	as_root mkdir -p "${no_cluster%/*}"
	echo 'create_main_cluster = false' | as_root tee "$no_cluster" >/dev/null
}

# The monitoring system's package starts it as a service, unless invoke-rc.d is
# told not to, and at the next boot, unless it is disabled.
readonly no_service=/usr/sbin/policy-rc.d
own_policy=
forbid_services()
{
	[ ! -e "$no_service" ] || return 0
	own_policy=$no_service
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$no_service" >/dev/null
	as_root chmod 755 "$no_service"
}

forget_rules()
{
	as_root rm -f "$no_cluster" ${own_policy:+"$own_policy"}
}

has_pgxs()
{
	local pgxs
	pgxs=$("$1" --pgxs 2>/dev/null) && [ -f "$pgxs" ]
}

# Print the newest server that Debian's packages have installed, if any.
newest_installed()
{
	local version newest=
	for version in "$debian"/*/bin/postgres; do
		version=${version#"$debian"/}
		version=${version%%/*}
		[[ $version =~ ^[0-9]+$ ]] && ((version >= ${newest:-$oldest})) &&
			newest=$version
	done
	echo "$newest"
}

pg_config=${PG_CONFIG:-pg_config}
packages=(gcc libc6-dev make libcurl4-openssl-dev libjson-c-dev libzstd-dev zlib1g-dev
	perl libipc-run-perl python3 python3-psycopg2 pgbackrest
	prometheus python3-prometheus-client)

command -v dpkg-query >/dev/null || packages=()

version=
if [[ $pg_config =~ ^$debian/([0-9]+)/bin/pg_config$ ]]; then
	version=${BASH_REMATCH[1]}
elif has_pgxs "$pg_config"; then
	# One of Debian's by another name, or a server built by hand, which has
	# no packages: then pgTAP must be there.
	bindir=$("$pg_config" --bindir)
	if [[ $bindir =~ ^$debian/([0-9]+)/bin$ ]]; then
		version=${BASH_REMATCH[1]}
	fi
elif [ "$pg_config" != pg_config ]; then
	die "PG_CONFIG=$pg_config: not a pg_config with PGXS"
elif [ ${#packages[@]} = 0 ]; then
	die "no pg_config with PGXS, and no Debian packages to install it from"
else
	version=$(newest_installed)
	if [ -z "$version" ]; then
		update
		version=$(apt-cache depends postgresql |
			sed -n 's/^ *Depends: postgresql-\([0-9][0-9]*\)$/\1/p')
		[ -n "$version" ] || die "this release has no package postgresql"
	fi
fi

if [ -n "$version" ]; then
	((version >= oldest)) || die "PostgreSQL $oldest or later is needed, not $version"
	packages+=("postgresql-$version" "postgresql-server-dev-$version"
		"postgresql-$version-pgtap")
	pg_config=$debian/$version/bin/pg_config
fi

mapfile -t lacking < <(missing "${packages[@]}")
if [ ${#lacking[@]} -gt 0 ]; then
	update
	say "installing ${lacking[*]}"
	trap forget_rules EXIT
	forbid_cluster
	forbid_services
	apt install --no-install-recommends "${lacking[@]}"
	case " ${lacking[*]} " in
		*' prometheus '*) as_root update-rc.d prometheus disable >&2 ;;
	esac
	say "installed"
fi

command -v "$pg_config"
