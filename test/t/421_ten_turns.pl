# A conversation of ten turns, each of which calls one or two tools that write,
# while everything that works on it is ended or killed in the middle of a turn of
# the model or of a tool.  Two tasks have it side by side: one whose model is an
# SQL function, one whose model is a server.  In the end each effect is there,
# once, in the order of the turns, and the model was told of it.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use JSON::PP;
use PromCluster;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Where the tasks are stopped, and what then ends.  A tool is stopped after it
# has written; the model, while it is asked for the turn after so many.
my @stops = (
	[ 'tool 1', terminate => 'executor' ],
	[ 'tool 2', kill => 'executor' ],
	[ 'model 2', terminate => 'caller' ],
	[ 'tool 3', terminate => 'caller' ],
	[ 'tool 4', kill => 'caller' ],
	[ 'tool 5', terminate => 'scheduler' ],
	[ 'model 5', kill => 'caller' ],
	[ 'tool 6', stop => 'immediate' ],
	[ 'tool 7', kill => 'scheduler' ],
	[ 'model 8', stop => 'immediate' ],
	[ 'tool 9', terminate => 'launcher' ],
	[ 'tool 10', stop => 'fast' ],
	[ 'model 10', kill => 'publisher' ]);
my @lost = map { $_->[0] =~ /^model (\d+)/ ? $1 : () } @stops;

# The calls of a turn.
sub calls_of
{
	my ($who, $turn) = @_;
	return map { [ 'add', { who => $who, turn => $turn, call => $_ } ] } 1 .. 2 - $turn % 2;
}
my @numbers = map { my $turn = $_; map { "$turn.$_->[1]{call}" } calls_of('', $turn) } 1 .. 10;

