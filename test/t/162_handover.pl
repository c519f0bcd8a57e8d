# Keys that are handed on when who was to have them does not come; what may run
# at the same time while live tasks are read, and after a scheduler ended.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->init(conf => "prometheus.allow_private_endpoints = on\nprometheus.rescan_interval = '1h'\nmax_prepared_transactions = 5\n");
$node->start;
$node->create_extension;
$node->fake_agent($llm, $_) foreach 'fake-echo', 'fake-slow-40', 'fake-503-then-ok', 'fake-hang-before-headers';

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub behind
{
	my ($task, $holder, $what) = @_;
	$node->wait_for("task $task is behind $holder", "SELECT why FROM prometheus.queue WHERE task_id = $task",
		"task $holder with the same $what has not ended");
	return;
}

# The next one cannot come: its agent is paused.  Then the one after it runs.
my $holder = $node->submit(q{'a', 'fake-hang-before-headers', concurrency_key => 'paused'});
$node->wait_task($holder, 'running');
my $paused = $node->submit(q{'b', 'fake-echo', concurrency_key => 'paused'});
my $next = $node->submit(q{'c', concurrency_key => 'paused'});
behind($_, $holder, 'concurrency_key') foreach $paused, $next;
sql(q{SELECT prometheus_pause('agent:fake-echo')});
$node->wait_for('it is paused', q{SELECT state FROM prometheus.gate WHERE target = 'agent:fake-echo'}, 'paused');
sql("SELECT prometheus_cancel($holder)");
$node->wait_task($next, 'completed');
pass('a paused task does not keep a key from the next');

# It is paused when it has been called already, and is cancelled.
sql(q{SELECT prometheus_pause()});
$node->wait_for('all is paused', q{SELECT state FROM prometheus.gate WHERE target = 'all'}, 'paused');
my @three = map { $node->submit("'t$_', concurrency_key => 'cancelled'") } 1 .. 3;
sql("SELECT prometheus_cancel($three[0])");
$node->wait_task($three[0], 'cancelled');
sql(q{SELECT prometheus_resume(); SELECT prometheus_resume('agent:fake-echo')});
$node->wait_task($_, 'completed') foreach @three[1, 2], $paused;
pass('nor does one that is cancelled');

# The next one's gate is open, but full; then its agent is paused.
$node->fake_agent($llm, 'fake-hang-before-headers', name => 'narrow', options => '{"max_concurrent": 1}');
sql(q{SELECT prometheus_set_agent('p', 'narrow'); SELECT prometheus_pause('agent:p')});
$node->wait_for('it is paused', q{SELECT state FROM prometheus.gate WHERE target = 'agent:p'}, 'paused');
sql(q{SELECT prometheus_resume('agent:p')});
$holder = $node->submit(q{'h', 'fake-hang-before-headers', concurrency_key => 'full'});
$node->wait_task($holder, 'running');
my $before_full = $node->submit(q{'a', 'p', concurrency_key => 'full'});
$next = $node->submit(q{'b', concurrency_key => 'full'});
behind($_, $holder, 'concurrency_key') foreach $before_full, $next;
my $fills = $node->submit(q{'x', 'narrow'});
$node->wait_task($fills, 'running');
sql("SELECT prometheus_cancel($holder)");
$node->wait_task($next, 'completed');
pass('nor does one whose gate is full');
my @after = map { $node->submit("'after', concurrency_key => 'full'") } 1 .. 3;
sql(q{SELECT prometheus_pause('agent:p')});
$node->wait_task($_, 'completed') foreach @after;
sql("SELECT prometheus_cancel($fills)");
$node->wait_task($fills, 'cancelled');
$node->wait_task($node->submit(q{'last', concurrency_key => 'full'}), 'completed');
pass('nor one whose agent is paused then');
sql(qq{SELECT prometheus_set_agent('p', 'echo'); SELECT prometheus_resume('agent:p')});
$node->wait_task($before_full, 'completed');

# A task of a conversation waits for its second try, and behind a key; one
# behind it has been called for that key.
$holder = $node->submit(q{'y0', 'fake-hang-before-headers', concurrency_key => 'both'});
$node->wait_task($holder, 'running');
my $tries = $node->submit(q{'e', 'fake-503-then-ok', concurrency_key => 'both', conversation => 'v'});
behind($tries, $holder, 'concurrency_key');
my @rest = (
	$node->submit(q{'y1', 'fake-slow-40', concurrency_key => 'both'}),
	$node->submit(q{'b', 'fake-503-then-ok', concurrency_key => 'both', conversation => 'v'}),
	$node->submit(q{'y2', 'fake-slow-40', concurrency_key => 'both'}));
