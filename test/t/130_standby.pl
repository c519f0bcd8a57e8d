# A standby reads what happens on the primary and runs nothing; promoted, it
# goes on where the primary was.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromAnswers qw(answers);
use PromCluster;
use PromMetrics;
use Test::More;

my $primary = PromCluster->new('primary');
my $standby = PromCluster->new('standby');
my $llm = FakeLLM->new;

$primary->init(
	allows_streaming => 1,
	conf => "wal_receiver_status_interval = '100ms'\n");
$primary->start;
$primary->backup('base');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

# Everything reaches the standby by replication, the extension too.
$primary->create_extension;
$primary->fake_agent($llm, $_) foreach qw(fake-echo fake-hang-before-headers);
is($primary->safe_psql('postgres', q{CALL prometheus_ask('hello', 'fake-echo')}),
	'hello', 'the primary answers');
$primary->safe_psql('postgres', q{SELECT prometheus_remember('a', 'tea')});
my @open =
  map { $primary->submit("'open $_', 'fake-hang-before-headers'") } 1 .. 5;
my $later = $primary->submit("'later', run_at => now() + interval '1 hour'");
$llm->wait_requests(6);
$primary->wait_task($_, 'running') foreach @open;
$primary->wait_for_catchup($standby, 'replay');

# Reading.
foreach my $view (qw(task attempt call step event agent model))
{
	my $query = "SELECT count(*), md5(string_agg(x::text, ',' ORDER BY x::text)) FROM prometheus.$view x";
	$standby->wait_for("$view is the same on the standby",
		$query, $primary->safe_psql('postgres', $query));
	pass("$view is read on the standby");
}
$primary->safe_psql('postgres', q{SELECT prometheus_mark('read')});
my $past = answers($primary, 'read');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is(answers($standby, 'read'), $past, 'AS OF is read on the standby');
is($standby->safe_psql('postgres', 'SELECT prometheus_result(1)'),
	'hello', 'standby: a result');
is( $standby->safe_psql('postgres',
		q{SELECT content FROM prometheus_recall('a', 'tea')}),
	'tea', 'standby: it recalls, and notes nothing');
is($standby->safe_psql('postgres', "SELECT prometheus_wait($open[0], '10 ms')"),
	'running', 'standby: a wait ends at its time-out');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM prometheus.queue'),
	0, 'standby: no queue');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM prometheus.worker'),
	0, 'standby: no worker');
is( $standby->safe_psql('postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^prometheus'}
	),
	0, 'standby: no process of ours at all');
like($standby->health('standby'), qr/^ok\|.*promotion/, 'standby: health says so');
is( $standby->safe_psql('postgres',
		q{SELECT count(*) FROM prometheus_health() WHERE status <> 'ok'}),
	0, 'standby: nothing is wrong with it');
my $metrics = PromMetrics->new($standby);
$metrics->check('standby: metrics are right');
is($metrics->value('prom_agent_in_recovery'), 1, 'standby: they say what it is');
is($metrics->total('prom_agent_workers'), 0, 'standby: no worker runs');

# Writing.
foreach my $write (
	q{SELECT prometheus_submit('x')},
	"SELECT prometheus_cancel($open[0])",
	q{CALL prometheus_ask('x')},
	q{SELECT prometheus_set_agent('x', 'echo')},
	q{SELECT prometheus_set_model('x', 'echo')})
{
	my $error = $standby->error_of($write);
	my ($function) = $write =~ /(prometheus_\w+)/;
	is($error->{state}, '25006', "standby: $function is refused");
	like($error->{message}, qr/recovery|read-only/, "standby: $function says why");
}

# Promotion.
my $soon = $primary->submit("'soon', 'fake-echo', run_at => clock_timestamp() + interval '1 s'");
$primary->wait_for_catchup($standby, 'replay');
my $log = $standby->log_end;
$primary->stop('immediate');
$standby->promote;
is($standby->safe_psql('postgres', q{CALL prometheus_ask('promoted', 'fake-echo')}),
	'promoted', 'promoted: answers');
is(answers($standby, 'read'), $past, 'promoted: AS OF is the same');
$standby->wait_task($soon, 'completed');
$standby->wait_for('promoted: what was open is tried again',
	"SELECT count(*) FROM prometheus.attempt WHERE attempt = 2 AND outcome IS NULL AND task_id IN ("
	  . join(',', @open) . ')', '5');
is( $standby->safe_psql('postgres',
		'SELECT DISTINCT outcome FROM prometheus.attempt WHERE attempt = 1 AND task_id IN ('
		  . join(',', @open) . ')'),
	'lost', 'promoted: the attempts of the primary are lost');
is($standby->safe_psql('postgres', "SELECT why FROM prometheus.queue WHERE task_id = $later"),
	'is not due yet', 'promoted: what is later is in the queue');
is( $standby->safe_psql('postgres',
		q{SELECT string_agg(role, ' ' ORDER BY role) FROM prometheus.worker}),
	'caller launcher publisher scheduler',
	'promoted: every worker runs');
$standby->safe_psql('postgres', "SELECT prometheus_cancel($_)") foreach @open, $later;
$standby->wait_task($_, 'cancelled') foreach @open, $later;
$standby->check_invariants('promoted: invariants', all_ended => 1);
is($standby->log_count(qr/ (ERROR|WARNING|PANIC): /, $log), 0,
	'promoted: no error in the log');
$standby->stop;
$llm->stop;
done_testing();
