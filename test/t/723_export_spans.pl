# Spans of applications go to the collector, with the traces that they are of: each
# that is sampled, once if nobody dies, and what was left out when it is known
# later that its trace is sampled all.
use strict;
use warnings FATAL => 'all';

use FakeCollector;
use PromCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PromCluster->new('spans');
my $collector = FakeCollector->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub set_conf
{
	my (%settings) = @_;
	sql("ALTER SYSTEM SET $_ = '$settings{$_}'") foreach sort keys %settings;
	$node->reload;
	return;
}

# What the ring has is written, and everything was looked at.
sub wait_exported
{
	my ($about) = @_;
	$node->wait_for("$about: written", 'SELECT waiting FROM prometheus._span_counts()', 0);
	$node->wait_for($about, q{SELECT lag = 0 AND waiting_since IS NULL FROM prometheus.consumer, prometheus.export WHERE name = 'prometheus.otlp'});
	return;
}

# The spans of a trace that were taken, by their names, how often each.
sub taken
{
	my ($trace) = @_;
	my %times;

	foreach my $request (grep { $_->{status} == 200 } @{ $collector->requests })
	{
		$times{ $_->{name} }++ foreach grep { $_->{traceId} eq $trace } FakeCollector::spans_of($request);
	}
	return join ', ', map { "$_ $times{$_}" } sort keys %times;
}

sub span_named
{
	my ($name) = @_;
	my ($span) = grep { $_->{name} eq $name } $collector->spans;
	return $span;
}

sub attributes
{
	my ($span) = @_;
	return { map { $_->{key} => (values %{ $_->{value} })[0] } @{ $span->{attributes} } };
}

# A trace whose id is not sampled at less than all.
my $ntraces = 0;
sub new_trace { return sprintf '%016x00000000%08x', 0xabc, ++$ntraces; }
sub parent_in { return "00-$_[0]-00f067aa0ba902b7-$_[1]"; }