$node->wait_for('all wait', q{SELECT count(*) FROM prometheus.queue WHERE why ~ 'with the same'}, 4);
sql("SELECT prometheus_cancel($holder)");
$node->wait_task($_, 'completed') foreach $tries, @rest;
pass('a task that needs two keys does not lose the one that it waits for');
is(sql(qq{SELECT x.ended_at <= y.started_at FROM prometheus.task x, prometheus.task y WHERE x.task_id = $tries AND y.task_id = $rest[1]}),
	't', 'and the order of the conversation is kept');

# A scheduler that starts: a slot that only ends a task has no key.
my $first = $node->submit(q{'x', 'fake-hang-before-headers'});
$node->wait_task($first, 'running');
$holder = $node->submit(q{'a', 'fake-hang-before-headers', concurrency_key => 'adopted'});
$node->wait_task($holder, 'running');
sql("SELECT prometheus_cancel($first)");
$node->wait_task($first, 'cancelled');
my ($ends, $waits) = map { $node->submit("'w$_', 'fake-hang-before-headers', concurrency_key => 'adopted'") } 1 .. 2;
behind($_, $holder, 'concurrency_key') foreach $ends, $waits;
my $caller = $node->signal_worker('STOP', 'caller');
sql("SELECT prometheus_cancel($ends)");
$node->wait_for('it has a slot', "SELECT status FROM prometheus.queue WHERE task_id = $ends", 'running');
my $scheduler = $node->signal_worker('TERM', 'scheduler');
$node->worker_pid('scheduler', other_than => $scheduler);
$node->wait_for('the new one has read', "SELECT count(*) FROM prometheus.queue WHERE task_id IN ($holder, $waits)", 2);
kill('CONT', $caller);
$node->wait_task($ends, 'cancelled');
behind($waits, $holder, 'concurrency_key');
is(sql("SELECT count(*) FROM prometheus.attempt WHERE task_id = $waits"), 0, 'the key is still with who runs');
sql("SELECT prometheus_cancel($_)") foreach $holder, $waits;
$node->wait_task($_, 'cancelled') foreach $holder, $waits;

# A conversation stays with who has begun, though a caller and then a scheduler
# end before it is known how far that came.
my $one = $node->submit(q{'one', 'fake-hang-before-headers', conversation => 'c'});
$node->wait_task($one, 'running');
my $two = $node->submit(q{'two', 'fake-hang-before-headers', conversation => 'c'});
behind($two, $one, 'conversation');
$scheduler = $node->signal_worker('STOP', 'scheduler');
$caller = $node->signal_worker('TERM', 'caller');
my $new = $node->worker_pid('caller', other_than => $caller);
$node->wait_for('the new caller waits to be let in', q{SELECT wait_event IN ('Extension', 'PrometheusCaller') FROM pg_stat_activity WHERE backend_type = 'prometheus caller'});
kill('STOP', $new);
kill('CONT', $scheduler);
$node->wait_for('it has a slot', "SELECT status FROM prometheus.queue WHERE task_id = $one", 'running');
$node->signal_worker('TERM', 'scheduler');
$node->worker_pid('scheduler', other_than => $scheduler);
$node->wait_for('the new one has read', "SELECT count(*) FROM prometheus.queue WHERE task_id IN ($one, $two)", 2);
kill('CONT', $new);
$node->wait_for('one is tried again', "SELECT count(*) FROM prometheus._attempt WHERE task_id = $one", 2);
behind($two, $one, 'conversation');
is(sql("SELECT count(*) FROM prometheus._attempt WHERE task_id = $two"), 0, 'the second turn does not begin before the first has ended');
sql("SELECT prometheus_cancel($_)") foreach $one, $two;
$node->wait_task($_, 'cancelled') foreach $one, $two;

# The same after a crash, when the attempt that was left open is being ended.
$one = $node->submit(q{'one', 'fake-hang-before-headers', conversation => 'crash'});
$node->wait_task($one, 'running');
$two = $node->submit(q{'two', 'fake-hang-before-headers', conversation => 'crash'});
behind($two, $one, 'conversation');
sql(q{BEGIN; LOCK TABLE prometheus._outcome IN EXCLUSIVE MODE; PREPARE TRANSACTION 'lock'});
$node->stop('immediate');
$node->start;
$node->wait_for('its open attempt is to be ended', "SELECT status FROM prometheus.queue WHERE task_id = $one", 'running');
$scheduler = $node->signal_worker('TERM', 'scheduler');
$node->worker_pid('scheduler', other_than => $scheduler);
$node->wait_for('the new one has read', "SELECT count(*) FROM prometheus.queue WHERE task_id IN ($one, $two)", 2);
sql(q{ROLLBACK PREPARED 'lock'});
$node->wait_for('one is tried again', "SELECT count(*) FROM prometheus._attempt WHERE task_id = $one", 2);
behind($two, $one, 'conversation');
is(sql("SELECT count(*) FROM prometheus._attempt WHERE task_id = $two"), 0, 'nor after a crash');
sql("SELECT prometheus_cancel($_)") foreach $one, $two;
$node->wait_task($_, 'cancelled') foreach $one, $two;

