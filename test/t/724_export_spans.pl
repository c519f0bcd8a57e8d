# Export: applications' own spans go to the collector as the tasks of their trace
# do, at least once, whoever dies.
use strict;
use warnings FATAL => 'all';

use FakeCollector;
use FakeLLM;
use PromCluster;
use Test::More;

my $node = PromCluster->new('export');
my $collector = FakeCollector->new;
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub set_conf
{
	my (%settings) = @_;
	sql("ALTER SYSTEM SET $_ = '$settings{$_}'") foreach sort keys %settings;
	$node->reload;
	return;
}

$node->init(restart_after_crash => 1, fsync => 1,
	conf => "prometheus.trace_sample_ratio = 1\nprometheus.otlp_interval = 10ms\nprometheus.otlp_metrics_interval = 0\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;

# A span of that name, with what is done in it; its trace.
sub span
{
	my ($name, $more) = @_;

	$more .= q{ \g /dev/null} if defined $more && $more !~ /\\g \S+$/;
	return sql(sprintf q{SELECT prometheus_span_start('%s') AS s \gset} . "\n%s\n" . q{SELECT prometheus_span_end(:'s') \g /dev/null} . "\n" . q{SELECT substr(:'s', 4, 32)}, $name, $more // '');
}

# Nothing waits, neither to be written nor to be sent.
sub wait_exported
{
	my ($about) = @_;
	$node->wait_for($about, <<'EOSQL');
SELECT waiting = 0 AND lag = 0 AND waiting_since IS NULL AND NOT EXISTS (SELECT FROM prometheus._span_held WHERE is_due)
   AND NOT EXISTS (SELECT FROM prometheus._span x, prometheus._span_position p WHERE (x.xid, x.trace_id, x.span_id) > (p.xid, p.trace_id, p.span_id))
  FROM prometheus._span_counts(), prometheus.consumer, prometheus.export WHERE name = 'prometheus.otlp'
EOSQL
	return;
}

# The names of what was sent of a trace, each as often as it was.
sub sent
{
	my ($trace) = @_;
	return join ' ', sort map { $_->{name} } grep { $_->{traceId} eq $trace } $collector->spans;
}

sub held { return sql('SELECT count(*) FROM prometheus._span_held'); }

# Turned on.

my $early = span('early');
$node->wait_for('it is written', 'SELECT count(*) FROM prometheus._span', 1);
is(sql('SELECT count(*) FROM prometheus._span_position'), '0', 'there is no position while the export is off');
set_conf('prometheus.otlp_endpoint' => $collector->url);
$node->wait_for('it is turned on', 'SELECT count(*) FROM prometheus._span_position', 1);
my $alone = span('alone', q{SELECT prometheus_span_start('within', '{"a": [1, "b"]}') AS w \gset} . "\n" . q{SELECT prometheus_span_end(:'w', 'error') \g /dev/null});
wait_exported('it is exported');
is(sent($alone), 'alone within', 'what no task is a part of goes when it has ended');
is(sent($early), '', 'not what had ended before');
my ($within) = grep { $_->{name} eq 'within' } $collector->spans;
my ($outer) = grep { $_->{name} eq 'alone' } $collector->spans;
is($within->{parentSpanId}, $outer->{spanId}, 'with its parent');
is(join(' ', map { my $one = $_; map { "$_->{key}=" . ($_->{value}{stringValue} // 'list') } grep { $_->{key} ne 'prometheus.owner' } @{ $one->{attributes} } } $within), 'a=list error.type=_OTHER', 'and attributes');
is($within->{status}{code} . ' ' . $within->{kind}, '2 1', 'status and kind');
is($outer->{startTimeUnixNano}, sql(q{SELECT (extract(epoch FROM started_at) * 1000000)::bigint || '000' FROM prometheus.span WHERE name = 'alone'}), 'times');

# Rolled back.

sql(q{BEGIN; SELECT prometheus_span_start('lost'); ROLLBACK});
wait_exported('a rollback is exported');
is(scalar(grep { $_->{name} eq 'lost' } $collector->spans), 1, 'a span of a transaction that was rolled back is sent');

# With tasks.

my $with = span('with a task', q{SELECT prometheus_submit('hi') AS t \gset} . "\n" . q{SELECT prometheus_wait(:t, '30 s') \g /dev/null});
wait_exported('both are exported');
is(sent($with), 'chat echo invoke_agent default review task with a task', 'a span goes with its task');
set_conf('prometheus.trace_sample_ratio' => '0');
$node->wait_for('none is sampled', 'SHOW prometheus.trace_sample_ratio', '0');
my $none = span('with none', q{SELECT prometheus_submit('hi') AS t \gset} . "\n" . q{SELECT prometheus_wait(:t, '30 s') \g /dev/null});
my $dropped = span('dropped');
wait_exported('nothing waits');
is(sent($none) . sent($dropped), '', 'what is not sampled does not go, with tasks or without');
my $wrong = sql(q{SELECT prometheus_span_start('wrong') AS s \gset} . "\n" . q{SELECT prometheus_span_end(:'s', 'error') \g /dev/null} . "\n" . q{SELECT substr(:'s', 4, 32)});
my $told = sql(q{SELECT prometheus_span_start('told', traceparent => '00-00000000000000000000000000000011-00f067aa0ba902b7-01') AS s \gset} . "\n"
	. q{SELECT prometheus_span_end(prometheus_span_start('part')) \g /dev/null} . "\n" . q{SELECT prometheus_span_end(:'s') \g /dev/null} . "\n" . q{SELECT substr(:'s', 4, 32)});
wait_exported('nothing waits again');
is(sent($wrong), 'wrong', 'an error is sampled');
is(sent($told), 'part told', 'and so is what another one said to be');

# Held, until the task has ended, and then decided.

sql('SELECT prometheus_pause()');
my $failed = span('of a failure', q{SELECT prometheus_submit('x', metadata => '{"trace": "always"}')});
my $well = span('of nothing', q{SELECT prometheus_submit('y')});
$node->wait_for('they are written', "SELECT count(*) FROM prometheus._span WHERE name IN ('of a failure', 'of nothing')", 2);
is(held(), '0', 'nothing is read while all is paused');
sql('SELECT prometheus_resume()');
$node->wait_for('both have ended', "SELECT count(*) FROM prometheus.task WHERE status IN ('queued', 'running')", 0);
wait_exported('the outcome decides');
is(sent($failed), 'chat echo invoke_agent default of a failure review task', 'a trace that is kept has its span');
is(sent($well), '', 'one that is not has not');
is(held(), '0', 'and none is held any more');

# A span that ends before its transaction submits the task; the export has a second
# to pass it.

my $before = sql(<<'EOSQL');
BEGIN;
SELECT prometheus_span_start('before its task') AS s \gset
SELECT prometheus_span_end(:'s') \g /dev/null
DO $$
DECLARE
	until CONSTANT timestamptz := clock_timestamp() + interval '1 s';
BEGIN
	WHILE clock_timestamp() < until LOOP
		EXIT WHEN EXISTS (SELECT FROM prometheus._span x, prometheus._span_position p
		                   WHERE x.name = 'before its task' AND (x.xid, x.trace_id, x.span_id) <= (p.xid, p.trace_id, p.span_id));
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
SELECT prometheus_submit('x', traceparent => :'s', metadata => '{"trace": "always"}') \g /dev/null
COMMIT;
SELECT substr(:'s', 4, 32);
EOSQL
$node->wait_for('its task has ended', "SELECT status FROM prometheus.task WHERE trace_id = '$before'", 'completed');
wait_exported('both are exported');
is(sent($before), 'before its task chat echo invoke_agent default review task', 'goes with it');

# By a task that runs for long.

set_conf('prometheus.trace_sample_ratio' => '1');
my $later = span('before it', q{SELECT prometheus_submit('z', run_at => now() + interval '1 hour')});
my $other = span('meanwhile');
$node->wait_for('one is held', 'SELECT count(*) FROM prometheus._span_held', 1);
wait_exported('the others go on');
is(sent($other), 'meanwhile', 'a trace that is not at rest holds up no other');
is(sent($later), '', 'while its span waits');
$node->restart;
is(held(), '1', 'also over a restart');
sql("SELECT prometheus_cancel(task_id) FROM prometheus.task WHERE trace_id = '$later'");
wait_exported('the task has ended');
is(sent($later), 'before it invoke_agent default', 'then it goes');
is(held(), '0', 'and is held no more');
sql(qq{SELECT prometheus_span_start('late', traceparent => '00-$later-00f067aa0ba902b7-01') AS s \\gset\nSELECT prometheus_span_end(:'s') \\g /dev/null});
wait_exported('a late one');
is(sent($later), 'before it invoke_agent default late', 'one that ends when its tasks are exported goes by itself');

# In a tool.

sql(<<'EOSQL');
CREATE FUNCTION work(t text) RETURNS text LANGUAGE sql AS $$SELECT prometheus_span_end(prometheus_span_start('in a tool')); SELECT t$$;
SELECT prometheus_set_tool('work(text)'), prometheus_set_agent('s', 'scripted', tools => '{work}');
EOSQL

# An outage, and retention.

$collector->behave({ status => 503, times => 1000 });
my $outage = span('in an outage');
$node->wait_for('it fails', 'SELECT failures > 0 FROM prometheus.export');
set_conf('prometheus.retention_spans' => '1s', 'prometheus.retention_waiting' => '1h');
my $gone = q{SELECT count(*) FROM prometheus._span WHERE name = 'alone'};
$node->wait_for('what is exported goes by retention', $gone, 0);
is(sql(q{SELECT count(*) FROM prometheus._span WHERE name = 'in an outage'}), '1', 'what is not stays');
$collector->behave;
sql('SELECT pg_reload_conf()');
wait_exported('the outage is over');
is(sent($outage) =~ s/(in an outage)( \1)*/$1/r, 'in an outage', 'nothing is lost by it');
$node->wait_for('then it goes', q{SELECT count(*) FROM prometheus._span WHERE name = 'in an outage'}, 0);
$later = span('kept', q{SELECT prometheus_submit('z', run_at => now() + interval '1 hour')});
$node->wait_for('one is held', 'SELECT count(*) FROM prometheus._span_held', 1);
set_conf('prometheus.retention_waiting' => '0');
$node->wait_for('not for ever', 'SELECT count(*) FROM prometheus._span', 0);
is(held(), '0', 'what waits for longer than retention_waiting is gone');
set_conf('prometheus.retention_spans' => '0');

# Many.

my $many = sql(q{SELECT count(prometheus_span_end(prometheus_span_start('many'))) FROM generate_series(1, 500)});
wait_exported('many are exported');
is(scalar(grep { $_->{name} eq 'many' } $collector->spans), 500, 'each once, in several requests');
cmp_ok(scalar(grep { FakeCollector::spans_of($_) > 512 } @{ $collector->requests }), '==', 0, 'and no request has more than it may');

# Turned off and on.

set_conf('prometheus.otlp_endpoint' => '');
$node->wait_for('it is off', 'SELECT count(*) FROM prometheus._span_position', 0);
my $off = span('off');
$node->wait_for('it is written', q{SELECT count(*) FROM prometheus._span WHERE name = 'off'}, 1);
set_conf('prometheus.otlp_endpoint' => $collector->url);
$node->wait_for('it is on', 'SELECT count(*) FROM prometheus._span_position', 1);
my $on = span('on');
wait_exported('it goes on');
is(sent($off) . sent($on), 'on', 'from then on');

# Killed.

SKIP:
{
	skip 'the library was built without FAULTS=1', 1 unless $node->has_faults;
	my $round = 0;

	foreach my $fault (
		'export-in-span:die:1', 'export-in-span:error:1', 'export-before-commit:die:1', 'export-before-commit:error:1',
		'export-before-commit:die:2', 'export-before-commit:error:2', 'export-after-commit:die:1', 'export-after-commit:die:2',
		'export-before-send:die:1', 'export-before-send:error:1', 'export-after-send:die:1', 'export-answered:die:1', 'export-answered:stop:1')
	{
		my ($point, $action) = split /:/, $fault;
		my @traces;

		$round++;

		# The one is held, and then due; the others go.
		push @traces, span("held $round", q{SELECT prometheus_submit('z', run_at => now() + interval '1 hour')});
		$node->wait_for("$fault: one is held", 'SELECT count(*) FROM prometheus._span_held', 1);
		$node->set_fault($fault);
		$node->psql('postgres', "SELECT prometheus_cancel(task_id) FROM prometheus.task WHERE trace_id = '$traces[0]'; SELECT prometheus_span_end(prometheus_span_start('round $round')) FROM generate_series(1, 3)");
		if ($action eq 'stop')
		{
			$node->wait_stopped;
			$node->start;
		}
		$node->wait_for("$fault: it was met", "SELECT count(*) > 0 FROM pg_ls_dir('.') f WHERE f = 'prometheus.fault.$point'");
		wait_exported("$fault: all is exported");
		my %lost = map { $_ => 1 } split /\n/, sql("SELECT span_id FROM prometheus.span WHERE name IN ('held $round', 'round $round')");
		delete $lost{ $_->{spanId} } foreach $collector->spans;
		is(join(' ', sort keys %lost), '', "T21: $fault: nothing is lost");
	}
}
done_testing();
