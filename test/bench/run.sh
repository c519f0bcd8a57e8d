#!/usr/bin/env bash
# Measures prometheus beside floors and peers in the same run, on a private
# server with fsync on, and prints one table.  Nothing fails by being slow: the
# table says which goals are met.
#
#   BENCH          the parts to run, all by default:
#                  submit drain snapshot blocked peers latency flight idle
#                  kill listen events history state steps full tracked
#                  traced conversation marks recall soak
#   BENCH_ROUNDS   of what is compared (3)
#   BENCH_JOBS     tasks of a drain beside a snapshot, blocked tasks or peers
#                  (10000)
#   BENCH_STEPS    tasks of five steps (2000)
#   BENCH_FULL     tasks in full mode, and in fast mode (50)
#   BENCH_TRACED   tasks of a drain with and without the export of traces (10000)
#   BENCH_BLOCKED  tasks that are blocked (100000)
#   BENCH_BLOCKED_BY  what blocks them: time, task, or both (both)
#   BENCH_EVENTS   events that a consumer reads (1000000)
#   BENCH_IDLE     seconds of doing nothing (30)
#   BENCH_SOAK     minutes at half load; 0: none (0)
#   BENCH_HISTORY  tasks of history (1000000)
#   BENCH_DIR      where the server is: a directory on the disk in question
#
# Called by "make bench", which builds and installs first.
set -euo pipefail
cd "$(dirname "$0")"

dir=$(mktemp -d "${BENCH_DIR:-$PWD}/prometheus.XXXXXX")
stop()
{
	local status=$?
	trap - EXIT
	[ ! -f "$dir/data/postmaster.pid" ] || pg_ctl -s -D "$dir/data" -m immediate stop || true
	rm -rf "$dir"
	exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

python3 bench.py "$dir"
