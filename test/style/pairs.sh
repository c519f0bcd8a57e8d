#!/usr/bin/env bash
# Prints tests that no suite runs, expected output without a test, and SQL
# modules without a pgTAP file.
set -euo pipefail
shopt -s nullglob

for file in test/sql/* test/specs/*; do
	name=${file##*/}
	case $file in
		test/sql/*.sql | test/specs/*.spec)
			[ -f "expected/${name%.*}.out" ] ||
				echo "$file:1: no expected/${name%.*}.out" ;;
		*)	echo "$file:1: no suite runs this file" ;;
	esac
done
for file in test/pgtap/*; do
	[[ $file == *.sql ]] || echo "$file:1: no suite runs this file"
done
for file in test/t/*; do
	[[ ${file##*/} =~ ^[0-9]{3}_[a-z0-9_]+\.pl$ ]] ||
		echo "$file:1: no suite runs this file, or it has no number"
done

# NAME_1.out is another output of NAME that is as good.
for file in expected/*; do
	name=${file##*/}
	name=${name%.out}
	[ -f "test/sql/$name.sql" ] || [ -f "test/sql/${name%_[0-9]}.sql" ] ||
		[ -f "test/specs/$name.spec" ] || [ -f "test/specs/${name%_[0-9]}.spec" ] ||
		echo "$file:1: no test has this output"
done

# A module is a noun; what concerns all of them is tested by rules.sql.
for file in sql/[0-9][0-9]_*.sql; do
	name=${file##*/??_}
	case $name in
		preamble.sql | privilege.sql | dump.sql) name=rules.sql ;;
	esac
	[ -f "test/pgtap/$name" ] || echo "$file:1: no test/pgtap/$name"
done
