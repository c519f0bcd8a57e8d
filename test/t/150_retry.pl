# A task that ended without success is retried by hand: with what was mended
# meanwhile, and also if the server stops in between.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;

my @retried;

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->init(fsync => 1);
$node->start;
$node->create_extension;
my $url = $llm->url;
sql("SELECT prometheus_set_model('m', 'openai', '$url', 'fake-401'); SELECT prometheus_set_agent('a', 'm');");

my $id = sql(q{SELECT prometheus_submit('mend me', 'a')});
push @retried, $id;
$node->wait_task($id, 'failed');
is(sql("SELECT prometheus_retry($id)"), 't', 'a failed task is retried');
$node->wait_task($id, 'failed');
is(sql("SELECT string_agg(outcome, ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $id"),
	'failed failed', 'in vain while nothing is mended');

sql(q{SELECT prometheus_set_model('m', model => 'fake-echo')});
is(sql("SELECT prometheus_retry($id)"), 't', 'it is retried again');
$node->wait_task($id, 'completed');
is(sql("SELECT prometheus_result($id)"), 'mend me', 'with the newest version of its model');
is(sql("SELECT prometheus_retry($id)"), 'f', 'a completed task is not retried');
is(sql("SELECT attempts FROM prometheus.task WHERE task_id = $id"), 1, 'its attempts began anew');

# Cancelled, then retried: the old request to cancel does not count any more.
$id = sql(q{SELECT prometheus_submit('later', run_at => clock_timestamp() + interval '1 hour')});
push @retried, $id;
sql("SELECT prometheus_cancel($id)");
$node->wait_task($id, 'cancelled');
sql("SELECT prometheus_retry($id)");
$node->wait_task($id, 'completed');

# And neither does its reason.
sql(q{SELECT prometheus_set_model('m', model => 'fake-hang-before-headers')});
$id = sql(q{SELECT prometheus_submit('twice', 'a')});
push @retried, $id;
foreach my $reason ('first', 'second')
{
	$node->wait_task($id, 'running');
	sql("SELECT prometheus_cancel($id, '$reason')");
	$node->wait_task($id, 'cancelled');
	is(sql("SELECT error FROM prometheus.task WHERE task_id = $id"), $reason, "the reason of the $reason cancel");
	sql("SELECT prometheus_retry($id)") if $reason eq 'first';
}

# Retried when its caller is gone, and before the scheduler knows that it ended
# at its deadline: the new one counts, and it begins but once.
$id = sql(q{SELECT prometheus_submit('too late', 'a', timeout => '2 s')});
push @retried, $id;
$node->wait_task($id, 'running');
my $scheduler = $node->signal_worker('STOP', 'scheduler');
$node->wait_task($id, 'failed');
my $caller = $node->signal_worker('TERM', 'caller');
$node->worker_pid('caller', other_than => $caller);
$node->wait_for('the new caller waits to be let in',
	q{SELECT wait_event IN ('Extension', 'PrometheusCaller') FROM pg_stat_activity WHERE backend_type = 'prometheus caller'});
sql(q{SELECT prometheus_set_model('m', model => 'fake-echo')});
is(sql("SELECT prometheus_retry($id)"), 't', 'retried when its caller is gone');
kill('CONT', $scheduler);
$node->wait_task($id, 'completed');
is(sql("SELECT string_agg(outcome, ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $id"),
	'failed completed', 'and has one more attempt');

# The checkpoint that a stop writes does not know of a task that had ended; a
# retry while nothing runs is found at the next start all the same.
sql(q{SELECT prometheus_set_model('m', model => 'fake-401')});
$id = sql(q{SELECT prometheus_submit('over a stop', 'a')});
push @retried, $id;
$node->wait_task($id, 'failed');
$node->append_conf('postgresql.conf', "prometheus.databases = ''");
$node->restart;
sql(q{SELECT prometheus_set_model('m', model => 'fake-echo')});
is(sql("SET client_min_messages = error; SELECT prometheus_retry($id)"), 't', 'retried while nothing runs');
is(sql("SELECT status FROM prometheus.task WHERE task_id = $id"), 'queued', 'it is queued');
$node->append_conf('postgresql.conf', "prometheus.databases = 'postgres'");
$node->restart;
$node->wait_task($id, 'completed');
$node->check_invariants('invariants', retried => \@retried);

$node->stop;
done_testing();
