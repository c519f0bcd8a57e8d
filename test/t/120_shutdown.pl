# The server stops while requests hang, and starts again with a history.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The newest checkpoint, as the tasks that it names.
sub checkpoint
{
	return sql(q{SELECT coalesce(string_agg(id::text, ',' ORDER BY id), 'none') FROM (SELECT unnest(live) AS id FROM prometheus._checkpoint WHERE checkpoint_id = (SELECT max(checkpoint_id) FROM prometheus._checkpoint)) x}
	);
}

sub live
{
	return sql(q{SELECT coalesce(string_agg(task_id::text, ',' ORDER BY task_id), 'none') FROM prometheus.task WHERE status IN ('queued', 'running', 'waiting', 'retrying')}
	);
}

# Submit what keeps the caller busy: answers that come late or not at all, later
# tasks, back-off.
sub submit_load
{
	my ($name) = @_;
	sql(<<"EOSQL");
SELECT count(prometheus_submit('$name hang ' || n, 'hang')),
       count(prometheus_submit('$name slow ' || n, 'fake-slow-500')),
       count(prometheus_submit('$name later ' || n, run_at => clock_timestamp() + interval '1 hour')),
       count(prometheus_submit('$name again ' || n, 'fake-500-then-ok'))
  FROM generate_series(1, 20) n
EOSQL
	return;
}

# After a start: what hung answers now, and every task has its one end.
sub check
{
	my ($what) = @_;
	$node->wait_for("$what: all but the later ones have completed",
		q{SELECT string_agg(DISTINCT split_part(request, ' ', 2), ' ') FROM prometheus.task WHERE status NOT IN ('completed', 'cancelled')},
		'later');
	is( sql(q{SELECT count(*) FROM prometheus.task WHERE request ~ 'later' AND status <> 'queued'}
		),
		0, "$what: what is later is queued");
	is( sql("SELECT string_agg(DISTINCT outcomes, ', ') FROM (SELECT string_agg(outcome, ' ' ORDER BY attempt) AS outcomes FROM prometheus.attempt JOIN prometheus.task USING (task_id) WHERE request ~ '^$what hang' GROUP BY task_id) x"
		),
		'lost completed',
		"$what: what hung was lost and then completed");
	is( sql("SELECT string_agg(DISTINCT statuses, ', ') FROM (SELECT string_agg(c.status, ' ' ORDER BY attempt) AS statuses FROM prometheus.call c JOIN prometheus.task USING (task_id) WHERE request ~ '^$what hang' GROUP BY task_id) x"
		),
		'ambiguous done',
		"$what: its first call is ambiguous");
	is( sql(q{SELECT DISTINCT attempts FROM prometheus.task WHERE request ~ 'hang'}
		),
		1, "$what: what was lost used up no attempt");
	$node->check_invariants("$what: invariants");
	return;
}

$node->init(fsync => 1);
$node->start;
$node->create_extension;
$node->fake_agent($llm, $_) foreach qw(fake-slow-500 fake-500-then-ok);

foreach my $mode (qw(fast immediate))
{
	my $log = $node->log_end;

	# A peer that accepts no connection; nor does it refuse one.
	my $silent = IO::Socket::INET->new(
		Listen => 100,
		LocalAddr => '127.0.0.1',
		Proto => 'tcp') or die "socket: $!";
	my $port = $silent->sockport;
	$node->fake_agent($llm, 'fake-echo', name => 'hang',
		url => "http://127.0.0.1:$port/v1");
	submit_load($mode);
	$node->wait_for("$mode: everything is in flight",
		q{SELECT count(*) FROM prometheus.call WHERE target = 'model:hang' AND status = 'open'},
		'20');
	$node->wait_for("$mode: requests are on the network",
		q{SELECT in_flight >= 20 FROM prometheus.worker WHERE role = 'caller'});
	my @pids = split /\n/, sql('SELECT pid FROM prometheus.worker');
	is(scalar @pids, 4, "$mode: four processes");
	$node->stop($mode);
	ok(!kill(0, $_), "$mode: process $_ has ended") foreach @pids;

	# The answer comes from the same place.
	close($silent);
	my $peer = FakeLLM->new('--port', $port);
	$node->start;
	check($mode);
	is($node->log_count(qr/ (ERROR|WARNING|PANIC): /, $log), 0,
		"$mode: no error in the log");
	# Who is in a transaction then is ended in it, and says so.
	my $told = qr/terminating background worker "prometheus \w+" due to administrator command/;
	is($node->log_count(qr/FATAL:  (?!the database system is|$told)/, $log), 0,
		"$mode: nobody ended with an error")
	  if $mode eq 'fast';
	$peer->stop;
}

# A clean stop leaves a checkpoint of what is live.
my $live = live();
isnt($live, 'none', 'there are live tasks');
sql(q{SELECT count(prometheus_submit('done ' || n)) FROM generate_series(1, 500) n});
$node->wait_for('they have run',
	q{SELECT count(*) FROM prometheus.task WHERE request ~ '^done' AND status = 'completed'},
	'500');
$node->stop('fast');
$node->start;
is(checkpoint(), $live, 'clean stop: the checkpoint has what is live');
cmp_ok(sql('SELECT count(*) FROM prometheus._checkpoint'),
	'<=', 2, 'few checkpoints are kept');
$node->wait_for('the queue has it again',
	q{SELECT coalesce(string_agg(task_id::text, ',' ORDER BY task_id), 'none') FROM prometheus.queue},
	$live);

# The start reads what the checkpoint names and what came after it, not all: a
# task that both leave out is not found, one of them is.
$node->append_conf('postgresql.conf', "prometheus.databases = ''\n");
$node->stop('fast');
$node->start;
my $new = sql(q{SELECT prometheus_submit('after the checkpoint')});
my $hidden = (split /,/, $live)[0];
sql("UPDATE prometheus._checkpoint SET live = array_remove(live, $hidden)");
$node->append_conf('postgresql.conf', "prometheus.databases = 'postgres'\n");
$node->restart;
$node->wait_task($new, 'completed');
is(sql("SELECT count(*) FROM prometheus.queue WHERE task_id = $hidden"),
	0, 'the start reads what the checkpoint names');
$node->wait_for('and what came after it',
	'SELECT count(*) FROM prometheus.queue',
	scalar(split(/,/, $live)) - 1);

# A checkpoint of another server or database is none.
$node->stop('fast');
$node->append_conf('postgresql.conf', "prometheus.databases = ''\n");
$node->start;
sql(q{UPDATE prometheus._checkpoint SET system_identifier = system_identifier + 1});
$node->append_conf('postgresql.conf', "prometheus.databases = 'postgres'\n");
$node->restart;
$node->wait_for('all live tasks are found without it',
	q{SELECT coalesce(string_agg(task_id::text, ',' ORDER BY task_id), 'none') FROM prometheus.queue},
	$live);

# What a stop cut off from its end: nothing open, nothing lost.
sql(q{SELECT count(prometheus_cancel(task_id)) FROM prometheus.task WHERE status = 'queued'});
$node->wait_for('all have ended', 'SELECT count(*) FROM prometheus.queue', '0');
$node->check_invariants('at last: invariants', all_ended => 1);
$node->stop;
$node->start;
is(checkpoint(), 'none', 'clean stop: nothing is live');
is(sql(q{CALL prometheus_ask('and on')}), 'and on', 'and it goes on');
$node->stop;
$llm->stop;
done_testing();
