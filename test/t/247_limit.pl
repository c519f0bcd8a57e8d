# The rates of models: what their options and the headers of their replies allow
# is kept to before a request is refused.  And replies that are used again.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use JSON::PP qw(encode_json);
use PromCluster;
use Test::More;
use Time::HiRes qw(usleep);

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->keep_sessions;
$node->init(restart_after_crash => 1, conf => "prometheus.allow_private_endpoints = on\n");
$node->start;
$node->create_extension;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# What the server has got from a model, in order.
sub requests { my ($model) = @_; return grep { $_->{body}{model} eq $model } @{ $llm->requests }; }

# A model that answers with these headers, and a task of it.
sub ask { my ($name, %headers) = @_; return $node->submit(sprintf q{'%s', '%s'}, encode_json(\%headers), $name); }

sub gate { my ($name, $columns) = @_; return sql("SELECT concat_ws(' ', $columns) FROM prometheus.gate WHERE target = 'model:$name'"); }

sub is_held
{
	my ($name, $about) = @_;
	$node->wait_for("$about: it is held", "SELECT concat_ws(': ', state, reason) FROM prometheus.gate WHERE target = 'model:$name'", 'held: its rate is used up');
	pass("$about: the gate is held");
	return;
}

# Each attempt of these began once and used up one.
sub is_first_try
{
	my ($about, @tasks) = @_;
	is(sql(sprintf q{SELECT string_agg(DISTINCT attempts::text, ' ') FROM prometheus.task WHERE task_id IN (%s)}, join ', ', @tasks), 1, "$about: one attempt each was used up");
	return;
}

# Nothing is left: the next waits until it is whole again, in each form.
my %forms = (
	openai => { 'x-ratelimit-limit-requests' => '60', 'x-ratelimit-remaining-requests' => '0', 'x-ratelimit-reset-requests' => '1.2s' },
	ms => { 'x-ratelimit-remaining-tokens' => '0', 'x-ratelimit-reset-tokens' => '1200ms' },
	anthropic => { 'anthropic-ratelimit-requests-remaining' => '0', 'anthropic-ratelimit-requests-reset' => 'in 1.2' },
	output => { 'anthropic-ratelimit-output-tokens-remaining' => '10', 'anthropic-ratelimit-output-tokens-reset' => 'in 1.2' },
);
foreach my $form (sort keys %forms)
{
	$node->fake_agent($llm, 'fake-headers', name => $form, options => '{"max_tokens": 100}');
	my $before = requests('fake-headers');
	my $first = ask($form, %{ $forms{$form} });
	$node->wait_task($first, 'completed');
	my @next = map { ask($form) } 1 .. 3;
	$node->wait_task($_, 'completed') foreach @next;
	my @all = requests('fake-headers');
	cmp_ok($all[ $before + 1 ]{at} - $all[$before]{at}, '>=', 1.2, "$form: the next came when it was whole again");
	is(scalar @all, $before + 4, "$form: each was asked once");
	is_first_try($form, $first, @next);
	is(gate($form, 'state, reason, failures'), 'open 0', "$form: it is open again");
}
is(sql(q{SELECT count(*) FROM prometheus.event WHERE type LIKE 'gate.%'}), 0, 'that is no event');
like($node->health('gates'), qr/^ok\|/, 'nor a worry');

# What makes no sense, or is over, holds nothing.
$node->fake_agent($llm, 'fake-headers', name => 'bogus');
my @bogus = (
	(map { { 'x-ratelimit-remaining-requests' => '0', 'x-ratelimit-reset-requests' => $_ } } '-5s', 'soon', '', '0s', '1e9', '99999h', '61m', '5x', '1s2', 'in -10', 'in 7200', '1999-01-01T00:00:00Z', '2026-13-45T99:99:99Z'),
	(map { { 'x-ratelimit-remaining-tokens' => $_, 'x-ratelimit-reset-tokens' => '1m0s' } } '-1', 'none', '', '0.0', '0x0', '999999999999999999999999999'),
	{ 'x-ratelimit-remaining-requests' => '0' },
	{ 'x-ratelimit-reset-requests' => '1m0s' },
	{ 'anthropic-ratelimit-requests-remaining' => '0', 'anthropic-ratelimit-requests-reset' => '60' x 100 },
	{ 'x-ratelimit-remaining' => '0', 'x-ratelimit-reset' => '60' });
