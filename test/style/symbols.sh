#!/usr/bin/env bash
# Prints the symbols of a library that others could clash with: PostgreSQL loads
# libraries with RTLD_GLOBAL, and up to 15 everything in them is visible.
#
# usage: symbols.sh LIBRARY
set -euo pipefail

nm -D --defined-only "$1" | awk -v library="$1" '
	$3 !~ /^(prom_.*|pg_finfo_prom_.*|Pg_magic_func|_PG_init)$/ {
		print library ":1: exported symbol without the prefix prom_: " $3
	}'
