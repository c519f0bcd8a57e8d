# A budget is refilled when its next period begins.  Nobody can wait for that,
# so the server's clock is set: a library that is loaded before all others adds
# the seconds in a file to it.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $directory = PostgreSQL::Test::Utils::tempdir();
my $seconds = "$directory/seconds";

append_to_file("$directory/clock.c", <<"EOC");
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	int (*real)(struct timeval *, void *);
	char text[32] = "";
	int file = open("$seconds", O_RDONLY);
	int result;

	*(void **) &real = dlsym(RTLD_NEXT, "gettimeofday");
	result = real(now, zone);
	if (file >= 0 && read(file, text, sizeof(text) - 1) > 0)
		now->tv_sec += atol(text);
	if (file >= 0)
		close(file);
	return result;
}
EOC
plan skip_all => 'there is no C compiler'
  if system_log($ENV{CC} // 'cc', '-shared', '-fPIC', '-o', "$directory/clock.so", "$directory/clock.c", '-ldl') != 0;

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->init(conf => "prometheus.allow_private_endpoints = on\n");
{
	local $ENV{LD_PRELOAD} = "$directory/clock.so";
	$node->start;
}
$node->create_extension;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The clock of all processes of the server, at so many seconds of an epoch.
sub set_clock
{
	my ($at) = @_;

	append_to_file("$seconds.new", $at - time);
	rename("$seconds.new", $seconds) or die "could not rename $seconds.new: $!";
	$node->wait_for("the clock is set to $at",
		"SELECT abs(extract(epoch FROM clock_timestamp()) - $at) < 60");
	return;
}

# The end of a task: its status, or which budget had no room, and its refill.
sub run
{
	my $task = (split /\n/, sql(<<'EOSQL'))[0];
SELECT prometheus_submit('x', 'fake-echo') AS id \gset
SELECT :id;
SELECT prometheus_wait(:id);
EOSQL
	return sql(
		"SELECT coalesce(substring(error FROM '^budget (.*) is used up') || substring(error FROM '; .*'), status) FROM prometheus.task WHERE task_id = $task"
	);
}

sub used { return sql(q{SELECT string_agg(period || ' ' || spent_tokens, ', ' ORDER BY period) FROM prometheus.budget}); }

# A call of which may need 105 tokens, and needs 2.  The last hour of a month.
my $end = 1796083200; # 2026-12-01 00:00:00+00
set_clock($end - 1800);
$node->fake_agent($llm, 'fake-echo', options => '{"max_tokens": 100}');
sql(q{SELECT prometheus_set_budget('all', 'hour', 105), prometheus_set_budget('all', 'day', 107),
	prometheus_set_budget('agent:fake-echo', 'month', 109)});
is(run(), 'completed', 'a call for which there is room');
is(run(), 'all per hour; it refills at 2026-12-01 00:00:00+00', 'there is none for another in this hour');

# It goes back into the hour before: the day and the month are the same.
set_clock($end - 5400);
is(run(), 'completed', 'in another hour there is');
is(used(), 'day 4, hour 2, month 4', 'the sums of all three');
is(run(), 'all per day; it refills at 2026-12-01 00:00:00+00', 'the day had room for two');
set_clock($end - 90000);
is(run(), 'completed', 'the day before');
is(used(), 'day 2, hour 2, month 6', 'the month goes on');
is(run(), 'agent:fake-echo per month; it refills at 2026-12-01 00:00:00+00', 'and had room for three');

set_clock($end + 60);
is(run(), 'completed', 'all of them are refilled in the next month');
is(used(), 'day 2, hour 2, month 2', 'and count anew');
is(run(), 'all per hour; it refills at 2026-12-01 01:00:00+00', 'until the next hour');
set_clock($end + 3660);
is(run(), 'completed', 'which comes');
$node->check_invariants('the facts fit together', all_ended => 1);
$node->stop;
done_testing();
