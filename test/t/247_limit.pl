# The rates of models: what their options and the headers of their replies allow
# is kept to before a request is refused.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use JSON::PP qw(encode_json);
use PromCluster;
use Test::More;

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->keep_sessions;
$node->init(conf => "prometheus.allow_private_endpoints = on\n");
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
	is_held($form, $form);
	like(sql("SELECT prometheus_why($next[2])"), qr/^(queued|retrying): model "$form" is held until .*: its rate is used up; /, "$form: why");
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
$node->restart;
my @more = map { $node->submit(q{'x', 'thirty'}) } 1 .. 2;
is_held('thirty', 'after a restart');
sql(q{SELECT prometheus_set_model('thirty', options => '{"requests_per_minute": null}')});
$node->wait_task($_, 'completed') foreach @more;
is(gate('thirty', 'state'), 'open', 'a null takes the limit away');

# tokens_per_minute: by an estimate, corrected by what was used.
$node->fake_agent($llm, 'fake-hang-before-headers', name => 'wordy', options => '{"tokens_per_minute": 600, "max_tokens": 400}');
my @wordy = map { $node->submit(q{'x', 'wordy'}) } 1 .. 2;
is_held('wordy', 'two that need more than there is');
is(scalar requests('fake-hang-before-headers'), 1, 'one of them was sent');
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

$node->wait_for('none is in flight', q{SELECT sum(in_flight) FROM prometheus.gate}, 0);
$node->check_invariants('invariants');
$node->stop;
done_testing();