foreach my $headers (@bogus)
{
	my $task = ask('bogus', %$headers);

	$node->wait_task($task, 'completed');
	is(gate('bogus', 'state, reason'), 'open', encode_json($headers) . ' holds nothing');
}

# Headers are obeyed when they come, not when the reply has ended; a restart of
# the caller changes nothing, and a person can open it.
$node->fake_agent($llm, 'fake-headers-60000', name => 'streams');
my $streams = ask('streams', 'x-ratelimit-remaining-requests' => '0', 'x-ratelimit-reset-requests' => '59m');
is_held('streams', 'while the reply comes');
is($node->safe_psql('postgres', "SELECT status FROM prometheus.task WHERE task_id = $streams"), 'running', 'it has not ended');
my $caller = $node->signal_worker('TERM', 'caller');
$node->worker_pid('caller', other_than => $caller);
is_held('streams', 'after the end of the caller');
sql("SELECT prometheus_cancel($streams)");
$node->wait_task($streams, 'cancelled');
sql(q{SELECT prometheus_set_model('streams', model => 'fake-headers')});
my $opened = ask('streams');
$node->wait_task($opened, 'completed');
pass('whoever sets it anew opens it');
$node->wait_task(ask('streams', 'x-ratelimit-remaining-requests' => '0', 'x-ratelimit-reset-requests' => '59m'), 'completed');
$opened = ask('streams');
is_held('streams', 'again');
$node->wait_for('and why', "SELECT why ~ '^model \"streams\" is held until .*: its rate is used up\$' FROM prometheus.queue WHERE task_id = $opened", 't');
like(sql("SELECT prometheus_why($opened)"), qr/^queued: model "streams" is held until .*: its rate is used up; /, 'prometheus_why() says so');
is(gate('streams', q{since < clock_timestamp(), until > clock_timestamp() + '50 min'}), 't t', 'since when, and until when');
sql(q{SELECT prometheus_resume('model:streams')});
$node->wait_task($opened, 'completed');
pass('whoever resumes it opens it');

# Another model is used meanwhile, if it has one.
$node->fake_agent($llm, 'fake-fixed', name => 'spare');
$node->fake_agent($llm, 'fake-headers', name => 'chain', options => '{"fallback": ["spare"]}');
$node->wait_task(ask('chain', 'x-ratelimit-remaining-requests' => '0', 'x-ratelimit-reset-requests' => '59m'), 'completed');
my $spared = ask('chain');
$node->wait_task($spared, 'completed');
is(sql("SELECT string_agg(model, ' ') FROM prometheus._attempt WHERE task_id = $spared"), 'spare', 'a fallback is used at once');

# requests_per_minute: a minute's worth at once, then evenly; also after a restart.
$node->fake_agent($llm, 'fake-echo', name => 'thirty', options => '{"requests_per_minute": 30}');
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('x'::text, ARRAY[32]), 'thirty')});
$node->wait_for('all completed', q{SELECT count(*) FROM prometheus.task WHERE agent = 'thirty' AND status = 'completed'}, 32);
is(sql(q{SELECT string_agg(n || ' ' || (sent_at - first_value >= (n - 30) * interval '2 s'), ', ' ORDER BY n)
		FROM (SELECT sent_at, row_number() OVER w AS n, first_value(sent_at) OVER w FROM prometheus.call WHERE target = 'model:thirty' WINDOW w AS (ORDER BY sent_at, call_id)) c
		WHERE n > 30}), '31 true, 32 true', 'one each 2 s when 30 have gone');
is(sql(q{SELECT count(*) || ' ' || sum(attempts) FROM prometheus.task JOIN prometheus.attempt USING (task_id) WHERE agent = 'thirty'}), '32 32', 'and no attempt was begun in vain');
$node->fake_agent($llm, 'fake-echo', name => 'one', options => '{"requests_per_minute": 1}');
$node->wait_task($node->submit(q{'x', 'one'}), 'completed');
is_held('one', 'the bucket is empty');
$node->restart;
my @more = map { $node->submit(q{'x', 'one'}) } 1 .. 2;
is_held('one', 'after a restart');
sql(q{SELECT prometheus_set_model('one', options => '{"requests_per_minute": null}')});
$node->wait_task($_, 'completed') foreach @more;
is(gate('one', 'state'), 'open', 'a null takes the limit away');