$node->init(restart_after_crash => 1, conf => "prometheus.executors = 4\nprometheus.max_crashes = 100\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;
sql(<<'EOSQL');
CREATE TABLE door (place text PRIMARY KEY);
CREATE TABLE effect (who text, turn int, call int, xid xid8 DEFAULT pg_current_xact_id());

-- Stand at a door, if there is one, until it is taken away.
CREATE FUNCTION stand(at text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM door WHERE place = at) THEN
		PERFORM pg_advisory_xact_lock_shared(421);
	END IF;
	WHILE EXISTS (SELECT FROM door WHERE place = at) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
CREATE FUNCTION add(who text, turn int, call int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO effect VALUES (who, turn, call);
	PERFORM stand('tool ' || turn);
	RETURN turn || '.' || call;
END $$;
CREATE FUNCTION waits(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM stand('model ' || (SELECT count(*) FROM jsonb_array_elements(request -> 'messages') m WHERE m ->> 'role' = 'assistant'));
	RETURN scripted(request);
END $$;
SELECT prometheus_set_tool('add(text, int, int)', tier => 'write');
SELECT prometheus_set_model('function', 'function', handler => 'waits(jsonb)');
EOSQL
sql(sprintf q{INSERT INTO door VALUES %s}, join(', ', map { "('$_->[0]')" } @stops));
sql(sprintf q{SELECT prometheus_set_model('server', 'openai', '%s', 'fake-tools-lost-%s')}, $llm->url('/v1'), join('-', @lost));
my %task;
foreach my $who (qw(function server))
{
	sql(qq{SELECT prometheus_set_agent('$who', '$who', tools => '{add}', options => '{"tool_timeout": "1h"}')});
	$task{$who} = $node->submit($node->script((map { [ calls_of($who, $_) ] } 1 .. 10), "the end of $who") . ", '$who'");
}

# Wait until both tasks are stopped at a place; the processes of tools.
my $standing = q{pg_locks WHERE locktype = 'advisory' AND objid = 421 AND granted};
sub wait_stopped_at
{
	my ($place) = @_;
	my ($what, $turn) = split / /, $place;
	my $count = $what eq 'tool' ? 2 * calls_of('', $turn) : 1;

	$node->wait_for("at $place", "SELECT count(*) FROM $standing", $count);
	if ($what eq 'model')
	{
		my $end = time + $PostgreSQL::Test::Utils::timeout_default;
		until (grep { $turn == grep { $_->{role} eq 'assistant' } @{ $_->{body}{messages} } } @{ $llm->requests })
		{
			die "the server was not asked after turn $turn" if time >= $end;
			usleep(10_000);
		}
	}
	return split /\n/, sql("SELECT pid FROM $standing ORDER BY pid");
}

my %end = (
	terminate => sub {
		my ($role, $pid) = @_;
		sql("SELECT pg_terminate_backend($pid)");
		$role eq 'executor' ? $node->wait_gone($pid) : $node->worker_pid($role, other_than => $pid);
	},
	kill => sub {
		my ($role, $pid) = @_;
		my $log = $node->log_end;
		kill('KILL', $pid) == 1 or die "could not kill $pid";
		$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
		$node->wait_for("$role killed: the server is back", 'SELECT true');
	},
	stop => sub {
		my ($mode) = @_;
		$node->stop($mode);
		$node->start;
	});
my $effects = q{SELECT string_agg(who || ' ' || turn || '.' || call, ', ' ORDER BY who, turn, call) FROM effect};
foreach my $stop (@stops)
{
	my ($place, $how, $what) = @$stop;
	my ($kind, $turn) = split / /, $place;
	my @pids = wait_stopped_at($place);
	my $before = $kind eq 'tool' ? $turn - 1 : $turn;

	is(sql($effects), join(', ', map { my $who = $_; map { "$who $_" } grep { $_ < $before + 1 } @numbers } qw(function server)),
		"$place: what is committed");
	$end{$how}->($what, $how eq 'stop' ? () : $what eq 'executor' ? $pids[0] : $node->worker_pid($what));
	sql("DELETE FROM door WHERE place = '$place'");
}

foreach my $who (qw(function server))
{
	my $task = $task{$who};

	$node->wait_task($task, 'completed');
	is(sql("SELECT prometheus_result($task)"), "the end of $who", "$who: the answer");
	is(sql("SELECT string_agg(turn || '.' || call, ' ' ORDER BY turn, call) FROM effect WHERE who = '$who'"),
		"@numbers", "$who: every effect, once");
	is(sql("SELECT count(*) FROM effect a JOIN effect b USING (who) WHERE who = '$who' AND a.turn < b.turn AND a.xid >= b.xid"),
		0, "$who: in the order of the turns");
	is( sql("SELECT string_agg(concat_ws(' ', kind, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task"),
		join(', ', (map { ('chat ok', ('tool ok') x calls_of($who, $_)) } 1 .. 10), 'chat ok'), "$who: the steps");
	is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $task AND kind = 'tool'"), scalar @numbers, "$who: a step for each call");
	my $prompt = decode_json(sql("SELECT prometheus_prompt($task, (SELECT max(step) FROM prometheus.step WHERE task_id = $task))"));
	is(join(' ', map { $_->{content} } grep { $_->{role} eq 'tool' } @{ $prompt->{messages} }),
		"@numbers", "$who: what the model was told of its calls, in order");
	is( sql("SELECT string_agg(outcome, ' ') FROM prometheus.attempt WHERE task_id = $task AND outcome <> 'lost'"),
		'completed', "$who: one outcome");
	cmp_ok(sql("SELECT count(*) FROM prometheus.attempt WHERE task_id = $task AND outcome = 'lost'"),
		'>=', 5, "$who: after attempts that were lost");
}
is(sql(q{SELECT count(*) FROM effect}), 2 * @numbers, 'and nothing else');
$node->check_invariants('after ten turns', all_ended => 1, tasks => [ values %task ]);
is($node->log_count(qr/PANIC|TRAP|signal 11|signal 6/), 0, 'nothing else crashed');
$node->stop;
$llm->stop;
done_testing();
