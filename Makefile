# Builds the extension with PGXS, as any extension.  The targets test, demo,
# bench and deps need nothing but make: they first install what is missing from
# Debian's packages.  PG_CONFIG chooses the server.

EXTENSION   = prometheus
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(EXTENSION).control)

MODULE_big  = $(EXTENSION)
OBJS       := $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/provider/*.c src/tool/*.c)))
PG_CPPFLAGS = -iquote src -DPROM_VERSION='"$(EXTVERSION)"' $(if $(FAULTS),-DPROM_FAULTS)
PG_CFLAGS   = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare
SHLIB_LINK := $(shell pkg-config --libs libcurl json-c libzstd zlib 2>/dev/null || echo -lcurl -ljson-c -lzstd -lz)

# One install script, concatenated from the numbered modules.
INSTALL_SQL = sql/$(EXTENSION)--$(EXTVERSION).sql
DATA        = $(filter-out $(INSTALL_SQL),$(wildcard sql/$(EXTENSION)--*.sql))
DATA_built  = $(INSTALL_SQL)

# Each suite starts a server of its own.
TEMP_SERVER    = --temp-config=test/$(EXTENSION).conf --load-extension=$(EXTENSION)
REGRESS       := $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS   = --inputdir=test --temp-instance=./tmp_check $(TEMP_SERVER)
ISOLATION     := $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=. --temp-instance=./tmp_check_iso $(TEMP_SERVER)
TAP_TESTS      = 1
# Those that take longest begin first, or one would run alone in the end.
LONG_TESTS    := $(foreach n,140 163 300 470 420 432 230 460 431 450 430 400 240 162 161,$(wildcard test/t/$(n)_*.pl))
PROVE_TESTS    = $(LONG_TESTS) $(filter-out $(LONG_TESTS),$(sort $(wildcard test/t/*.pl)))
EXTRA_CLEAN    = regression.diffs regression.out results log output_iso tmp_check_iso

# Debian's server was built with LLVM, but bitcode gains an extension nothing
# that spends its time in waiting, and takes longer than the compilation.
override with_llvm = no

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

ifneq ($(wildcard $(PGXS)),)
include $(PGXS)

# After PGXS, which sets it.
PG_PROVE_FLAGS += -I $(CURDIR)/test/perl

# pg_regress makes its databases in the locale of the environment.
export LANG = C.UTF-8
unexport LC_ALL LC_COLLATE LC_CTYPE

$(INSTALL_SQL): $(sort $(wildcard sql/[0-9][0-9]_*.sql)) $(EXTENSION).control
	cat $(filter %.sql,$^) > $@

# Sums over vectors.
src/embedding.o: CFLAGS += $(CFLAGS_UNROLL_LOOPS) $(CFLAGS_VECTORIZE)

$(OBJS): $(wildcard src/*.h src/provider/*.h src/tool/*.h) $(EXTENSION).control
else
# Neither a library nor a script can have been built.
all install uninstall installcheck:
	@echo "$(PG_CONFIG) with PGXS not found: install postgresql-server-dev-NN, set PG_CONFIG," >&2
	@echo "or let \"make deps\" install what is missing" >&2
	@exit 1
clean:
endif

deps:
	@PG_CONFIG='$(PG_CONFIG)' bash test/deps.sh

test demo bench:
	@PG_CONFIG='$(PG_CONFIG)' FAULTS='$(FAULTS)' bash test/run.sh $@

check-style:
	@PG_CONFIG='$(PG_CONFIG)' bash test/style/check.sh

.PHONY: all install uninstall installcheck clean deps test demo bench check-style
