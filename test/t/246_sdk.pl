# What we send, beside what the official clients of the formats send of the same
# conversation, member by member; and our model server speaks so that they can
# read it.  They come from npm, by test/sdk.mjs; without it this is passed over.
#
# What may differ, and is made alike before (normal()): marks for caches, which
# only we set; a text alone or as a list of one part; who speaks as the system to
# Google; "stream": false, which is the default; null, which their helpers add.  Anthropic's client is the last
# one of the version of its interface that we speak (src/provider/anthropic.c).
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use File::Copy qw(copy);
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my @packages = ('openai@6.49.0', '@anthropic-ai/sdk@0.137.0', '@google/genai@2.32.0');
my $directory = PostgreSQL::Test::Utils::tempdir;
my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $log = '';

plan skip_all => 'the clients cannot be installed from npm'
  unless eval {
	IPC::Run::run([ qw(npm install --silent --no-audit --no-fund --ignore-scripts --prefix), $directory, '--cache', "$directory/cache", @packages ],
		'<', \'', '>&', \$log, IPC::Run::timeout(60));
  };
copy('test/sdk.mjs', "$directory/sdk.mjs") or die $!;

# The node that runs it must know no proxy either.
delete @ENV{qw(http_proxy https_proxy HTTP_PROXY HTTPS_PROXY)};

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;
my %endpoints = (openai => '/v1', 'openai-responses' => '/v1', anthropic => '/v1', gemini => '/v1beta');
my %schema = (type => 'object', properties => { ok => { type => 'boolean' } }, required => ['ok'], additionalProperties => JSON::PP::false);
my @headers = qw(content-type authorization x-api-key x-goog-api-key anthropic-version);

sub sql { return $node->safe_psql('postgres', $_[0]); }

# A list of one text is that text; see above for the rest.
sub normal
{
	my ($value, $turns) = @_;

	if (ref $value eq 'ARRAY')
	{
		my @list = map { normal($_) } @$value;
		return $list[0]{text}
		  if @list == 1 && ref $list[0] eq 'HASH' && join(' ', sort keys %{ $list[0] }) =~ /^text( type)?$/;
		return \@list;
	}
	return $value unless ref $value eq 'HASH';
	my %members = map { $_ => normal($value->{$_}) } grep { $_ ne 'cache_control' && defined $value->{$_} } keys %$value;
	delete $members{stream} if exists $members{stream} && !$members{stream};
	delete $members{systemInstruction}{role} if exists $members{systemInstruction};
	return \%members;
}

# A request as text, without the numbers that the server gives to turns.
sub text_of_request
{
	my ($request) = @_;
	my $body = $json->encode(normal(ref $request->{body} ? $request->{body} : $json->decode($request->{body})));

	$body =~ s/\b(sig|secret|toolu|call|rs|fc|msg|resp|chatcmpl)([-_])\d+/$1$2N/g;
	return $json->pretty->encode(
		{ method => $request->{method}, path => $request->{path}, body => $json->decode($body),
			headers => { map { $_ => lc($request->{headers}{$_} // '-') =~ s/;.*//r } @headers } });
}

# Have the conversation; what a client must be told to have the same, and the task.
sub converse
{
	my ($api, $stream) = @_;
	my $name = "$api $stream";
	my $url = $llm->url($endpoints{$api});
	my $script = $node->script([ 'I look.', [ add => { a => 1, b => "\x{e4}\"\\" } ], [ add => { a => 2, b => '' } ] ], '{"ok": true}');

	sql(qq{SELECT prometheus_set_model('$name', '$api', '$url', 'fake-tools', 'env:PROM_TEST_KEY', options => '{"stream": $stream, "max_tokens": 500, "temperature": 0.5}');
		SELECT prometheus_set_agent('$name', '$name', instructions => 'Be brief.', tools => '{add}')});
	my $task = $node->submit("$script, '$name', output_schema => '" . $json->encode(\%schema) . "'");
	$node->wait_task($task, 'completed');
	my $asked = $json->decode(sql(<<"EOSQL"));
SELECT jsonb_build_object('tools', (SELECT jsonb_agg(jsonb_build_object('name', name, 'description', description, 'schema', schema)) FROM prometheus.tool WHERE name = 'add'),
	'results', (SELECT jsonb_agg(answer ORDER BY step) FROM prometheus._step WHERE task_id = $task AND kind = 'tool'),
	'user', (SELECT request FROM prometheus.task WHERE task_id = $task))
EOSQL
	return {
		%$asked, name => $name, task => $task, api => $api, url => $url, key => 'test-key', model => 'fake-tools', system => 'Be brief.',
		stream => $stream eq 'true' ? JSON::PP::true : JSON::PP::false, schema => \%schema, max_tokens => 500, temperature => 0.5
	};
}

sub test_conversation
{
	my ($asked, $reply, $ours, $theirs) = @_;
	my ($name, $task) = @$asked{qw(name task)};

	foreach my $i (0, 1)
	{
		is(text_of_request($ours->[$i]), text_of_request($theirs->[$i]), "$name: request $i");
	}
	is_deeply(
		$reply,
		$json->decode(sql("SELECT jsonb_build_object('answer', answer, 'tokens_in', tokens_in, 'tokens_out', tokens_out) FROM prometheus._step WHERE task_id = $task AND kind = 'chat' ORDER BY step DESC LIMIT 1")),
		"$name: the client reads what we read");
	return;
}

$ENV{PROM_TEST_KEY} = 'test-key';
$node->init;
$node->start;
$node->keep_sessions;
$node->create_extension;
sql(<<'EOSQL');
CREATE FUNCTION add(a int, b text) RETURNS text LANGUAGE sql AS 'SELECT ''added '' || b';
COMMENT ON FUNCTION add IS 'Adds a thing.';
SELECT prometheus_set_tool('add(int, text)');
EOSQL
my @asked = map { my $api = $_; map { converse($api, $_) } qw(true false) } sort keys %endpoints;
my ($out, $error);
IPC::Run::run([ 'node', "$directory/sdk.mjs" ], '<', \$json->encode(\@asked), '>', \$out, '2>', \$error, IPC::Run::timeout(60));
is($error, '', 'the clients are content');
my @requests = @{ $llm->requests };
my @replies = split /\n/, $out;
is(scalar @requests, 4 * @asked, 'each asked twice');
foreach my $i (0 .. $#asked)
{
	test_conversation($asked[$i], $json->decode($replies[$i] // '{}'), [ @requests[ 2 * $i, 2 * $i + 1 ] ],
		[ @requests[ 2 * (@asked + $i), 2 * (@asked + $i) + 1 ] ]);
}
$llm->stop;
$node->stop;
done_testing();