# tokens_per_minute: by an estimate, corrected by what was used.
$node->fake_agent($llm, 'fake-hang-before-headers', name => 'wordy', options => '{"tokens_per_minute": 60, "max_tokens": 400}');
my @wordy = map { $node->submit(q{'x', 'wordy'}) } 1 .. 2;
is_held('wordy', 'two that need more than there is');
is(sql(q{SELECT count(*) FROM prometheus.call WHERE target = 'model:wordy'}), 1, 'one of them was sent');
sql(q{SELECT prometheus_set_model('wordy', options => '{"tokens_per_minute": 1000000}')});
$node->wait_for('both run', sprintf(q{SELECT count(*) FROM prometheus.task WHERE task_id IN (%s) AND status = 'running'}, join ', ', @wordy), 2);
sql("SELECT prometheus_cancel($_)") foreach @wordy;
$node->wait_task($_, 'cancelled') foreach @wordy;
$node->fake_agent($llm, 'fake-echo', name => 'brief', options => '{"tokens_per_minute": 600, "max_tokens": 590}');
my @brief = map { $node->submit(q{'x', 'brief'}) } 1 .. 5;
$node->wait_task($_, 'completed') foreach @brief;
pass('what was not used can be used by the next');
$node->fake_agent($llm, 'fake-echo', name => 'large', options => '{"tokens_per_minute": 10, "max_tokens": 500}');
$node->wait_task($node->submit(q{'x', 'large'}), 'completed');
pass('a request that needs more than there can be goes when all of it is there');

# Replies that are used again: of the same role, for an equal request, unless they
# are too old; each is a step of its own.
sub done
{
	my (@arguments) = @_;
	my $task = $node->submit(@arguments);

	$node->wait_task($task, 'completed');
	return $task;
}

sub step_of
{
	my ($task) = @_;
	return sql("SELECT concat_ws(' ', status, tokens_in, tokens_out, cost, output->>'content') FROM prometheus.step WHERE task_id = $task ORDER BY step DESC LIMIT 1");
}

# The task whose reply a task has, or 0; and of each step whether it was used again.
sub reused
{
	my ($task) = @_;
	return sql("SELECT coalesce((SELECT e.task_id FROM prometheus.event e WHERE e.event_id = s.reused), 0) FROM prometheus.step s WHERE task_id = $task ORDER BY step DESC LIMIT 1");
}

sub reuses { my ($task) = @_; return sql("SELECT string_agg(kind || ' ' || (reused IS NOT NULL), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task"); }

# Requests that had this text in them.
sub sent { my ($text) = @_; return scalar grep { encode_json($_->{body}) =~ /$text/ } @{ $llm->requests }; }

$node->fake_agent($llm, 'fake-echo', name => 'keeps', options => '{"cache": "1 h", "price_in": 1, "price_out": 1}');
my $original = done(q{'again', 'keeps'});
my $copy = done(q{'again', 'keeps'});
is(sent('again'), 1, 'an equal request is not sent');
like(step_of($original), qr/^ok [1-9]\d* [1-9]\d* 0\.0\d+ again$/, 'the original has a price');
is(step_of($copy), 'ok 0 0 0 again', 'the copy has the same answer, for nothing');
is(reused($original) . ' ' . reused($copy), "0 $original", 'and says whose it is');
is(sql("SELECT count(*) FROM prometheus.call WHERE task_id = $copy"), 0, 'there was no call');
is(reused(done(q{'again', 'keeps'})), $original, 'a copy is not copied');
is(reused(done(q{'other', 'keeps'})), 0, 'another request is sent');
sql(q{SELECT prometheus_set_agent('keeps', instructions => 'Be kind.')});
is(reused(done(q{'again', 'keeps'})), 0, 'and with other instructions');
sql(q{SELECT prometheus_set_agent('keeps', instructions => '')});
sql(q{SELECT prometheus_set_model('keeps', options => '{"temperature": 1}')});
is(reused(done(q{'again', 'keeps'})), 0, 'and with another option');
sql(q{SELECT prometheus_set_model('keeps', options => '{"temperature": null}')});
is(reused(done(q{'again', 'keeps'})), $original, 'the first is still known');
sql(q{CREATE ROLE other; GRANT prometheus_agent_user TO other; SET ROLE other; SELECT prometheus_submit('again', 'keeps'); RESET ROLE});
my $others = sql(q{SELECT max(task_id) FROM prometheus.task});
$node->wait_task($others, 'completed');
is(reused($others), 0, 'another role has its own');
sql(q{SELECT prometheus_set_model('keeps', options => '{"cache": null}')});
is(reused(done(q{'again', 'keeps'})), 0, 'without the option nothing is used');
sql(q{SELECT prometheus_set_model('keeps', options => '{"cache": "1 s"}')});
$node->wait_for('it is old', "SELECT clock_timestamp() - ended_at > '1 s' FROM prometheus.task WHERE task_id = $original", 't');
is(reused(done(q{'again', 'keeps'})), 0, 'nor what is too old');

