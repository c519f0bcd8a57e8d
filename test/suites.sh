#!/usr/bin/env bash
# Runs every suite against the installed extension and prints, at the end of
# each, how many tests passed and failed; the last line is the sum.  A suite
# that dies or runs nothing counts as a failure.
#
# The name of a suite as an argument runs that one only; "faults" are the tests
# that need a library made with FAULTS=1.  With PROM_SUM, the name of a file,
# its result is not printed but kept there for the run that follows.
set -euo pipefail
cd "$(dirname "$0")/.."

export PG_CONFIG=${PG_CONFIG:-pg_config}
export PERL5LIB=$PWD/test/perl${PERL5LIB:+:$PERL5LIB}
# A wait that comes to nothing fails after so many seconds; and after so many the
# whole run ends, with its sum.
export PG_TEST_TIMEOUT_DEFAULT=${PG_TEST_TIMEOUT_DEFAULT:-120}
readonly limit=${PROM_TIMEOUT:-1150}
# TAP files at a time: most of what they do is to wait.
readonly jobs=${PROM_JOBS:-$(($(nproc) + 1))}

logs=$(mktemp -d)
pid=
trap 'rm -rf "$logs"' EXIT
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; wait; exit 130' INT TERM

total_passed=0
total_failed=0
only=${1:-}
sum=${PROM_SUM:-}
[ ! -s "$sum" ] || read -r total_passed total_failed <"$sum"

# Count what pg_regress reports: "test NAME ... ok" up to PostgreSQL 15, TAP
# from 16.
count_regress()
{
	passed=$(grep -cE '(^ok [0-9]+ |\.\.\. ok\b)' "$1") || true
	failed=$(grep -cE '(^not ok [0-9]+ |\.\.\. FAILED\b)' "$1") || true
}

# Read a closing line "N passed, N failed".
count_closing()
{
	read -r passed failed < <(sed -nE \
		's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$1" | tail -n 1) || true
	passed=${passed:-0} failed=${failed:-0}
}

suite() # NAME COUNTER COMMAND...
{
	local name=$1 counter=$2 log=$logs/$1 status=0 passed failed
	local t0=$SECONDS left=$((SECONDS < limit ? limit - SECONDS : 1))
	shift 2
	[ -z "$only" ] || [ "$only" = "$name" ] || return 0

	echo "== $name"
	rm -f regression.diffs
	: >"$log"
	timeout -k 10 "$left" "$@" </dev/null >"$log" 2>&1 &
	pid=$!
	# only one line of the whole run may look like the sum
	tail -n +1 -s 0.1 -f --pid="$pid" "$log" |
		sed -uE '/^[0-9]+ passed, [0-9]+ failed$/d' &
	wait "$pid" || status=$?
	pid=
	wait

	"$counter" "$log"
	if [ "$status" = 124 ]; then
		echo "$name: stopped after $left s"
	fi
	if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
		echo "$name: exited with $status"
		failed=1
		# where it was
		find tmp_check/log -type f -mmin -1 -exec tail -n 30 {} + 2>/dev/null || true
	elif [ "$passed" = 0 ] && [ "$failed" = 0 ]; then
		echo "$name: ran nothing"
		failed=1
	fi
	if [ "$failed" != 0 ] && [ -f regression.diffs ]; then
		head -n 400 regression.diffs
	elif [ "$failed" != 0 ] && [ "$counter" = count_regress ]; then
		tail -n 40 log/*.log 2>/dev/null || true
	fi
	echo "$name: $passed passed, $failed failed ($((SECONDS - t0)) s)"
	total_passed=$((total_passed + passed))
	total_failed=$((total_failed + failed))
}

# One of the suites that PGXS knows, without the others.
check=(make -s "PG_CONFIG=$PG_CONFIG" installcheck)

any() { compgen -G "$1" >/dev/null; }

suite style count_closing bash test/style/check.sh
! any test/unit/run.sh || suite unit count_closing bash test/unit/run.sh
! any 'test/sql/*.sql' ||
	suite regress count_regress "${check[@]}" ISOLATION= TAP_TESTS=
! any 'test/specs/*.spec' ||
	suite isolation count_regress "${check[@]}" REGRESS= TAP_TESTS=
tap=(REGRESS= ISOLATION=)
[ "$only" != faults ] || suite faults count_closing "${check[@]}" "${tap[@]}" \
	PROVE_TESTS='test/t/310_fault_points.pl test/t/311_fault_points.pl test/t/312_full_faults.pl test/t/320_guilt.pl test/t/330_http_tool_faults.pl test/t/482_mutant.pl test/t/491_retention_faults.pl test/t/504_delivery_faults.pl test/t/511_alert_faults.pl test/t/721_export_faults.pl' \
	PROVE_FLAGS="--harness=PromHarness -j$jobs"
! any 'test/t/*.pl' ||
	suite tap count_closing "${check[@]}" "${tap[@]}" \
		PROVE_FLAGS="--harness=PromHarness -j$jobs"

if [ -n "$sum" ] && [ "$only" = faults ]; then
	echo "$total_passed $total_failed" >"$sum"
else
	echo "$total_passed passed, $total_failed failed"
fi
[ "$total_failed" = 0 ]
