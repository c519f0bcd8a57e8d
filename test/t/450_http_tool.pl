# HTTP tools: an endpoint is called as the model asked, once for each call that
# was recorded, within what policies allow; and when nobody knows whether it was
# done, nobody says that it failed.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use JSON::PP;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
$node->keep_sessions;
my $llm = FakeLLM->new;
my $key = 'tool-key-0123456789abcdef';

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Submit a script to an agent; the task.
sub submit
{
	my ($agent, @turns) = @_;
	return $node->submit($node->script(@turns) . ", '$agent'");
}

# The same, and wait for the end.
sub run_script
{
	my ($agent, $turns, $status) = @_;
	my $task = submit($agent, @$turns);

	$node->wait_task($task, $status // 'completed');
	return $task;
}

# What the model was told of its calls before a step.
sub told
{
	my ($task, $step) = @_;
	my $prompt = decode_json(sql("SELECT prometheus_prompt($task, $step)"));
	return map { $_->{content} } grep { $_->{role} eq 'tool' } @{ $prompt->{messages} };
}

# What the model is told of one call.
sub told_of
{
	my ($tool, $arguments, $agent) = @_;
	my $task = run_script($agent // 'a', [ [ [ $tool, $arguments ] ], 'end' ]);
	return (told($task, 3))[0];
}

sub steps
{
	return sql("SELECT string_agg(concat_ws(' ', step, kind, name, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $_[0]"
	);
}

sub calls
{
	return sql("SELECT string_agg(concat_ws(' ', attempt, kind, target, status), ', ' ORDER BY attempt, turn, call) FROM prometheus.call WHERE task_id = $_[0] AND kind = 'tool'"
	);
}

# The requests that came for a path.
sub requests_of
{
	my ($path) = @_;
	return grep { $_->{path} =~ m{^\Q$path\E(?:\?|$)} } @{ $llm->requests };
}

sub wait_request
{
	my ($path, $count) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	until (requests_of($path) >= $count)
	{
		die "waited in vain for $count requests of $path" if time > $end;
		select undef, undef, undef, 0.02;
	}
	return;
}

# Make an endpoint a tool; the rest is SQL.
sub set_tool
{
	my ($name, $method, $path, $schema, $rest) = @_;
	my $url = $path =~ /^http/ ? $path : $llm->url($path);
	my $json = JSON::PP->new->canonical->encode($schema);

	return sql("SELECT prometheus_set_http_tool('$name', '$method', '$url', '$json'" . ($rest ? ", $rest" : '') . ')');
}

sub object
{
	my ($properties, @required) = @_;
	return { type => 'object', properties => $properties, required => \@required };
}

my $secrets = PostgreSQL::Test::Utils::tempdir_short();
append_to_file("$secrets/endpoint", "$key\n");
chmod 0600, "$secrets/endpoint";
$node->init(restart_after_crash => 1, conf => "prometheus.secrets_dir = '$secrets'\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;
my %text = (type => 'string');
my $nothing = object({});
set_tool('get', 'GET', '/tool/echo/{id}/x?fixed=1&q={q}', object({ id => {%text}, q => {%text}, n => { type => 'number' },
	list => { type => 'array' }, o => { type => 'object' }, z => {} }, 'id', 'q'));
set_tool('post', 'POST', '/tool/echo/{id}', object({ id => { type => 'integer' }, n => { type => 'number' }, t => {%text}, deep => {} }, 'id'), q{tier => 'write'});
set_tool('put', 'PUT', '/tool/echo', $nothing, q{tier => 'write'});
set_tool('patch', 'PATCH', '/tool/echo', $nothing, q{tier => 'write'});
set_tool('delete', 'DELETE', '/tool/echo', $nothing, q{tier => 'write'});
set_tool('slow', 'GET', '/tool/slow/{ms}', object({ ms => { type => 'integer' } }, 'ms'));
set_tool('word', 'GET', '/tool/{word}', object({ word => {%text} }, 'word'));
set_tool('word_write', 'POST', '/tool/{word}', object({ word => {%text} }, 'word'), q{tier => 'write'});
set_tool('status', 'GET', '/tool/status/{status}', object({ status => { type => 'integer' } }, 'status'), q{secret => 'endpoint'});
set_tool('keyed', 'GET', '/tool/key', $nothing, q{secret => 'endpoint'});
set_tool('no_key', 'GET', '/tool/echo/nokey', $nothing, q{secret => 'missing'});
set_tool('huge', 'GET', '/tool/huge/{n}', object({ n => { type => 'integer' } }, 'n'));
set_tool('danger', 'POST', '/tool/echo/danger', $nothing, q{tier => 'destructive'});
foreach my $tier (qw(read write destructive))
{
	foreach my $idempotent (0, 1)
	{
		set_tool("${tier}_$idempotent", 'POST', "/tool/hang-once/${tier}_$idempotent", $nothing,
			"tier => '$tier', idempotent => " . ($idempotent ? 'true' : 'false'));
	}
}
sql(<<'EOSQL');
CREATE ROLE boss;
GRANT prometheus_agent_admin TO boss;
CREATE FUNCTION say(t text) RETURNS text LANGUAGE sql AS 'SELECT t';
SELECT prometheus_set_tool('say(text)');
SELECT prometheus_set_agent(name, 'scripted', options => options,
       tools => (SELECT array_agg(t.name) FROM prometheus.tool t WHERE t.kind <> 'builtin'))
  FROM (VALUES ('a', '{}'::jsonb), ('short', '{"tool_timeout": "300ms"}'), ('small', '{"max_result": 256}')) x(name, options);
EOSQL

# What is sent, and what the model is told.
is(told_of('get', '{"id": "7", "q": "", "n": 12345678901234567890.10, "list": [1, "b&c", null], "o": {"k": 1.0}, "z": null}'),
	'GET /tool/echo/7/x?fixed=1&q=&n=12345678901234567890.10&list=1&list=b%26c&o=%7B%22k%22%3A%201.0%7D',
	'GET: the other arguments are the query, as they are');
is(told_of('post', '{"id": 12, "n": 12345678901234567890.10, "t": "\u00fc", "deep": {"a": [1e2, true]}}'),
	'POST /tool/echo/12 {"n":12345678901234567890.10,"t":"\u00fc","deep":{"a": [1e2, true]}}',
	'POST: they are the body, every number as it is');
is(told_of('put', '{}'), 'PUT /tool/echo {}', 'PUT');
is(told_of('patch', '{"a": 1}'), 'PATCH /tool/echo {"a":1}', 'PATCH');
is(told_of('delete', '{"a": 1}'), 'DELETE /tool/echo?a=1', 'DELETE');
my ($get) = requests_of('/tool/echo/7/x');
is($get->{headers}{'content-type'} // 'none', 'none', 'GET: no body');
is($get->{headers}{'idempotency-key'} // 'none', 'none', 'a tool that is not idempotent has no key');

# A value stays in its place.
foreach my $case (
	[ '"a/b"', 'a%2Fb' ], [ '"a?b#c&d=e"', 'a%3Fb%23c%26d%3De' ], [ '"\r\nX: y"', '%0D%0AX%3A%20y' ],
	[ '"\u00fc%2e"', '%C3%BC%252e' ], [ '"@{id}\\\\"', '%40%7Bid%7D%5C' ], [ '"..."', '...' ])
{
	is(told_of('get', "{\"id\": $case->[0], \"q\": \"\"}"), "GET /tool/echo/$case->[1]/x?fixed=1&q=", "placeholder: $case->[0]");
}
is(told_of('get', '{"id": "i", "q": "../?&=#"}'), 'GET /tool/echo/i/x?fixed=1&q=..%2F%3F%26%3D%23', 'placeholder: in the query');
my $before = $llm->stats->{requests};
foreach my $case ('".."', '"."', '""', '"../.."', '"a/../b"', '"..\\\\x"', '"a\u0000b"', '7', 'null', '["a"]')
{
	like(told_of('get', "{\"id\": $case, \"q\": \"\"}"), qr/^Error: arguments /, "placeholder: $case is refused");
}

# Bad arguments are told, and nothing is sent.
like(told_of('post', $_), qr/^Error: arguments /, "arguments: $_") foreach '{}', '[]', 'x', '{"id": 1, "t": 2}', '{"id": 1, "id": 2}',
  '{"id": 1, "deep": {"a": 1, "a": 2}}';
is($llm->stats->{requests}, $before, 'nothing of these was sent');

# All of a turn at once, and the results in the model's order.
my $task = run_script('a', [ [ [ 'slow', { ms => 400 } ], [ 'say', { t => 'sql' } ], [ 'slow', { ms => 401 } ], [ 'slow', { ms => 200 } ] ], 'end' ]);
is_deeply([ told($task, 6) ], [ 'GET /tool/slow/400', 'sql', 'GET /tool/slow/401', 'GET /tool/slow/200' ], 'parallel: in order');
is( sql("SELECT max(started_at) < min(started_at + duration_ms * interval '1 ms') FROM prometheus.step WHERE task_id = $task AND name = 'slow'"),
	't', 'parallel: all were on the network together');
is(calls($task), join(', ', ('1 tool tool:slow done') x 3), 'parallel: the calls');
is( sql("SELECT string_agg(concat_ws(' ', turn, call, http_status), ', ' ORDER BY call) FROM prometheus.call WHERE task_id = $task AND kind = 'tool'"),
	'1 2 200, 1 4 200, 1 5 200', 'parallel: their numbers');
is( sql("SELECT count(*) FROM prometheus.verdict v JOIN prometheus.step s USING (task_id, step) WHERE task_id = $task AND name = 'slow' AND v.stage = 'tool' AND v.approved AND v.judged_at <= s.started_at"),
	3, 'parallel: each was judged before');
is( sql("SELECT string_agg(DISTINCT concat_ws(' ', name, kind, attributes ->> 'url.template' = '" . $llm->url('/tool/slow/{ms}') . "', attributes ->> 'server.address'), ', ') FROM prometheus.span WHERE trace_id = (SELECT trace_id FROM prometheus.task WHERE task_id = $task) AND name = 'GET'"),
	'GET client t 127.0.0.1', 'parallel: the spans');

# The key is sent, and is nowhere else.
$task = run_script('a', [ [ [ 'keyed', {} ], [ 'status', { status => 500 } ], [ 'status', { status => 302 } ], [ 'status', { status => 503 } ],
			[ 'no_key', {} ] ], 'end' ]);
my @told = told($task, 7);
like($told[0], qr/"authorization": "Bearer \[redacted\]"/, 'key: what the server says of it is blacked out');
is((requests_of('/tool/key'))[0]{headers}{authorization}, "Bearer $key", 'key: it was sent');
is($told[1], 'Error: the server answered HTTP 500: status 500, you sent [redacted]', 'HTTP 500: told in a line');
is($told[2], 'Error: the server answered HTTP 302, a redirect, which is never followed: status 302, you sent [redacted]', 'HTTP 302: told');
is($llm->stats->{elsewhere}, 0, 'HTTP 302: not followed');
is($told[3], 'Error: the server answered HTTP 503 (Retry-After: 7 s): status 503, you sent [redacted]', 'HTTP 503: told with Retry-After');
like($told[4], qr/^Error: could not open secret "missing"/, 'key: one that is missing');
is(scalar(requests_of('/tool/echo/nokey')), 0, 'key: nothing is sent without it');
is( sql("SELECT string_agg(concat_ws(' ', name, status, output ->> 'http_status'), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND kind = 'tool'"),
	'keyed ok, status error 500, status error 302, status error 503, no_key error', 'the steps');
my ($dump) = run_command([ 'pg_dump', '--data-only', $node->connstr('postgres') ]);
unlike($dump, qr/\Q$key\E/, 'key: in no table');
unlike(slurp_file($node->logfile), qr/\Q$key\E/, 'key: not in the log');

# Whether a server has done it, its status does not always say.
set_tool('status_write', 'POST', '/tool/status/{status}', object({ status => { type => 'integer' } }, 'status'), q{tier => 'write'});
sql(q{SELECT prometheus_set_agent('writes', 'scripted', tools => '{status_write}')});
$task = run_script('writes', [ [ map { [ 'status_write', { status => $_ } ] } 504, 303, 404 ], 'end' ]);
is( sql("SELECT string_agg(concat_ws(' ', status, output ->> 'http_status'), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND kind = 'tool'"),
	'unknown 504, unknown 303, error 404', 'writes: nobody knows after 504 and 303');
like((told($task, 5))[0], qr/^Unknown: nobody knows whether it was done: the server answered HTTP 504/, 'writes: told');

# Bodies.
is(told_of('word', { word => 'utf8' }), "a\x{fffd}b\x{fffd}c\x{e9}", 'body: what is not UTF-8');
is(told_of('word', { word => 'empty' }), '', 'body: none');
is(told_of('word', { word => 'image' }), 'the server answered HTTP 200, with a body of type image/png, which is not text', 'body: no text');
is(told_of('huge', { n => 256 }, 'small'), 'x' x 256, 'body: as long as it may be');
is(told_of('huge', { n => 257 }, 'small'), 'x' x 256 . "\n[cut: the first 256 bytes; ask for less]", 'body: longer');
is(told_of('huge', { n => 3000000 }, 'small'), 'x' x 256 . "\n[cut: the first 256 bytes; ask for less]", 'body: much longer');
like(told_of('huge', { n => 17000000 }), qr/^Error: the response is longer than 16 MB/, 'body: too long');

# Ends of which nobody knows what they mean.
foreach my $word (qw(hang close half cut))
{
	$task = run_script('short', [ [ [ 'word', { word => $word } ], [ 'word_write', { word => $word } ] ], 'end' ]);
	is(steps($task), '1 chat scripted ok, 2 tool word error, 3 tool word_write unknown, 4 chat scripted ok', "$word: what only reads failed, and the other nobody knows");
	is(calls($task), '1 tool tool:word ambiguous, 1 tool tool:word_write ambiguous', "$word: the calls");
	@told = told($task, 4);
	like($told[0], qr/^Error: the(?:re was no|) /, "$word: told of what reads");
	like($told[1], qr/^Unknown: nobody knows whether it was done: the/, "$word: told of the other");
	is(scalar(grep { $_->{path} eq "/tool/$word" } @{ $llm->requests }), 2, "$word: each was sent once");
}
# That it was not sent is known.
set_tool('nobody', 'POST', 'http://127.0.0.1:1/x', $nothing, q{tier => 'write'});
sql(q{SELECT prometheus_set_agent('b', 'scripted', tools => '{nobody}')});
like(told_of('nobody', {}, 'b'), qr/^Error: there was no connection to the server/, 'unreachable: an error, of what writes too');

# Policies.
sql(q{SELECT prometheus_set_policy('no', 'tool', 'deny', match => '{"tool": "put"}', reason => 'Not this.')});
$before = $llm->stats->{requests};
is(told_of('put', '{}'), 'Vetoed: Not this.', 'veto: told');
is($llm->stats->{requests}, $before, 'veto: nothing was sent');
$task = submit('a', [ [ 'danger', {} ] ], 'end');
$node->wait_task($task, 'waiting');
is(scalar(requests_of('/tool/echo/danger')), 0, 'approval: nothing was sent before it');
sql("SET ROLE boss; SELECT prometheus_approve(approval_id) FROM prometheus.approval WHERE task_id = $task");
$node->wait_task($task, 'completed');
is((told($task, 3))[0], 'POST /tool/echo/danger {}', 'approval: then it was sent');
is(scalar(requests_of('/tool/echo/danger')), 1, 'approval: once');

# Policies of now: a verdict of before they were changed lets nothing be sent.
sql(<<'EOSQL');
CREATE FUNCTION waits(judged jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT false FROM (SELECT pg_advisory_lock_shared(450)) x';
SELECT prometheus_set_policy('waits', 'tool', 'deny', 'waits(jsonb)', match => '{"tool": "patch"}', on_error => 'allow');
EOSQL
my $session = $node->background_psql('postgres');
$session->query_safe('SELECT pg_advisory_lock(450)');
$task = submit('a', [ [ 'patch', {} ] ], 'end');
$node->wait_for('the policy is asked', q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 't');
my $caller = $node->signal_worker('STOP', 'caller');
$session->query_safe('SELECT pg_advisory_unlock(450)');
$session->quit;
$node->wait_for('it is allowed', "SELECT count(*) FROM prometheus.verdict WHERE task_id = $task AND stage = 'tool' AND approved", 1);
sql(q{SELECT prometheus_set_policy('late', 'tool', 'deny', match => '{"tool": "patch"}', reason => 'Not any more.')});
$before = $llm->stats->{requests};
kill('CONT', $caller);
$node->wait_task($task, 'completed');
is((told($task, 3))[0], 'Vetoed: Not any more.', 'policies of now: it is judged again');
is($llm->stats->{requests}, $before, 'policies of now: nothing was sent');
is( sql("SELECT string_agg(effect, ' ' ORDER BY policy_version) FROM prometheus.verdict WHERE task_id = $task AND stage = 'tool' AND attempt = 1"),
	'allow deny', 'policies of now: both verdicts');
sql(q{SELECT prometheus_set_policy('late', effect => 'off'), prometheus_set_policy('waits', effect => 'off', condition => '-')});

# A cancel drops the request.
$task = submit('a', [ [ 'word_write', { word => 'hang' } ], [ 'word', { word => 'hang' } ] ], 'end');
$before = $llm->stats->{dropped};
wait_request('/tool/hang', 4);
sql("SELECT prometheus_cancel($task)");
$node->wait_task($task, 'cancelled');
is(calls($task) =~ s/open/x/r, '1 tool tool:word_write ambiguous, 1 tool tool:word ambiguous', 'cancel: the calls');
is($llm->stats->{dropped} - $before, 2, 'cancel: the connections are closed');

# Function tool and http tool under one name.
sql(q{SELECT prometheus_set_tool('say(text)', 'both'), prometheus_set_agent('c', 'scripted', tools => '{both}')});
is(told_of('both', { t => 'x' }, 'c'), 'x', 'both: a function');
set_tool('both', 'GET', '/tool/echo/both', $nothing);
is(told_of('both', {}, 'c'), 'GET /tool/echo/both', 'both: an endpoint');
sql(q{SELECT prometheus_set_tool('say(text)', 'both')});
is(told_of('both', { t => 'y' }, 'c'), 'y', 'both: a function again');

# The server crashes while requests hang.
my %task;
foreach my $name (map { ("${_}_0", "${_}_1") } qw(read write destructive))
{
	$task{$name} = submit('a', [ [ $name, {} ] ], 'end');
	if ($name =~ /^destructive/)
	{
		$node->wait_task($task{$name}, 'waiting');
		sql("SET ROLE boss; SELECT prometheus_approve(approval_id) FROM prometheus.approval WHERE task_id = $task{$name}");
	}
	wait_request("/tool/hang-once/$name", 1);
}
my $pid = $node->signal_worker('KILL', 'caller');
$node->worker_pid('caller', other_than => $pid);
$node->wait_task($task{$_}, 'completed') foreach grep { $_ ne 'destructive_0' } sort keys %task;
foreach my $name (qw(read_0 read_1 write_1 destructive_1))
{
	my @requests = requests_of("/tool/hang-once/$name");
	my ($first) = split /,/, sql("SELECT string_agg(call_id::text, ',' ORDER BY sent_at) FROM prometheus.call WHERE task_id = $task{$name} AND kind = 'tool'");
	my $expected = $name =~ /1$/ ? $first : 'none';

	is(scalar @requests, 2, "crash: $name was sent again");
	is(join(' ', map { $_->{headers}{'idempotency-key'} // 'none' } @requests), "$expected $expected", "crash: $name: the key of the first call");
	is((told($task{$name}, 3))[0], "POST /tool/hang-once/$name {}", "crash: $name: the result");
	like(calls($task{$name}), qr/^\d tool tool:$name ambiguous, \d tool tool:$name done$/, "crash: $name: its calls");
}
my $unknown = qr/^Unknown: nobody knows whether it was done: it was sent, and the process that waited for the response ended/;
is(scalar(requests_of('/tool/hang-once/write_0')), 1, 'crash: write_0 was not sent again');
is(steps($task{write_0}), '1 chat scripted ok, 2 tool write_0 unknown, 3 chat scripted ok', 'crash: write_0: its step');
like((told($task{write_0}, 3))[0], $unknown, 'crash: write_0: the model is told');
is(calls($task{write_0}), '1 tool tool:write_0 ambiguous', 'crash: write_0: its call');

# What cannot be undone is asked about anew.
sub open_approval
{
	my ($of) = @_;
	my $open = "FROM prometheus.approval WHERE task_id = $of AND decision IS NULL";

	$node->wait_for('a person is asked again', "SELECT count(*) $open", 1);
	return split /\|/, sql("SELECT approval_id, reasoning $open");
}
my ($approval, $reasoning) = open_approval($task{destructive_0});
like($reasoning, qr/^it was sent before \(call \d+\), and nobody knows whether it was done/, 'crash: destructive_0: a person is asked');
is(scalar(requests_of('/tool/hang-once/destructive_0')), 1, 'crash: destructive_0 was not sent again');
sql("SET ROLE boss; SELECT prometheus_approve($approval)");
$node->wait_task($task{destructive_0}, 'completed');
is(scalar(requests_of('/tool/hang-once/destructive_0')), 2, 'crash: destructive_0: approved, it is sent again');
is((told($task{destructive_0}, 3))[0], 'POST /tool/hang-once/destructive_0 {}', 'crash: destructive_0: the result');

# The same, and the person says no.
set_tool('rejected', 'POST', '/tool/hang/rejected', $nothing, q{tier => 'destructive'});
sql(q{SELECT prometheus_set_agent('d', 'scripted', tools => '{rejected}')});
$task = submit('d', [ [ 'rejected', {} ] ], 'end');
($approval) = open_approval($task);
sql("SET ROLE boss; SELECT prometheus_approve($approval)");
wait_request('/tool/hang/rejected', 1);
$node->signal_worker('KILL', 'caller');
($approval) = do { $node->wait_for('back', 'SELECT true'); open_approval($task) };
sql("SET ROLE boss; SELECT prometheus_reject($approval, 'Enough.')");
$node->wait_task($task, 'completed');
is(steps($task), '1 chat scripted ok, 2 tool rejected unknown, 3 chat scripted ok', 'rejected: nobody knows');
like((told($task, 3))[0], qr/$unknown; it was not sent again: rejected by boss: Enough\.$/, 'rejected: the model is told');
is(scalar(requests_of('/tool/hang/rejected')), 1, 'rejected: it was sent once');

# Private addresses.
$node->append_conf('postgresql.conf', 'prometheus.allow_private_endpoints = off');
$node->reload;
$before = $llm->stats->{requests};
$node->wait_for('the caller has read it', q{SELECT setting FROM pg_settings WHERE name = 'prometheus.allow_private_endpoints'}, 'off');
like(told_of('patch', '{}'), qr/^Error: (?:the server's address is not allowed|the request cannot be made): /, 'private address: refused');
is($llm->stats->{requests}, $before, 'private address: nothing was sent');
$node->check_invariants('at the end', all_ended => 1);

$node->stop;
done_testing();