# What failed is not kept; tool calls are, with their turn.
foreach my $behaviour ('fake-length', 'fake-400')
{
	my $name = "keeps-$behaviour";

	$node->fake_agent($llm, $behaviour, options => '{"cache": "1 h"}', name => $name);
	$node->wait_task($node->submit("'bad', '$name'"), 'failed') foreach 1, 2;
	is(sql("SELECT count(*) FROM prometheus.call WHERE target = 'model:$name'"), 2, "$name: each was sent");
}
sql(q{CREATE FUNCTION add_one(n int) RETURNS int LANGUAGE sql AS 'SELECT n + 1'});
$node->fake_agent($llm, 'fake-tools', options => '{"cache": "1 h"}', name => 'tools');
sql(q{SELECT prometheus_set_tool('add_one(int)'), prometheus_set_agent('tools', tools => '{add_one}')});
my $script = encode_json([ [ 'look', [ 'add_one', { n => 1 } ] ], 'it is two' ]);
my @tools = map { done("'$script', 'tools'") } 1, 2;
is(reuses($tools[1]), 'chat true, tool false, chat true', 'a task is replayed: its tools are called');
is(sql(qq{SELECT count(DISTINCT output) FROM prometheus.step WHERE task_id IN ($tools[0], $tools[1])}), 3, 'and the same comes of it');

# A policy judges a copy as it did the original.
sql(q{SELECT prometheus_set_policy('no answer', 'answer', 'deny', reason => 'not this')});
my $vetoed = $node->submit("'$script', 'tools'");
$node->wait_task($vetoed, 'vetoed');
is(reuses($vetoed), 'chat true, tool false, chat true', 'a copy is reviewed');

# And what it did not allow is asked for anew, until an answer is allowed.
$vetoed = $node->submit("'$script', 'tools'");
$node->wait_task($vetoed, 'vetoed');
is(reuses($vetoed), 'chat true, tool false, chat false', 'after the veto of a copy the model is asked');
sql(q{SELECT prometheus_set_policy('no answer', effect => 'off')});
is(reuses(done("'$script', 'tools'")), 'chat true, tool false, chat false', 'and after the veto of what it said then');
is(reuses(done("'$script', 'tools'")), 'chat true, tool false, chat true', 'what was not vetoed is used again');

# In full mode what it is asked for a plan, and about its answer, is used again too.
$node->fake_agent($llm, 'fake-mind', name => 'minds', options => '{"cache": "1 h"}');
sql(q{SELECT prometheus_set_agent('minds', mode => 'full')});
my @minds = done(q{'think of it', 'minds'});
sql(q{DELETE FROM prometheus._memory});
push @minds, done(q{'think of it', 'minds'});
is(reuses($minds[0]), 'review false, recall false, plan false, chat false, reflect false', 'a plan, a turn and a reflection');
is(reuses($minds[1]), 'review false, recall false, plan true, chat true, reflect true', 'and the same again, but for the review');
is(sql(qq{SELECT count(DISTINCT output) FROM prometheus.step WHERE task_id IN ($minds[0], $minds[1]) AND kind IN ('plan', 'chat', 'reflect')}), 3, 'with the same outcome');
is(sql(qq{SELECT string_agg(kind, ' ') FROM prometheus.call WHERE task_id = $minds[1]}), 'review', 'each review has a mark of its own, and is asked for');

