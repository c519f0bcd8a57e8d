#!/usr/bin/env bash
# Prints what the compiler says about each header on its own.
#
# usage: headers.sh INCLUDEDIR_SERVER HEADER...
set -euo pipefail

include=$1
shift
for header; do
	"${CC:-gcc}" -fsyntax-only -Wall -Werror -x c -D_GNU_SOURCE \
		-include postgres.h -iquote src -I"$include" "$header" 2>&1 |
		grep -E '(error|warning): ' || true
done