$node->init(conf => "prometheus.trace_sample_ratio = 1\nprometheus.otlp_interval = 10ms\nprometheus.otlp_metrics_interval = 0\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;
sql(<<'EOSQL');
CREATE FUNCTION say(t text) RETURNS text LANGUAGE sql AS 'SELECT t';
CREATE FUNCTION fail(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'no: %', t; END$$;
CREATE FUNCTION spanning(t text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    outside text := prometheus_span_start('tool ' || t);
BEGIN
    PERFORM prometheus_span_end(prometheus_span_start('within ' || t));
    PERFORM prometheus_span_end(outside);
    RETURN outside;
END$$;
SELECT prometheus_set_tool('say(text)'), prometheus_set_tool('fail(text)'), prometheus_set_tool('spanning(text)', tier => 'write');
SELECT prometheus_set_agent('s', 'scripted', tools => '{say,fail,spanning}');
EOSQL

# Turned on: from then on they go.

sql(q{SELECT prometheus_span_end(prometheus_span_start('before'))});
$node->wait_for('it is written', q{SELECT count(*) FROM prometheus.span WHERE name = 'before'}, 1);
set_conf('prometheus.otlp_endpoint' => $collector->url);
$node->wait_for('it is turned on', 'SELECT count(*) FROM prometheus.export', 1);
sql(q{SELECT prometheus_span_end(prometheus_span_start('alone', '{"shop.id": 7, "error.type": "none"}'))});
wait_exported('one without a task');
my $span = span_named('alone');
is_deeply(
	[ $span->{traceId}, $span->{spanId}, $span->{kind}, $span->{traceState}, $span->{startTimeUnixNano}, $span->{endTimeUnixNano} ],
	[ split /\|/, sql(q{SELECT trace_id, span_id, 1, 'ot=th:0', (extract(epoch FROM started_at) * 1000000)::bigint || '000', (extract(epoch FROM ended_at) * 1000000)::bigint || '000' FROM prometheus.span WHERE name = 'alone'}) ],
	'a span is what prometheus.span says');
is(attributes($span)->{'shop.id'}, '7', 'with its attributes');
is($span->{parentSpanId}, undef, 'the root of its trace');
is(span_named('before'), undef, 'none of before it was turned on');
sql(q{SELECT prometheus_span_end(prometheus_span_start('theirs', traceparent => '} . parent_in(new_trace(), '01') . q{'))});
wait_exported('one of others');
is(span_named('theirs')->{flags}, 0x301, 'its parent is of others');
$node->psql('postgres', q{BEGIN; SELECT prometheus_span_start('gone'); ROLLBACK});
wait_exported('one that was rolled back');
is(span_named('gone')->{status}{code}, 2, 'T22: what was rolled back goes as an error');
is(attributes(span_named('gone'))->{'error.type'}, 'rollback', 'of its type');

# Around a task, and in its tool.

sub trace_of { return sql("SELECT trace_id FROM prometheus.task WHERE task_id = $_[0]"); }

my $task = $node->run_script('s', [ [ [ spanning => { t => 'one' } ] ], 'done' ]);
wait_exported('those in a tool');
my $trace = trace_of($task);
like(taken($trace), qr/^chat \S+ 2, execute_tool spanning 1, invoke_agent s 1, .*tool one 1, within one 1$/, 'those in a tool go with the task, each once');
is(sql("SELECT count(*) FROM prometheus._span WHERE trace_id = '$trace' AND task_id = $task"), 2, 'and are of it');
my %ids = map { $_->{spanId} => 1 } grep { $_->{traceId} eq $trace } $collector->spans;
is(grep({ $_->{traceId} eq $trace && exists $_->{parentSpanId} && !$ids{ $_->{parentSpanId} } } $collector->spans), 0, 'T3: no parent is missing');

# Many: several requests, each span once.

my $before = $node->safe_psql('postgres', 'SELECT spans FROM prometheus.export');
for my $round (1 .. 4)
{
	sql("SELECT prometheus_span_end(prometheus_span_start('many ' || $round * 1000 + n)) FROM generate_series(1, 300) n");
	$node->wait_for("round $round is written", 'SELECT waiting FROM prometheus._span_counts()', 0);
}
wait_exported('many');
is(scalar(grep { $_->{name} =~ /^many / } $collector->spans), 1200, 'all of many');
is(sql('SELECT spans FROM prometheus.export') - $before, 1200, 'each once');
is(scalar(grep { FakeCollector::spans_of($_) > 512 } @{ $collector->requests }), 0, 'T12: and no more than 512 together');

# Whatever the order of commits: one that was written before, and is committed when
# a later transaction has been sent in part.

sub insert_spans
{
	my ($name, $n) = @_;
	return qq{INSERT INTO prometheus._span (span_id, xid, started_at, ended_at, owner_oid, trace_id, owner, name, status, attributes)
		SELECT -n, prometheus._xid(), clock_timestamp(), clock_timestamp(), 10, gen_random_uuid(), 'x', '$name ' || n, 'ok', '{}' FROM generate_series(1, $n) n};
}

my $slow = $node->background_psql('postgres');
$slow->query_safe('BEGIN; ' . insert_spans('slow', 1));
$collector->behave({ status => 503, headers => { 'Retry-After' => '3' } });
sql(insert_spans('quick', 700));
sql(q{SELECT prometheus_span_end(prometheus_span_start('wakes it'))});
$node->wait_for('a request is to be sent again', 'SELECT next_attempt_at IS NOT NULL FROM prometheus.export');
$slow->query_safe('COMMIT');
$slow->quit;
wait_exported('the slow one');
is(scalar(grep { $_->{name} =~ /^quick / } $collector->spans), 700, 'all of one transaction go, in two requests');
isnt(span_named('slow 1'), undef, 'and one that was committed meanwhile');

# By the ratio none is sampled: by what happens all of a trace is, also what was
# left out before.

set_conf('prometheus.trace_sample_ratio' => '0');
sql(q{SELECT prometheus_span_end(prometheus_span_start('unsampled'))});
sql(q{SELECT prometheus_span_end(prometheus_span_start('erred'), 'error')});
sql(q{SELECT prometheus_span_end(prometheus_span_start('asked for', traceparent => '} . parent_in(new_trace(), '01') . q{'))});
sql(q{SELECT prometheus_span_end(prometheus_span_start('not asked for', traceparent => '} . parent_in(new_trace(), '00') . q{'))});
wait_exported('none is sampled');
is(span_named('unsampled'), undef, 'by its id one does not go');
is(span_named('erred')->{traceState}, 'ot=th:0', 'one with an error does');
isnt(span_named('asked for'), undef, 'and one that who began the trace wants');
is(span_named('not asked for'), undef, 'not one that he does not');

$trace = new_trace();
my $within = q{traceparent => '} . parent_in($trace, '00') . q{'};
sql("SELECT prometheus_span_end(prometheus_span_start('first', $within))");
$task = $node->submit($node->script([ [ say => { t => 'x' } ] ], 'done') . qq{, 's', $within});
$node->wait_task($task, 'completed');
wait_exported('what is left out');
is(taken($trace), '', 'nothing has happened: nothing goes');
is(sql('SELECT count(*) FROM prometheus._kept_trace WHERE trace_id = ' . "'$trace'"), 0, 'nor is it remembered');
sql("SELECT prometheus_span_end(prometheus_span_start('last', $within), 'error')");
wait_exported('an error in a span');
is(taken($trace), 'chat scripted 2, execute_tool say 1, first 1, invoke_agent s 1, last 1, review task 1, review tool 1', 'an error takes along what was left out, once');
$task = $node->submit($node->script([ [ say => { t => 'x' } ] ], 'done') . qq{, 's', $within});
$node->wait_task($task, 'completed');
sql("SELECT prometheus_span_end(prometheus_span_start('later', $within))");
wait_exported('what comes later');
is(taken($trace), 'chat scripted 4, execute_tool say 2, first 1, invoke_agent s 2, last 1, later 1, review task 2, review tool 2', 'and what comes after it');

$trace = new_trace();
$within = q{traceparent => '} . parent_in($trace, '00') . q{'};
$task = $node->submit($node->script([ [ spanning => { t => 'two' } ] ], 'done') . qq{, 's', $within});
$node->wait_task($task, 'completed');
wait_exported('the first tree');
is(taken($trace), '', 'no tree is sampled');
$task = $node->submit($node->script([ [ fail => { t => 'x' } ] ], 'done') . qq{, 's', $within});
$node->wait_task($task, 'completed');
wait_exported('the second tree');
is(taken($trace), 'chat scripted 4, execute_tool fail 1, execute_tool spanning 1, invoke_agent s 2, review task 2, review tool 2, tool two 1, within two 1',
	'T27: an error in the second tree takes along the first, and its spans');

# More than a request may have.

$trace = new_trace();
$within = q{traceparent => '} . parent_in($trace, '00') . q{'};
my $tasks = sql("SELECT string_agg(id::text, ',') FROM prometheus_submit_many(array_fill('x'::text, ARRAY[300]), $within) id");
sql("SELECT prometheus_span_end(prometheus_span_start('of many', $within)) FROM generate_series(1, 300)");
$node->wait_for('all have ended', "SELECT count(*) FROM prometheus.task WHERE task_id IN ($tasks) AND status = 'completed'", 300);
wait_exported('many that are left out');
is(taken($trace), '', 'none of many goes');
sql("SELECT prometheus_span_end(prometheus_span_start('of many', $within), 'error')");
wait_exported('many that are taken along');
is(taken($trace), sql("SELECT string_agg(name || ' ' || n, ', ' ORDER BY name) FROM (SELECT name, count(*) AS n FROM prometheus.span WHERE trace_id = '$trace' GROUP BY name) x"),
	'all of many goes, each span once');

# One that is none for OTLP, among more than a request may have.

$trace = new_trace();
sql(qq{INSERT INTO prometheus._span (span_id, parent_span_id, xid, started_at, ended_at, owner_oid, trace_id, owner, name, status, traceparent, attributes)
	SELECT -n, CASE WHEN n = 1 THEN 0 END, prometheus._xid(), clock_timestamp() + n * interval '1 us', clock_timestamp() + n * interval '1 us', 10, '$trace', 'x', 'not all 0', 'ok', '} . parent_in($trace, '00') . q{', '{}' FROM generate_series(1, 1100) n});
sql("SELECT prometheus_span_end(prometheus_span_start('wakes it', traceparent => '" . parent_in(new_trace(), '00') . "'))");
wait_exported('one that is none is left out');
is(taken($trace), '', 'none of its trace goes');
my $dropped = sql('SELECT dropped FROM prometheus.export');
sql("SELECT prometheus_span_end(prometheus_span_start('an error', traceparent => '" . parent_in($trace, '00') . "'), 'error')");
wait_exported('one that is none, among many');
is(taken($trace), 'an error 1, not all 0 1099', 'a span that cannot be sent takes no other along');
is(sql('SELECT dropped FROM prometheus.export') - $dropped, 1, 'and is counted');

# Where nothing is found is not looked again.

sql(q{UPDATE prometheus._consumer SET base_at = base_at - interval '1 hour' WHERE name = 'prometheus.otlp'});
my $base = sql(q{SELECT base FROM prometheus._consumer WHERE name = 'prometheus.otlp'});
sql(q{SELECT prometheus_emit('shop.sold', '{}')});
sql(q{SELECT prometheus_span_end(prometheus_span_start('wakes it'))});
wait_exported('an event that is not looked for');
$node->wait_for('the position of trees is behind it', qq{SELECT base::text <> '$base' AND base_at > now() - interval '1 minute' FROM prometheus._consumer WHERE name = 'prometheus.otlp'});

# An outage, and a restart.

set_conf('prometheus.trace_sample_ratio' => '1', 'prometheus.otlp_endpoint' => 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port());
sql(q{SELECT prometheus_span_end(prometheus_span_start('outage ' || n)) FROM generate_series(1, 100) n});
$node->wait_for('all are written', q{SELECT count(*) FROM prometheus.span WHERE name LIKE 'outage %'}, 100);
$node->wait_for('it fails', 'SELECT failing_since IS NOT NULL AND waiting_since IS NOT NULL FROM prometheus.export');
sql(q{UPDATE prometheus._span SET ended_at = ended_at - interval '8 days'});
sql(q{INSERT INTO prometheus._kept_trace VALUES (gen_random_uuid(), '2020-01-01')});
set_conf('prometheus.retention_spans' => '604801 s');
$node->wait_for('what was exported has gone', q{SELECT count(*) FROM prometheus.span WHERE name = 'alone'}, 0);
$node->wait_for('and is not remembered', q{SELECT count(*) FROM prometheus._kept_trace WHERE kept_at < '2021-01-01'}, 0);
is(sql(q{SELECT count(*) FROM prometheus.span WHERE name LIKE 'outage %'}), 100, 'retention waits for what was not');
$node->restart;
sql(q{SELECT prometheus_span_end(prometheus_span_start('outage ' || n)) FROM generate_series(101, 200) n});
set_conf('prometheus.otlp_endpoint' => $collector->url);
wait_exported('the end of the outage');
is(scalar(grep { $_->{name} =~ /^outage / } $collector->spans), 200, 'T21: an outage, and a restart, lose nothing');

# It waits no longer than it is said.

set_conf('prometheus.otlp_endpoint' => 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port(), 'prometheus.retention_waiting' => '1h');
sql(q{SELECT prometheus_span_end(prometheus_span_start('too late'))});
$node->wait_for('it is written', q{SELECT count(*) FROM prometheus.span WHERE name = 'too late'}, 1);
sql(q{UPDATE prometheus._span SET ended_at = ended_at - interval '8 days' WHERE name = 'too late'});
set_conf('prometheus.retention_spans' => '604802 s');
$node->wait_for('it has gone', q{SELECT count(*) FROM prometheus.span WHERE name = 'too late'}, 0);
set_conf('prometheus.otlp_endpoint' => '');
$node->wait_for('the position has gone', 'SELECT count(*) FROM prometheus._span_position', 0);
is(sql('SELECT count(*) FROM prometheus._kept_trace'), 0, 'off: nothing is remembered');

# What is late goes, too; a replay sends all again.

set_conf('prometheus.otlp_endpoint' => $collector->url);
$node->wait_for('it is turned on again', 'SELECT count(*) FROM prometheus.export', 1);
my $session = $node->background_psql('postgres');
$session->query_safe(qq{SELECT prometheus_span_start('around')});
my $traceparent = $session->query_safe('SELECT prometheus_traceparent()');
$task = $node->submit(qq{'hi', traceparent => '$traceparent'});
$node->wait_task($task, 'completed');
wait_exported('a task in it');
$trace = trace_of($task);
is(taken($trace), 'chat echo 1, invoke_agent default 1, review task 1', 'what is open does not hold up its task');
$session->query_safe("SELECT prometheus_span_end('$traceparent')");
$session->quit;
wait_exported('the end of it');
my $once = taken($trace);
is($once, 'around 1, chat echo 1, invoke_agent default 1, review task 1', 'and goes when it ends');
sql(q{SELECT prometheus_replay('prometheus.otlp', '-infinity')});
wait_exported('all again');
is(taken($trace), $once =~ s/1/2/gr, 'a replay sends it again');
$node->check_invariants('after all', all_ended => 1);
done_testing();
