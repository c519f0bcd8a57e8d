# Who runs next: submitters share the places, waiting counts like priority, and
# what is urgent goes before both.
use strict;
use warnings FATAL => 'all';

use PromCluster;
use Test::More;

my $node = PromCluster->new('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub serve
{
	$node->append_conf('postgresql.conf', "prometheus.databases = 'postgres'");
	$node->reload;
	return;
}

# Let what was submitted run, one at a time; the requests in the order of their
# starts.
sub order
{
	serve();
	$node->wait_for('all have ended',
		q{SELECT count(*) FROM prometheus.task WHERE status IN ('queued', 'running', 'retrying')}, 0);
	$node->append_conf('postgresql.conf', "prometheus.databases = ''");
	$node->reload;
	$node->wait_for('the workers have ended', q{SELECT count(*) FROM prometheus.worker WHERE role <> 'launcher'}, 0);
	my $order = sql(q{SELECT string_agg(t.request, ',' ORDER BY a.started_at, o.event_id) FROM prometheus._task t JOIN prometheus._attempt a USING (task_id) JOIN prometheus._outcome o USING (task_id, attempt)});
	sql('DELETE FROM prometheus._task; DELETE FROM prometheus._attempt; DELETE FROM prometheus._step; DELETE FROM prometheus._outcome; DELETE FROM prometheus._checkpoint');
	return $order;
}

$node->init(databases => [], conf => "prometheus.max_in_flight = 1\n");
$node->start;
$node->create_extension;
sql('CREATE ROLE many IN ROLE prometheus_agent_user; CREATE ROLE few IN ROLE prometheus_agent_user');

# A submitter of many does not hold up one of few.
sql(q{SET client_min_messages = error; SET ROLE many; SELECT count(*) FROM prometheus_submit_many(array_fill('m'::text, ARRAY[50]));
	RESET ROLE; SET ROLE few; SELECT count(*) FROM prometheus_submit_many(array_fill('f'::text, ARRAY[5]))});
my @ran = split /,/, order();
is(scalar(grep { $_ eq 'f' } @ran[0 .. 10]), 5, 'the few of one run among the first of the many of another');
is(scalar(@ran), 55, 'and all run');

# Nor does one who has long been waiting before a closed gate, when it opens:
# what was not used then is not owed now.
sub many { my ($role, $what) = @_; sql("SET client_min_messages = error; SET ROLE $role; SELECT count(*) FROM prometheus_submit_many(array_fill('$what'::text, ARRAY[300]))"); return; }
sql(q{SET client_min_messages = error; SELECT prometheus_set_agent('stopped', 'echo'); SELECT prometheus_pause('agent:stopped');
	SET ROLE few; SELECT prometheus_submit('waits', 'stopped')});
many('many', 'before');
serve();
$node->wait_for('all have ended', q{SELECT count(*) FROM prometheus.task WHERE request = 'before' AND status <> 'completed'}, 0);
sql('SELECT prometheus_pause()');
$node->wait_for('all is paused', q{SELECT state FROM prometheus.gate WHERE target = 'all'}, 'paused');
many($_, "many of $_") foreach 'many', 'few';
sql(q{SELECT prometheus_resume('agent:stopped'); SELECT prometheus_resume()});
@ran = split /,/, order();
my ($place) = grep { $ran[$_] eq 'many of many' } 0 .. $#ran;
cmp_ok($place, '<', 300 + 150, 'who waited before a closed gate has no more than a small credit');

# A point of priority is worth a second of waiting.
sql(q{SET client_min_messages = error;
	SELECT prometheus_submit('low', priority => -10),
	       prometheus_submit('high', priority => 10),
	       prometheus_submit('old', priority => -10, run_at => clock_timestamp() - interval '1 minute')});
is(order(), 'old,high,low', 'who has waited long goes before who has priority');

# What is to be cancelled or is too late is ended first.
sql(q{SET client_min_messages = error;
	SELECT prometheus_submit('first', priority => 1000), prometheus_submit('gone', priority => -1000)});
sql(q{SET client_min_messages = error; SELECT prometheus_cancel(task_id) FROM prometheus.task WHERE request = 'gone'});
$node->append_conf('postgresql.conf', "prometheus.databases = 'postgres'");
$node->reload;
$node->wait_for('both have ended', q{SELECT string_agg(request || ' ' || status, ', ' ORDER BY ended_at) FROM prometheus.task},
	'gone cancelled, first completed');

# One that is too late is ended although the queue is full of later ones.
$node->append_conf('postgresql.conf', "prometheus.databases = ''");
$node->append_conf('postgresql.conf', "prometheus.queue_memory = '1MB'");
$node->restart;
sql(q{SET client_min_messages = error;
	SELECT count(*) FROM prometheus_submit_many(array_fill('year'::text, ARRAY[15000]), run_at => clock_timestamp() + interval '1 year');
	SELECT prometheus_submit('late', timeout => '1 ms')});
sql(q{INSERT INTO prometheus._attempt SELECT task_id, 1, xid, submitted_at, 1, 'echo', 1 FROM prometheus._task WHERE request = 'late';
	INSERT INTO prometheus._outcome SELECT task_id, 1, 0, xid, submitted_at, 1, NULL, submitted_at + interval '1 hour', 'retry', 'ModelTimeout', 'x' FROM prometheus._task WHERE request = 'late'});
$node->append_conf('postgresql.conf', "prometheus.databases = 'postgres'");
$node->reload;
$node->wait_for('it has failed', q{SELECT status || ' ' || error_type FROM prometheus.task WHERE request = 'late'}, 'failed DeadlineExceeded');
is(sql(q{CALL prometheus_ask('hello')}), 'hello', 'and a new task runs');

$node->check_invariants('invariants');
$node->stop;
done_testing();
