#!/usr/bin/env bash
# Compiles the parts that need no server with the compiler's sanitizers, and
# runs their tests; the last line is the sum.
#
# usage: test/unit/run.sh          everything
#        test/unit/run.sh load     many calls at once, with times, unsanitized
#        test/unit/run.sh valgrind the calls to the fake server under valgrind
set -euo pipefail
cd "$(dirname "$0")/../.."

what=${1:-all}
PG_CONFIG=${PG_CONFIG:-pg_config}
CC=${CC:-gcc}
work=$(mktemp -d)
servers=()

finish()
{
	[ ${#servers[@]} = 0 ] || kill "${servers[@]}" 2>/dev/null || true
	rm -rf "$work"
}
trap finish EXIT

parts=(src/{codec,http,transfer,timer,peer,header,rate,pace,address,secret,sse,text,retry,llm,toolcall,otlp}.c
	src/provider/*.c test/unit/standin.c)
flags=(-g -O1 -D_GNU_SOURCE -DUSE_ASSERT_CHECKING=1 '-DPROM_VERSION="test"'
	-Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare
	-iquote src -iquote test/unit "-I$("$PG_CONFIG" --includedir-server)")
libraries=("-L$("$PG_CONFIG" --pkglibdir)" "-L$("$PG_CONFIG" --libdir)"
	-lpgport -lcurl -ljson-c -lzstd -lz -ldl -lpthread -lm)
sanitizers=(-fsanitize=address,undefined -fno-sanitize-recover=undefined)
[ "$what" = all ] || sanitizers=()

# The parts once for all tests; one that does not compile is missed by these.
objects=()
for part in "${parts[@]}"; do
	objects+=("$work/${part//\//_}.o")
	"$CC" "${flags[@]}" "${sanitizers[@]}" -c "$part" -o "${objects[-1]}" &
	[ $((${#objects[@]} % $(nproc))) != 0 ] || wait
done
wait

build() # NAME OPTION...
{
	local name=$1
	shift
	"$CC" "${flags[@]}" "${sanitizers[@]}" "test/unit/$name.c" "${objects[@]}" \
		"$@" "${libraries[@]}" -o "$work/$name"
}

# Start a fake server; its port is in $port.
serve() # OPTION...
{
	mkfifo "$work/pipe"
	python3 test/fake_llm.py --stay "$@" </dev/null >"$work/pipe" &
	servers+=($!)
	read -r port <"$work/pipe"
	rm "$work/pipe"
}

total_passed=0
total_failed=0

# Run a program, and add up its last line; one that dies is a failure.
run() # COMMAND...
{
	local status=0 last
	timeout "${PROM_TIMEOUT:-300}" "$@" >"$work/log" 2>&1 || status=$?
	cat "$work/log"
	last=$(tail -n 1 "$work/log")
	if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
		total_passed=$((total_passed + BASH_REMATCH[1]))
		total_failed=$((total_failed + BASH_REMATCH[2]))
		[ "$status" = 0 ] || [ "${BASH_REMATCH[2]}" != 0 ] ||
			total_failed=$((total_failed + 1))
	else
		echo "$1 ended with status $status"
		total_failed=$((total_failed + 1))
	fi
}

if [ "$what" = all ]; then
	build text_test
	build codec_test
	build rate_test
	build otlp_test
	build reply_test
	build embeddings_test
	run "$work/text_test"
	run "$work/codec_test"
	run "$work/rate_test"
	run "$work/otlp_test"
	run "$work/reply_test" test/replies "${PROM_FUZZ_SECONDS:-5}"
	run "$work/embeddings_test" test/replies "${PROM_FUZZ_SECONDS:-5}"
fi

build http_check -Wl,--wrap=curl_multi_add_handle
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/key" -out "$work/cert" \
	-days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>"$work/log" ||
	{ cat "$work/log"; exit 1; }
serve
plain=$port
serve --tls "$work/cert" "$work/key"
check=("$work/http_check" "$plain" "$port" "$work/cert")
case $what in
	all)	run "${check[@]}" ;;
	load)	run "${check[@]}" load ;;
	valgrind)
		run valgrind -q --leak-check=full --error-exitcode=9 \
			--show-leak-kinds=definite,indirect "${check[@]}" ;;
	*)	echo "usage: test/unit/run.sh [load|valgrind]" >&2; exit 2 ;;
esac

echo "$total_passed passed, $total_failed failed"
[ "$total_failed" = 0 ]
