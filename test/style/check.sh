#!/usr/bin/env bash
# Checks the rules that programs can check, prints each breach as FILE:LINE:
# WHAT, and at the end how many checks passed and failed.  What a check needs
# and is not installed is said, and counts as neither.
set -euo pipefail
cd "$(dirname "$0")/../.."
shopt -s nullglob

PG_CONFIG=${PG_CONFIG:-pg_config}
passed=0
failed=0

# A check is a command that prints breaches: it fails if it prints anything, or
# exits with an error.
check() # NAME COMMAND...
{
	local name=$1 output status=0
	shift
	output=$("$@" 2>&1 </dev/null) || status=$?
	if [ "$status" = 0 ] && [ -z "$output" ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "style check failed: $name"
		[ -z "$output" ] || echo "$output"
	fi
}

skip() { echo "style check skipped: $1 ($2)"; }

shell_syntax()
{
	local file
	for file in "$@"; do bash -n "$file"; done
}

# One line a file is enough: clang-format -i mends all of it.
layout()
{
	"$clang_format" --dry-run -Werror "$@" 2>&1 |
		awk -F: '/ code should be clang-formatted/ && !seen[$1]++ {
			print $1 ":" $2 ": not laid out by .clang-format (first place)"
		}'
}

c=(src/*.[ch] src/provider/*.[ch] src/tool/*.[ch])
headers=(src/*.h src/provider/*.h src/tool/*.h)
sql=(sql/[0-9][0-9]_*.sql)
scripts=(.ci/run test/*.sh test/bench/*.sh test/style/*.sh test/unit/*.sh)
texts=(Makefile *.control *.md .ci/* src/*.md test/*.* test/sql/* test/specs/*
	test/pgtap/* test/t/* test/perl/* test/style/* test/unit/*.* test/bench/*.*)

check 'blanks, columns' perl test/style/lines.pl "${c[@]}" "${sql[@]}" "${texts[@]}"
check 'function and file length' \
	awk -v MAX=100 -v FILEMAX=800 -f test/style/fnlen.awk "${c[@]}"
check 'banned calls' perl test/style/calls.pl banned "${c[@]}"
check 'SQLSTATEs' perl test/style/calls.pl errcode "${c[@]}"
check 'version switches' perl test/style/calls.pl version "${c[@]}"
check 'install script' perl test/style/sqllint.pl "${sql[@]}"
check 'tests' bash test/style/pairs.sh
check 'shell syntax' shell_syntax "${scripts[@]}"

include=$("$PG_CONFIG" --includedir-server 2>/dev/null) || include=
if [ -f "$include/postgres.h" ]; then
	check 'headers' bash test/style/headers.sh "$include" "${headers[@]}"
else
	skip 'headers' 'no postgres.h'
fi

if [ -f prometheus.so ]; then
	check 'exported symbols' bash test/style/symbols.sh prometheus.so
else
	skip 'exported symbols' 'prometheus.so is not built'
fi

# Another version of clang-format lays out differently.
clang_format=$(command -v clang-format-14 || command -v clang-format) || clang_format=
if [[ $("${clang_format:-false}" --version) == *'version 14.'* ]]; then
	check 'layout' layout "${c[@]}"
else
	skip 'layout' 'no clang-format 14'
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
