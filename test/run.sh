#!/usr/bin/env bash
# Builds and installs the extension from a copy of the tree, and runs the
# suites, the demonstration or the benchmarks in that copy, so that nothing is
# left behind in the tree itself.
#
# PostgreSQL refuses to run as root.  Root's part ends with the installation;
# the rest is done by the user postgres, or by whoever called.
#
# usage: test/run.sh test|demo|bench
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "$what: $*" >&2; }
die() { say "$*"; exit 1; }

what=${1:?usage: test/run.sh test|demo|bench}
case $what in
	test)	script=test/suites.sh ;;
	demo)	script=test/demo.sh ;;
	bench)	script=test/bench/run.sh ;;
	*)	echo "unknown: $what" >&2; exit 2 ;;
esac
[ -f "$script" ] || die "$script does not exist"

# This script's makes are not parts of the make that called it.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES GNUMAKEFLAGS
PG_CONFIG=$(bash test/deps.sh)
bindir=$("$PG_CONFIG" --bindir)

as=()
[ "$(id -u)" != 0 ] || as=(runuser -u postgres --)

# A directory the user can reach: root's TMPDIR may not be.  Benchmarks are
# about a disk, and /tmp may be none.
base=/tmp
[ "$what" != bench ] || base=/var/tmp
[ ${#as[@]} -gt 0 ] || base=${TMPDIR:-$base}
ran=no
faults=	# the directory of the second build, while that is installed
copy=$(mktemp -d "$base/prometheus-$what.XXXXXX")
finish()
{
	local status=$? server
	cd /
	# what was killed may have left a server behind
	find "$copy" -name postmaster.pid 2>/dev/null | while read -r server; do
		"${as[@]}" "$bindir/pg_ctl" -s -m immediate stop -D "${server%/*}" || true
	done
	# nobody wants to go on with a library that can be told to crash
	[ -z "$faults" ] || install_from "$copy" || true
	# the logs of a failure are worth more than the space
	case $status$ran in
		0* | 130* | 143* | *no) rm -rf "$copy" ;;
		*)	say "left in $copy" ;;
	esac
}
trap finish EXIT

tar -cf - --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' \
	--exclude='./tmp_check*' --exclude=./log --exclude=./results \
	--exclude=__pycache__ . | tar -xf - -C "$copy" --no-same-owner
cd "$copy"

make=(make -s "PG_CONFIG=$PG_CONFIG" COPT=-Werror)
build() # FAULTS
{
	"${make[@]}" clean
	"${make[@]}" "FAULTS=$1" -j"$(nproc)" all
}
install_from() # DIRECTORY
{
	if [ -w "$("$PG_CONFIG" --pkglibdir)" ]; then
		"${make[@]}" -C "$1" install
	else
		command -v sudo >/dev/null || die "installing needs root or sudo"
		sudo "${make[@]}" -C "$1" install
	fi
}

# What node's tests need, while the library is built; they pass over themselves
# if it cannot be had.
npm=
mkdir node
if [ "$what" = test ] && command -v npm >/dev/null; then
	timeout 100 npm install --silent --no-audit --no-fund --prefix "$copy/node" \
		standardwebhooks@1.0.0 @opentelemetry/otlp-transformer@0.208.0 \
		@genkit-ai/telemetry-server@1.43.0 </dev/null >&2 &
	npm=$!
fi

# The crash tests need a library with fault points; all others are made with
# the one that people use, which is the one that stays installed.
say "building for $("$PG_CONFIG" --version)"
build "${FAULTS:-}"
if [ "$what" = test ] && [ -z "${FAULTS:-}" ]; then
	mkdir faults
	tar -cf - --exclude=./faults --exclude=./node . | tar -xf - -C faults
	# the same but for what knows of fault points
	(cd faults &&
		grep -rlE '"(fault|mutant)\.h"|PROM_FAULTS' --include='*.c' src | sed 's/c$/o/' | xargs rm &&
		rm prometheus.so && "${make[@]}" FAULTS=1 -j"$(nproc)" all)
	faults=$copy/faults
fi
[ -z "$npm" ] || wait "$npm" || say "npm could not install what tests read with"
install_from "${faults:-$copy}"
[ ${#as[@]} -eq 0 ] || chown -R postgres "$copy"

# Nothing of the caller's but what is meant for the scripts: neither his
# PGHOST nor his proxy nor his keys.  What goes is named, and what stays is not
# repeated: the arguments of a command are for everybody to read.
environment=()
for name in $(compgen -e); do
	case $name in
		PROM_* | PROMETHEUS_LLM_* | PG_TEST_* | CI | TERM | KEEP | BENCH | BENCH_*) ;;
		*) environment+=(-u "$name") ;;
	esac
done
environment+=("PATH=$bindir:$PATH" "HOME=$copy" LANG=C.UTF-8 "PG_CONFIG=$PG_CONFIG"
	"NODE_PATH=$copy/node/node_modules")

[ "$what" != test ] || exec </dev/null
ran=yes
run() { "${as[@]}" env "${environment[@]}" "$@"; }
if [ -n "$faults" ]; then
	environment+=("PROM_SUM=$copy/sum")
	(cd "$faults" && run bash "$script" faults) || true
	[ -s "$copy/sum" ] || echo '0 1' >"$copy/sum"
	install_from "$copy"
	faults=
	environment+=("PROM_TIMEOUT=$((${PROM_TIMEOUT:-1150} - SECONDS))")
fi
run bash "$script"
