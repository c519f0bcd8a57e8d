# Export: traces go to a collector over OTLP/HTTP, at least once and whatever the
# collector does.  The tests that are named T... are those of the conformance
# list of the project's notes on observability.
use strict;
use warnings FATAL => 'all';

use FakeCollector;
use FakeLLM;
use HTTP::Tiny;
use IPC::Open2 qw(open2);
use IPC::Run ();
use JSON::PP;
use POSIX qw(strftime);
use PostgreSQL::Test::Utils;
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

# What was sent for a trace, in order; the requests that had a span of it.
sub requests_of
{
	my ($trace) = @_;
	return grep { grep { $_->{traceId} eq $trace } FakeCollector::spans_of($_) } @{ $collector->requests };
}

# A task of the model echo, when it has ended; its trace.
sub run_echo
{
	my ($more) = @_;
	my $task = $node->submit(q{'hi'} . ($more // ''));

	$node->wait_task($task, 'completed');
	return trace_of($task);
}

# The statuses that requests of a trace were answered with, when it was taken.
sub statuses_of
{
	my ($trace, $about) = @_;
	wait_exported($about);
	return join ' ', map { $_->{status} } requests_of($trace);
}

# What is counted, as a difference to before.
my %counted;

sub counted
{
	my %now;
	@now{qw(traces unsampled spans rejected refused dropped failures)} =
	  split /\|/, sql('SELECT traces, unsampled, spans, rejected, refused, dropped, failures FROM prometheus.export');
	my $result = join ', ', map { "$_ " . ($now{$_} - ($counted{$_} // 0)) } grep { $now{$_} != ($counted{$_} // 0) } sort keys %now;
	%counted = %now;
	return $result;
}

# Everything that ended is exported, or left out.
sub wait_exported
{
	my ($about) = @_;
	$node->wait_for($about, q{SELECT lag = 0 AND waiting_since IS NULL FROM prometheus.consumer, prometheus.export WHERE name = 'prometheus.otlp'});
	return;
}

sub spans_of_trace
{
	my ($trace) = @_;
	return grep { $_->{traceId} eq $trace } $collector->spans;
}

sub trace_of { return sql("SELECT trace_id FROM prometheus.task WHERE task_id = $_[0]"); }

# What prometheus.span has of a trace.
sub ids_of_trace
{
	my ($trace) = @_;
	return [ split /\n/, sql("SELECT span_id FROM prometheus.span WHERE trace_id = '$trace' ORDER BY 1") ];
}

sub attributes
{
	my ($span) = @_;
	return { map { $_->{key} => (values %{ $_->{value} })[0] } @{ $span->{attributes} } };
}

my $secrets = PostgreSQL::Test::Utils::tempdir_short;
PostgreSQL::Test::Utils::append_to_file("$secrets/otlp", "sk-of-the-collector-4711\n");
chmod 0600, "$secrets/otlp";
$ENV{PROM_TEST_OTLP} = 'tenant-of-the-environment';
$node->init(databases => [ 'postgres', 'latin' ], conf => "prometheus.trace_sample_ratio = 1\nprometheus.otlp_interval = 10ms\nprometheus.otlp_metrics_interval = 0\nprometheus.secrets_dir = '$secrets'\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;
my $url = $llm->url('/v1');
sql(qq{SELECT prometheus_set_model('tools', 'openai', '$url', 'fake-tools')});
sql(sprintf q{SELECT prometheus_set_http_tool('get', 'GET', '%s/{id}', '{"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}')},
	$llm->url('/tool/echo'));
sql(<<'EOSQL');
CREATE FUNCTION say(t text) RETURNS text LANGUAGE sql AS 'SELECT t';
CREATE FUNCTION fail(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'no: %', t; END$$;
CREATE FUNCTION wipe(t text) RETURNS text LANGUAGE sql AS 'SELECT t';
SELECT prometheus_set_tool('say(text)'), prometheus_set_tool('fail(text)'), prometheus_set_tool('wipe(text)', tier => 'destructive');
SELECT prometheus_set_agent('a', 'tools', tools => '{get,say,fail,wipe,delegate}');
SELECT prometheus_set_agent('s', 'scripted', tools => '{say,fail,wipe}', options => '{"max_tool_calls": 1000}');
CREATE ROLE boss LOGIN;
GRANT prometheus_agent_user TO boss;
CREATE ROLE judge LOGIN;
GRANT prometheus_agent_admin TO judge;
EOSQL

# Turned on.

my $before = run_echo();
is($node->health('export'), 'ok|off|', 'it is off');
is(sql('SELECT count(*) FROM prometheus.export'), '0', 'and says nothing of itself');
set_conf('prometheus.otlp_endpoint' => $collector->url, 'prometheus.otlp_headers' => 'authorization=otlp, x-tenant = env:PROM_TEST_OTLP');
$node->wait_for('it is turned on', 'SELECT count(*) FROM prometheus.export', 1);
my $task = $node->submit(q{'a secret prompt'});
$node->wait_task($task, 'completed');
my $trace = trace_of($task);
$node->wait_for('the first is exported', 'SELECT traces FROM prometheus.export', 1);
my @spans = spans_of_trace($trace);
is_deeply([ sort map { $_->{spanId} } @spans ], ids_of_trace($trace), 'all its spans are, and no others');
is(scalar(() = spans_of_trace($before)), 0, 'what ended before it was turned on is not');
my ($root) = grep { !exists $_->{parentSpanId} } @spans;
is(grep({ !exists $_->{parentSpanId} } @spans), 1, 'T2: one span is the root, and has no parent');
is(sql("SELECT (extract(epoch FROM started_at) * 1000000)::bigint || '000 ' || (extract(epoch FROM ended_at) * 1000000)::bigint || '000' FROM prometheus.span WHERE span_id = '$root->{spanId}'"),
	"$root->{startTimeUnixNano} $root->{endTimeUnixNano}", 'T7: its times are exact');
is($root->{traceState}, 'ot=th:0', 'all are sampled, and it says so');
my ($request) = requests_of($trace);
is(join(' | ', map { $request->{headers}{$_} // 'none' } qw(content-type content-encoding authorization x-tenant user-agent expect)),
	'application/json | gzip | sk-of-the-collector-4711 | tenant-of-the-environment | OTel-OTLP-Exporter-C/0.1 | none', 'T14: compressed; with the headers that are set');
unlike($request->{raw}, qr/secret prompt|4711|tenant-of/, 'T29: neither prompt nor keys are in it');
is(attributes($request->{json}{resourceSpans}[0]{resource})->{'service.name'}, 'prometheus', 'it says which service it is');
is($node->health('export'), 'ok|' . @spans . ' spans|', 'all is well');

# Trees.

$task = $node->run_script('a', [
	[ [ get => { id => 'x' } ], [ say => { t => 'y' } ], [ delegate => { agent => 's', request => encode_json([ [ [ say => { t => 'z' } ] ], 'done' ]) } ] ],
	'done' ]);
$trace = trace_of($task);
wait_exported('a tree with one that was delegated');
@spans = spans_of_trace($trace);
is_deeply([ sort map { $_->{spanId} } @spans ], ids_of_trace($trace), 'all of the tree is exported');
my %ids = map { $_->{spanId} => 1 } @spans;
is(grep({ exists $_->{parentSpanId} && !$ids{ $_->{parentSpanId} } } @spans), 0, 'T3: each parent is among them');
is(grep({ $_->{name} =~ /^invoke_agent/ } @spans), 2, 'both tasks are');
is(scalar requests_of($trace), 1, 'once, when both had ended');

my $theirs = '4bf92f3577b34da6a3ce929d0e0e4736';
run_echo(qq{, traceparent => '00-$theirs-00f067aa0ba902b7-01'});
wait_exported('one that others began');
($root) = grep { ($_->{parentSpanId} // '') eq '00f067aa0ba902b7' } spans_of_trace($theirs);
is($root->{flags}, 0x301, 'T25: its parent is of others');
is($root->{traceState}, undef, 'and only they know by what part it was sampled');

# Errors.

$task = $node->run_script('s', [ [ [ fail => { t => 'x' } ] ], 'done' ]);
wait_exported('one with an error');
my ($failed) = grep { $_->{name} eq 'execute_tool fail' } spans_of_trace(trace_of($task));
is($failed->{status}{code}, 2, 'an error is one');
ok(attributes($failed)->{'error.type'}, 'and says of what type');
counted();

# What the receiver does.

sub check_replies
{
	my ($about, $behaviours, $statuses, $counts) = @_;
	$collector->behave(@$behaviours);
	my $trace = run_echo();

	is(statuses_of($trace, $about), $statuses, $about);
	is(counted(), $counts, "$about: it is counted");
	return requests_of($trace);
}

check_replies('T18: an empty partial success is one', [ { body => '{"partialSuccess":{}}' } ], '200', 'spans 3, traces 1');
check_replies('T18: what was rejected is not sent again', [ { body => '{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}' } ], '200', 'rejected 2, spans 1, traces 1');
is(sql('SELECT error FROM prometheus.export'), 'too old', 'and it is said why');
like($node->health('export'), qr/^warning\|\d+ spans; 0 refused, 2 rejected, 0 could not be written\|/, 'also in health');
my @again = check_replies('T16: 503 is tried again', [ { status => 503, times => 2 } ], '503 503 200', 'failures 2, spans 3, traces 1');
is($again[0]{raw}, $again[2]{raw}, 'with the same');
check_replies('502 and 504 are', [ map { { status => $_ } } 502, 504 ], '502 504 200', 'failures 2, spans 3, traces 1');
@again = check_replies('T15: 429 is', [ { status => 429, headers => { 'Retry-After' => '2' } } ], '429 200', 'failures 1, spans 3, traces 1');
cmp_ok($again[1]{at} - $again[0]{at}, '>=', 2, 'T15: not before the time that it says');
@again = check_replies('T15: it may be a date', [ { status => 503, headers => { 'Retry-After' => strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time + 4)) } } ], '503 200', 'failures 1, spans 3, traces 1');
cmp_ok($again[1]{at} - $again[0]{at}, '>=', 2, 'T15: not before that date');
foreach my $status (400, 401, 404, 413, 500, 501)
{
	check_replies("T17: $status is not", [ { status => $status, body => '{"code":3,"message":"bad \u0041 sk-of-the-collector-4711"}' } ], $status, 'failures 1, refused 3, traces 1');
}
is(sql('SELECT error FROM prometheus.export'), 'the receiver answered HTTP 501: bad A [redacted]', 'T29: what it says is shown, without the key');
like($node->health('export'), qr/^warning\|fails since .*: the receiver answered HTTP 501/, 'and health does, until something is taken');
check_replies('T19: a response that is cut off is tried again', [ { how => 'cut' } ], '0 200', 'failures 1, spans 3, traces 1');
check_replies('T19: so is none', [ { how => 'close' } ], '0 200', 'failures 1, spans 3, traces 1');
check_replies('a redirect is', [ { status => 307, headers => { Location => $collector->url('/elsewhere') } } ], '307 200', 'failures 1, spans 3, traces 1');
is(grep({ $_->{path} ne '/v1/traces' } @{ $collector->requests }), 0, 'and not followed');
check_replies('too long a response is not', [ { how => 'long' } ], '200', 'failures 1, refused 3, traces 1');
set_conf('prometheus.otlp_timeout' => '300ms');
check_replies('T20: silence ends at the time-out', [ { how => 'hang' } ], '0 200', 'failures 1, spans 3, traces 1');
set_conf('prometheus.otlp_timeout' => '10s');

# An outage; what ends meanwhile is kept, and tasks go on.

my $closed = PostgreSQL::Test::Cluster::get_free_port();
set_conf('prometheus.otlp_endpoint' => "http://127.0.0.1:$closed");
my @traces = map { run_echo() } 1 .. 3;
$node->wait_for('it fails', q{SELECT error LIKE 'there was no connection to the receiver: %' AND next_attempt_at > failing_since FROM prometheus.export});
$node->restart;
push @traces, run_echo();
set_conf('prometheus.otlp_endpoint' => $collector->url);
wait_exported('the end of the outage');
is(grep({ scalar spans_of_trace($_) != 3 } @traces), 0, 'T21: an outage, and a restart, lose nothing');
%counted = ();
counted();

# TLS.

my $tls_dir = PostgreSQL::Test::Utils::tempdir_short;
PostgreSQL::Test::Utils::system_or_bail('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=127.0.0.1',
	'-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', "$tls_dir/key", '-out', "$tls_dir/cert");
my $tls = FakeCollector->new('--tls', "$tls_dir/cert", "$tls_dir/key");
set_conf('prometheus.otlp_endpoint' => 'https://127.0.0.1:' . $tls->port);
$trace = run_echo();
$node->wait_for('a certificate that nobody vouches for', q{SELECT error LIKE 'TLS with the receiver could not be set up: %' FROM prometheus.export});
is(counted() =~ s/failures \d+/failures/r, 'failures', 'T28: nothing is sent there');
set_conf('prometheus.otlp_endpoint' => $collector->url);
wait_exported('it is where it belongs');
is(scalar(() = spans_of_trace($trace)), 3, 'and is not lost');
$tls->stop;

# Addresses.

set_conf('prometheus.allow_private_endpoints' => 'off');
$trace = run_echo();
$node->wait_for('a private address', q{SELECT error LIKE '%allow_private_endpoints' FROM prometheus.export});
set_conf('prometheus.allow_private_endpoints' => 'on');
wait_exported('it may be used again');
is(scalar(() = spans_of_trace($trace)), 3, 'and nothing was lost');

# A secret that is not there.

set_conf('prometheus.otlp_headers' => 'authorization=missing');
$trace = run_echo();
$node->wait_for('a secret is missing', q{SELECT error LIKE 'could not open secret "missing": %' FROM prometheus.export});
set_conf('prometheus.otlp_headers' => '');
wait_exported('without the header');
is(scalar(() = spans_of_trace($trace)), 3, 'it is sent when it can be');
foreach my $bad ([ 'authorization=Bearer sk-1234567890abcdef', 'a key' ], [ 'x', 'no secret' ], [ 'content-type=otlp', 'one of our own' ], [ "x\ty=otlp", 'no name' ],
	[ join(',', map { "x$_=otlp" } 1 .. 9), 'too many' ])
{
	my $error = $node->error_of("ALTER SYSTEM SET prometheus.otlp_headers = '$bad->[0]'");
	is($error->{state}, '22023', "headers: $bad->[1] is refused");
	unlike($error->{message} . $error->{detail}, qr/1234567890/, 'and not repeated');
}
foreach my $bad ('localhost:4318', 'ftp://x', 'http://user:key@x', 'http://')
{
	is($node->error_of("ALTER SYSTEM SET prometheus.otlp_endpoint = '$bad'")->{state}, '22023', "endpoint: $bad is refused");
}

# Who may look.

is($node->safe_psql('postgres', 'SET ROLE boss; SELECT count(*) FROM prometheus.export'), '0', 'not for everybody');
is($node->error_of(q{SELECT * FROM prometheus_poll('prometheus.otlp')})->{state}, '42809', 'its events are not for others');
is($node->error_of(q{SELECT prometheus_drop_consumer('prometheus.otlp')})->{state}, '42809', 'nor is it removed');
is($node->error_of(q{SELECT prometheus_create_consumer('prometheus.otlp')})->{state}, '42939', 'or made');

# A pause; and one that waits for a person.

sql(q{SELECT prometheus_pause()});
counted();
sql(q{SELECT prometheus_replay('prometheus.otlp', '-infinity')});
sql(q{SELECT prometheus_resume()});
wait_exported('all again');
is(scalar(() = spans_of_trace($before)), 3, 'a replay exports what came before it was turned on, too');

my $waits = $node->submit($node->script([ [ wipe => { t => 'x' } ] ], 'done') . q{, 's'});
$node->wait_task($waits, 'waiting');
run_echo();
wait_exported('others');
is(scalar(() = spans_of_trace(trace_of($waits))), 0, 'what waits for a person is not at rest');
set_conf('prometheus.trace_sample_ratio' => '0');
sql("SET ROLE judge; SELECT prometheus_approve(approval_id) FROM prometheus.approval WHERE task_id = $waits");
$node->wait_task($waits, 'completed');
wait_exported('it has ended');
is_deeply([ sort map { $_->{spanId} } spans_of_trace(trace_of($waits)) ], ids_of_trace(trace_of($waits)), 'T27: what was escalated is exported all, whatever part is sampled');

# Sampling.

sub class_of { return join ',', sort map { $_->{traceState} // 'none' } spans_of_trace($_[0]); }

$trace = run_echo();
my $forced = run_echo(q{, metadata => '{"trace": "always"}'});
my $unsampled = run_echo(q{, traceparent => '00-00000000000000000000000000000001-00f067aa0ba902b7-00'});
my $erred = trace_of($node->run_script('s', [ [ [ fail => { t => 'x' } ] ], 'done' ]));
my $vetoed = $node->run_request('DROP TABLE prometheus._task', 'vetoed');
wait_exported('none is sampled');
is(scalar(() = spans_of_trace($trace)), 0, 'by the ratio none is exported');
is(scalar(() = spans_of_trace($unsampled)), 0, 'nor is one that others did not sample');
like(class_of($forced), qr/^ot=th:0(,ot=th:0)*$/, 'one that is to be traced always is');
like(class_of($erred), qr/^ot=th:0(,ot=th:0)*$/, 'T27: so is one with an error');
is_deeply([ sort map { $_->{spanId} } spans_of_trace($erred) ], ids_of_trace($erred), 'T27: all of it');
is_deeply([ sort map { $_->{spanId} } spans_of_trace(trace_of($vetoed)) ], ids_of_trace(trace_of($vetoed)), 'T27: and one that was vetoed');
set_conf('prometheus.trace_slow' => '1ms');
$trace = trace_of($node->run_script('s', [ [ [ say => { t => 'x' } ] ], 'done' ]));
wait_exported('one that was slow');
like(class_of($trace), qr/^ot=th:0(,ot=th:0)*$/, 'so is one that was slow');
set_conf('prometheus.trace_slow' => '5min');

# A trace of several trees: what one has is of all of them.

my $many = '000000000000000000000000000000a1';
run_echo(qq{, traceparent => '00-$many-00f067aa0ba902b7-00'});
wait_exported('the first of several');
is(scalar(() = spans_of_trace($many)), 0, 'nothing has happened in the first');
$erred = $node->submit($node->script([ [ fail => { t => 'x' } ] ], 'done') . qq{, 's', traceparent => '00-$many-00f067aa0ba902b7-00'});
$node->wait_task($erred, 'completed');
run_echo(qq{, traceparent => '00-$many-00f067aa0ba902b7-00'});
wait_exported('those after it');
is(grep({ $_->{name} =~ /^invoke_agent/ } spans_of_trace($many)), 3, 'T27: with the error of the second go the first and the third');
is_deeply([ sort map { $_->{spanId} } spans_of_trace($many) ], ids_of_trace($many), 'T27: all of them');
like(class_of($many), qr/^ot=th:0(,ot=th:0)*$/, 'and counts for itself');
is(sql("SELECT count(*) FROM prometheus.task t, prometheus_sampling(t.task_id) s WHERE t.trace_id = '$many' AND s.reason <> 'error'"), '0', 'as prometheus_sampling() says');
set_conf('prometheus.trace_sample_ratio' => '0.1');
counted();
sql(q{SELECT prometheus_mark('many')});
my $start = sql('SELECT clock_timestamp()'); # a replay begins at the mark before
my $tasks = sql(q{SELECT string_agg(id::text, ',') FROM prometheus_submit_many(array_fill('x'::text, ARRAY[1000])) id});
$node->wait_for('all have ended', "SELECT count(*) FROM prometheus.task WHERE task_id IN ($tasks) AND status = 'completed'", 1000);
wait_exported('a thousand');
my %taken = map { $_->{traceId} => $_->{traceState} } $collector->spans;
my @sampled = split /\n/, sql("SELECT trace_id FROM prometheus.task WHERE task_id IN ($tasks) AND right(trace_id, 14) >= 'e6660000000000'");
my %sampled = map { $_ => 1 } @sampled;
my @taken = grep { exists $taken{$_} } split /\n/, sql("SELECT trace_id FROM prometheus.task WHERE task_id IN ($tasks)");
is(grep({ !exists $taken{$_} } @sampled), 0, 'T26: what is sampled by its id is exported');
is(grep({ !$sampled{$_} } @taken), 0, 'T26: and nothing else');
cmp_ok(abs(@sampled - 100), '<=', 5 * sqrt(1000 * 0.1 * 0.9), 'T26: a tenth is, more or less');
is(grep({ $taken{$_} ne 'ot=th:e666' } @taken), 0, 'and says so');
is(counted(), sprintf('spans %d, traces %d, unsampled %d', 3 * @sampled, scalar @sampled, 1000 - @sampled), 'all are counted');
set_conf('prometheus.trace_sample_ratio' => '1');

# One that is larger than a request may be, and what text there can be.

$task = $node->run_script('s', [ [ map { [ say => { t => "\x{2028}$_" } ] } 1 .. 60 ], ([ map { [ say => { t => 'x' } ] } 1 .. 60 ]) x 4, 'done' ]);
$trace = trace_of($task);
wait_exported('a large one');
my @parts = requests_of($trace);
is(join(' ', map { scalar FakeCollector::spans_of($_) } @parts), '512 ' . (@{ ids_of_trace($trace) } - 512), 'T12: it goes in two requests');
is_deeply([ sort map { $_->{spanId} } spans_of_trace($trace) ], ids_of_trace($trace), 'all of it');

# Many tasks are read together, but not large ones.

counted();
sql("SELECT prometheus_replay('prometheus.otlp', '$start')");
wait_exported('all of these again');
is(counted(), sql("SELECT format('spans %s, traces %s', sum((SELECT count(*) FROM prometheus.span s WHERE s.trace_id = t.trace_id AND s.ended_at IS NOT NULL)), count(*))
		FROM prometheus.task t WHERE t.submitted_at > '$start'"), 'each span goes once');
%taken = map { $_->{traceId} => 1 } $collector->spans;
is(grep({ !$taken{$_} } split /\n/, sql("SELECT trace_id FROM prometheus.task WHERE task_id IN ($tasks)")), 0, 'of each task');
my $odd = qq{a "quote" \\ tab\t new\nline \x{e4} \x{2028} \x{1f600}};
(my $literal = $odd) =~ s/'/''/g;
utf8::encode($literal);
sql("SELECT prometheus_set_agent('$literal', 'echo')");
$task = $node->submit("'x', '$literal'");
$node->wait_task($task, 'completed');
wait_exported('text of all kinds');
($root) = grep { !exists $_->{parentSpanId} } spans_of_trace(trace_of($task));
is($root->{name}, "invoke_agent $odd", 'T9: text is as it was');

# The official classes, and a receiver that others made.

my $file = PostgreSQL::Test::Utils::tempdir_short . '/requests.json';
my @sent = @{ $collector->requests };
PostgreSQL::Test::Utils::append_to_file($file, JSON::PP->new->utf8->encode([ map { $_->{json} } @sent ]));
SKIP:
{
	my ($out, $err);

	skip 'node has no @opentelemetry/otlp-transformer', 1
	  if !eval { IPC::Run::run([ 'node', '-e', q{require('@opentelemetry/otlp-transformer/build/src/generated/root.js')} ], '>&', \my $nothing) };
	IPC::Run::run([ 'node', 'test/otlp_check.js', $file ], '>', \$out, '2>', \$err) or diag($err);
	my %all = map { map { ("$_->{traceId} $_->{spanId}" => 1) } FakeCollector::spans_of($_) } @sent;
	is($out, 'OK ' . keys(%all) . "\n", 'T1 to T8, T11 to T13, T30: the official classes read every request');
}
is(grep({ !FakeCollector::spans_of($_) } @sent), 0, 'T13: none was empty');

SKIP:
{
	my $genkit = PostgreSQL::Test::Utils::tempdir_short;
	my $port;

	skip 'node has no @genkit-ai/telemetry-server', 3
	  if !eval { IPC::Run::run([ 'node', '-e', q{require('@genkit-ai/telemetry-server')} ], '>&', \my $nothing) };
	my $pid = open2(my $out, my $in, 'node', 'test/genkit.js', $genkit);
	while (defined(my $line = <$out>))
	{
		($port) = $line =~ /^(\d+)$/ and last;
	}
	set_conf('prometheus.otlp_endpoint' => "http://127.0.0.1:$port/api/otlp");
	$task = $node->run_script('a', [ [ [ get => { id => 'x' } ], [ fail => { t => 'y' } ] ], 'done' ]);
	$trace = trace_of($task);
	wait_exported('a receiver of others');
	my $theirs = decode_json(HTTP::Tiny->new(proxy => undef)->get("http://127.0.0.1:$port/api/traces/$trace")->{content})->{spans};
	is_deeply([ sort keys %$theirs ], ids_of_trace($trace), 'a receiver of others has all spans');
	is(join("\n", map { join ' ', $_->{spanId}, $_->{parentSpanId} // '-', $_->{displayName} } sort { $a->{spanId} cmp $b->{spanId} } values %$theirs),
		sql("SELECT string_agg(concat_ws(' ', span_id, coalesce(parent_span_id, '-'), name), chr(10) ORDER BY span_id) FROM prometheus.span WHERE trace_id = '$trace'"),
		'with their names and parents');
	my ($chat) = grep { $_->{displayName} eq 'chat tools' || $_->{displayName} eq 'chat fake-tools' } values %$theirs;
	is($chat->{attributes}{'gen_ai.operation.name'}, 'chat', 'and attributes');
	set_conf('prometheus.otlp_endpoint' => $collector->url);
	close($in);
	waitpid($pid, 0);
}

# A database of another encoding.

sql('CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LOCALE "C"');
$node->create_extension('latin');
$node->wait_for('its export is on', 'SELECT count(*) FROM prometheus.export', 1, dbname => 'latin');
$node->safe_psql('latin', q{SELECT prometheus_set_agent(convert_from('\xe4df'::bytea, 'LATIN1'), 'echo')});
$task = $node->safe_psql('latin', q{SELECT prometheus_submit('x', convert_from('\xe4df'::bytea, 'LATIN1'))});
$node->wait_task($task, 'completed', dbname => 'latin');
$node->wait_for('it is exported', 'SELECT traces FROM prometheus.export', 1, dbname => 'latin');
($root) = grep { !exists $_->{parentSpanId} } spans_of_trace($node->safe_psql('latin', "SELECT trace_id FROM prometheus.task WHERE task_id = $task"));
is($root->{name}, "invoke_agent \x{e4}\x{df}", 'T9: what is not UTF-8 becomes it');
is(attributes($root)->{'gen_ai.agent.name'}, "\x{e4}\x{df}", 'T9: also in attributes');

# Without compression.

set_conf('prometheus.otlp_compression' => 'none', 'prometheus.otlp_service_name' => 'agents', 'prometheus.otlp_endpoint' => $collector->url('/base/'));
$trace = run_echo();
wait_exported('as it is');
($request) = requests_of($trace);
is(join(' ', $request->{path}, $request->{headers}{'content-encoding'} // 'none', attributes($request->{json}{resourceSpans}[0]{resource})->{'service.name'}),
	'/base/v1/traces none agents', 'T14: without compression it is the same, at a path, and of another name');

# Turned off and on.

set_conf('prometheus.otlp_endpoint' => '');
$node->wait_for('it is off', q{SELECT count(*) FROM prometheus.consumer WHERE name = 'prometheus.otlp'}, 0);
$trace = run_echo();
set_conf('prometheus.otlp_endpoint' => $collector->url);
$node->wait_for('it is on', 'SELECT count(*) FROM prometheus.export', 1);
my $after = run_echo();
wait_exported('it is on again');
is(scalar(() = spans_of_trace($after)) . ' ' . scalar(() = spans_of_trace($trace)), '3 0', 'it begins from then');

# Retention waits for what is not exported; what is goes.

set_conf('prometheus.otlp_endpoint' => "http://127.0.0.1:$closed");
my $kept = $node->submit(q{'kept'});
$node->wait_task($kept, 'completed');
sql(q{SELECT prometheus_mark()});
set_conf('prometheus.retention' => '1s');
$node->wait_for('what was exported is gone', 'SELECT count(*) = 0 FROM prometheus.task WHERE task_id = ' . $waits);
$node->wait_for('there is an older horizon', "SELECT count(*) > 0 FROM prometheus._horizon h WHERE h.at <= (SELECT ended_at FROM prometheus.task WHERE task_id = $kept)");
is(sql("SELECT count(*) FROM prometheus.task WHERE task_id = $kept"), '1', 'retention waits for the export');
set_conf('prometheus.otlp_endpoint' => $collector->url);
wait_exported('it can go');
$node->wait_for('it is gone', "SELECT count(*) = 0 FROM prometheus.task WHERE task_id = $kept");
is(grep({ $_->{name} eq 'invoke_agent default' } map { FakeCollector::spans_of($_) } grep { $_->{status} == 200 } ($collector->requests->[-1])) > 0, 1, 'after it was exported');
set_conf('prometheus.retention' => '30d');

# A receiver that hangs holds up neither tasks nor the end.

set_conf('prometheus.otlp_timeout' => '10min');
$collector->behave({ how => 'hang' });
my $hung = @{ $collector->requests };
run_echo();
$collector->wait_requests($hung + 1);
run_echo();
$node->stop('fast', timeout => 10);
pass('T20: the server stops while the receiver is silent');
$node->start;
wait_exported('what it had not taken');
is(grep({ $_->{status} == 0 } @{ $collector->requests }[ $hung .. $hung ]), 1, 'it was silent');
done_testing();