# A task that has begun waits for one that was retried, of the same conversation.
my $parent = $node->submit(q{'parent', 'fake-hang-before-headers', conversation => 'p'});
my $child = $node->submit("'child', 'fake-hang-before-headers', conversation => 'p', depends_on => ARRAY[$parent], metadata => '{\"on_failure\": \"run\"}'");
$node->wait_task($parent, 'running');
sql("SELECT prometheus_cancel($parent)");
$node->wait_task($child, 'running');
is(sql("SELECT prometheus_retry($parent)"), 't', 'the parent is retried');
$caller = $node->signal_worker('TERM', 'caller');
$node->worker_pid('caller', other_than => $caller);
$node->wait_task($parent, 'running');
sql("SELECT prometheus_cancel($parent)");
$node->wait_task($parent, 'cancelled');
$node->wait_task($child, 'running');
sql("SELECT prometheus_cancel($child)");
$node->wait_task($child, 'cancelled');
pass('a task that waits for another lets it have its turn');

# The caller waits for a lock while it is told of a task: what woke it there has
# not woken it for the task.
sql(q{BEGIN; LOCK TABLE prometheus._outcome IN EXCLUSIVE MODE; PREPARE TRANSACTION 'lock'});
my $locked = $node->submit(q{'locked'});
$node->wait_for('the caller waits for a lock',
	q{SELECT wait_event_type FROM pg_stat_activity WHERE backend_type = 'prometheus caller'}, 'Lock');
my $told = $node->submit(q{'told'});
$node->wait_for('it has a slot', "SELECT status FROM prometheus.queue WHERE task_id = $told", 'running');
sql(q{ROLLBACK PREPARED 'lock'});
$node->wait_task($_, 'completed') foreach $locked, $told;
pass('a task that comes while the caller waits for a lock is not forgotten');

# The turns of a conversation keep their order before any gate.
sql(q{SELECT prometheus_pause('agent:fake-echo')});
$node->wait_for('it is paused', q{SELECT state FROM prometheus.gate WHERE target = 'agent:fake-echo'}, 'paused');
$one = $node->submit(q{'one', 'fake-echo', conversation => 'o', concurrency_key => 'o'});
$two = $node->submit(q{'two', 'fake-echo', conversation => 'o', priority => 100});
behind($two, $one, 'conversation');
$node->wait_task($node->submit(q{'another', concurrency_key => 'o'}), 'completed');
sql(q{SELECT prometheus_resume('agent:fake-echo')});
$node->wait_task($_, 'completed') foreach $one, $two;
is(sql("SELECT x.ended_at <= y.started_at FROM prometheus.task x, prometheus.task y WHERE x.task_id = $one AND y.task_id = $two"),
	't', 'who is first before a closed gate is first when it opens');

# Conversations while live tasks are read over and over: what ended meanwhile
# does not come back.
$node->append_conf('postgresql.conf', "prometheus.rescan_interval = '100ms'");
$node->reload;
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('later'::text, ARRAY[3000]), run_at => clock_timestamp() + interval '1 day')});
my $scans = sql(q{SELECT value FROM prometheus_health() WHERE check_name ~ 'scan'});
sql(q{SELECT count(prometheus_submit('turn ' || i, 'fake-slow-40', conversation => 'v' || i % 40)) FROM generate_series(1, 3000) i});
my $end = time + $PostgreSQL::Test::Utils::timeout_default;
while (time < $end && sql(q{SELECT (SELECT count(*) FROM prometheus._task WHERE request ~ '^turn') > (SELECT count(*) FROM prometheus._outcome o JOIN prometheus._task t USING (task_id) WHERE t.request ~ '^turn' AND o.outcome = 'completed')}) eq 't')
{
	# Transactions without a hint are what lets it look.
	sql('SELECT pg_current_xact_id()');
}
cmp_ok(sql(q{SELECT value FROM prometheus_health() WHERE check_name ~ 'scan'}) - $scans, '>', 2, 'live tasks were read meanwhile');
is(sql(q{SELECT count(*) FROM prometheus.task WHERE request ~ 'turn' AND status <> 'completed'}), 0, 'all turns completed');
is(sql(q{WITH a AS (SELECT a.*, t.conversation FROM prometheus.attempt a JOIN prometheus._task t USING (task_id) WHERE conversation ~ '^v[0-9]')
		SELECT count(*) FROM a x JOIN a y USING (conversation) WHERE x.task_id < y.task_id AND x.started_at < y.ended_at AND y.started_at < x.ended_at}),
	0, 'and no two of a conversation at once');

$node->stop;
done_testing();
