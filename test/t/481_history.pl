# What AS OF shows is what was seen then, in all relations together, and the same
# for ever: while sessions write, after a crash that loses commits, on a standby and
# when all is frozen.
# test/perl/PromHistory.pm says how that is found out.
#
# By hand: PROM_HISTORY_SECONDS=N writes for N seconds (8),
# PROM_HISTORY_READINGS=N asks so often afterwards (100000), and
# PROM_HISTORY_SEED=N repeats the choices of a run.
use strict;
use warnings FATAL => 'all';

use PromCluster;
use PromHistory;
use Test::More;

my $seconds = $ENV{PROM_HISTORY_SECONDS} // 8;
my $most = $ENV{PROM_HISTORY_READINGS} // 100_000;
my $node = PromCluster->new('history');
$node->init(
	allows_streaming => 1,
	conf => "prometheus.mark_interval = '50ms'\nmax_prepared_transactions = 4\nmax_connections = 30\nstatement_timeout = 0\nsynchronous_commit = off\n");
$node->start;
$node->create_extension;
my $history = PromHistory->new($node, writers => 6, seed => $ENV{PROM_HISTORY_SEED} // time % 1_000_000);
$node->backup('base');
my $standby = PromCluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

my $end = sql("SELECT clock_timestamp() + interval '$seconds s'");
is($history->work("SELECT clock_timestamp() > '$end' AND (SELECT count(*) = 8 FROM (SELECT FROM written GROUP BY who HAVING max(n) > 3) w)"), '', 'all sessions ended well');
# In another order, by other sessions, and after a crash: marks were flushed, so
# whatever they saw is there.
$node->stop('immediate');
$node->start;
$node->worker_pid('publisher');
sql('INSERT INTO reading (at, past, again, after) SELECT at, past, state_at(at), after FROM (SELECT DISTINCT ON (at) * FROM reading ORDER BY at, id) r ORDER BY random()');
is($history->wrong, '', 'what was seen is what is seen AS OF then, whole, and for ever');
my ($readings, $moments) = split /\|/, sql('SELECT count(*), count(DISTINCT at) FROM reading');
note "$readings readings of $moments moments, of all that was written";
is( sql(q{SELECT count(DISTINCT who) FROM line WHERE which = 'past' AND n > 1}),
	8, 'and each writer was seen');
cmp_ok(sql(q{SELECT count(*) FROM reading WHERE before <> after}),
	'>', 0, 'while it wrote');

# Readings that are quicker: one writer in all relations.
note 'known without a doubt: ', $history->settle;
cmp_ok(sql('SELECT count(*) FROM truth WHERE low = high'), '>', 100, 'observers saw what marks saw');
foreach ([ 'after a crash', $node, 0.9 ], [ 'on a standby', $standby, 0.05 ], [ 'frozen', $node, 0.05 ])
{
	my ($when, $server, $part) = @$_;
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert')) if $when =~ /standby/;
	sql('SET vacuum_freeze_min_age = 0; VACUUM FREEZE') if $when =~ /frozen/;
	my ($n, $wrong) = $history->ask($server, $most * $part, 2);
	is($wrong, '', "$when: whole, faithful, and the same");
	cmp_ok($n, '>=', $most * $part, "$when: so many readings");
	$readings += $n;
}
note "$readings readings AS OF";
$standby->stop;
$node->stop;
done_testing();