# The same of a task that was retried after its answer: its attempt begins with
# the reflection.
sql(q{DELETE FROM prometheus._memory});
sql(q{SELECT prometheus_set_policy('no answer', effect => 'deny')});
my $retried = $node->submit(q{'think of it', 'minds'});
$node->wait_task($retried, 'vetoed');
sql(q{SELECT prometheus_set_policy('no answer', effect => 'off')});
sql("SELECT prometheus_retry($retried)");
$node->wait_task($retried, 'completed');
is(sql("SELECT concat_ws(' ', status, reused IS NOT NULL, error) FROM prometheus.step WHERE task_id = $retried AND kind = 'reflect'"), 'ok t', 'a reflection that an attempt begins with is used again');

# Equal requests at once: one is sent.  If it fails the next is; and if the caller
# ends, one begins anew.
$node->fake_agent($llm, 'fake-slow-1500', name => 'single', options => '{"cache": "1 h"}');
my @single = map { $node->submit(q{'one flight', 'single'}) } 1 .. 5;
$node->wait_task($_, 'completed') foreach @single;
is(sent('one flight'), 1, 'one of five was sent');
is(sql(sprintf q{SELECT count(DISTINCT reused) || ' ' || count(reused) FROM prometheus.step WHERE task_id IN (%s)}, join ', ', @single), '1 4', 'the others took its answer');
is_first_try('single flight', @single);
$node->fake_agent($llm, 'fake-503-then-ok', name => 'unlucky', options => '{"cache": "1 h"}');
my @unlucky = map { $node->submit(q{'no luck', 'unlucky'}) } 1 .. 3;
$node->wait_task($_, 'completed') foreach @unlucky;
is(sent('no luck'), 2, 'when it fails, one of the others is sent');
$node->fake_agent($llm, 'fake-tools-lost-0', name => 'lost', options => '{"cache": "1 h"}');
foreach my $signal ('TERM', 'KILL')
{
	my @crashed = map { $node->submit(qq{'["down by $signal"]', 'lost'}) } 1 .. 3;

	$node->wait_task($_, 'running') foreach @crashed;
	usleep(10_000) until sent("down by $signal") > 0;
	$caller = $node->signal_worker($signal, 'caller');
	$node->worker_pid('caller', other_than => $caller);
	$node->wait_task($_, 'completed') foreach @crashed;
	is(sent("down by $signal"), 2, "$signal: after the end of the caller it is sent once more");
	is(sql(sprintf q{SELECT count(DISTINCT reused) || ' ' || count(reused) || ' ' || count(*) FROM prometheus.step WHERE task_id IN (%s)}, join ', ', @crashed), '1 2 3', "$signal: each has one step, and the others took its answer");
}

# Who waits for another's request can be cancelled, and has his own deadline.
$node->fake_agent($llm, 'fake-hang-before-headers', name => 'hangs', options => '{"cache": "1 h"}');
my $hangs = $node->submit(q{'never said', 'hangs'});
$node->wait_task($hangs, 'running');
my $hurried = $node->submit(q{'never said', 'hangs', timeout => '1 s'});
my $unwanted = $node->submit(q{'never said', 'hangs'});
$node->wait_task($unwanted, 'running');
sql("SELECT prometheus_cancel($unwanted)");
$node->wait_task($unwanted, 'cancelled');
$node->wait_task($hurried, 'failed');
is(sql("SELECT error_type FROM prometheus.task WHERE task_id = $hurried"), 'DeadlineExceeded', 'a deadline passes all the same');
is(sent('never said'), 1, 'and none of them was sent');
sql("SELECT prometheus_cancel($hangs)");
$node->wait_task($hangs, 'cancelled');

$node->wait_for('none is in flight', q{SELECT sum(in_flight) FROM prometheus.gate}, 0);
$node->check_invariants('invariants', retried => [$retried]);
$node->stop;
done_testing();
