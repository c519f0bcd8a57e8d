# Embeddings of memories, which a model makes in the background: what is
# recalled by them, what becomes of texts and models that fail, and of a caller
# that ends in between.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use JSON::PP;
use PromCluster;
use Test::More;
use Time::HiRes qw(time);

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Make an agent whose memories a model embeds that behaves so.
sub agent
{
	my ($name, $behaviour, %params) = @_;
	my $options = $params{options} // '{}';

	sql(sprintf q{SELECT prometheus_set_model('m-%s', 'openai', '%s', '%s', %s, options => '%s');
		SELECT prometheus_set_agent('%s', 'echo', options => '{"embedding_model": "m-%s"}')},
		$name, $params{url} // $llm->url('/v1'), $behaviour,
		defined $params{secret} ? "'$params{secret}'" : 'NULL', $options, $name, $name);
	return $name;
}

sub remember
{
	my ($agent, @contents) = @_;
	sql("SELECT prometheus_remember('$agent', '$_')") foreach @contents;
	return;
}

# So many memories of an agent have one, in the space of now.
sub wait_embedded
{
	my ($agent, $n, $space) = @_;
	my $where = defined $space ? " AND space = '$space'" : '';

	$node->wait_for("$agent: $n embeddings", "SELECT count(*) FROM prometheus.memory_embedding WHERE agent = '$agent' AND error IS NULL$where", $n);
	return;
}

sub recalled
{
	my ($agent, $query, $more) = @_;
	return sql(sprintf "SELECT content FROM prometheus_recall('%s', '%s', k => 1%s)", $agent, $query, $more // '');
}

sub asked
{
	my ($model) = @_;
	return grep { $_->{path} =~ m{/embeddings$} && (!defined $model || $_->{body}{model} eq $model) } @{ $llm->requests };
}

$node->init(restart_after_crash => 1, conf => "prometheus.allow_private_endpoints = on\n");
$node->start;
$node->create_extension;

# Nobody has the option: nobody is asked.

remember('plain', 'The dog sleeps.');
is(sql(q{SELECT count(*) FROM prometheus.memory_embedding}), 0, 'no agent has a model for embeddings');

# What was remembered before the option, and after it.

remember('one', 'The puppy sleeps in the kitchen.', 'An automobile is in the yard.', 'Water is wet.');
agent('one', 'fake-embed', options => '{"price_in": 2}');
wait_embedded('one', 3, 'fake-embed');
is(sql(q{SELECT DISTINCT dimensions FROM prometheus.memory_embedding}), 256, 'as long as the model makes them');
my @asked = asked();
is(scalar @asked, 1, 'they were asked for together');
is_deeply([ sort keys %{ $asked[0]{body} } ], [qw(encoding_format input model)], 'with what a server knows');
is(sql(q{SELECT concat_ws(' ', agent, model, texts, tokens, cost, http_status, error_type) FROM prometheus.embedding_call}), 'one m-one 3 21 0.000042 200', 'the request is there, and what it cost')
  or diag(sql('SELECT * FROM prometheus.embedding_call'));
is(sql(q{SELECT count(*) FROM prometheus._memory}), 4, 'a memory has no other version for that');
remember('one', 'A vessel is on the ocean.');
wait_embedded('one', 4);
is(scalar asked(), 2, 'and the next one alone');
is(sql(q{SELECT count(*) FROM prometheus.memory_embedding WHERE agent = 'plain'}), 0, 'other agents have none');

# By words it is not found; with the embedding of the query it is.

sub embedded_query
{
	my ($query) = @_;
	my $reply = $llm->{http}->post($llm->url('/v1/embeddings'), { content => JSON::PP::encode_json({ model => 'fake-embed', input => [$query], encoding_format => 'float' }) });
	return join ',', @{ JSON::PP::decode_json($reply->{content})->{data}[0]{embedding} };
}
my $hound = embedded_query('hound');
isnt(recalled('one', 'hound'), 'The puppy sleeps in the kitchen.', 'words do not know what a hound is');
is(recalled('one', 'hound', ", embedding => '{$hound}'"), 'The puppy sleeps in the kitchen.', 'an embedding does');
is(recalled('one', 'car', sprintf(", embedding => '{%s}'", embedded_query('car'))), 'An automobile is in the yard.', '... and a car');
is(recalled('one', '', ", embedding => '{1,2,3}'") ne '', 1, 'one of another length is as none');

# A query that is known: here because somebody remembers the same.
remember('two', 'hound');
agent('two', 'fake-embed');
wait_embedded('two', 1);
is(recalled('one', 'hound'), 'The puppy sleeps in the kitchen.', 'a text that was embedded before needs no embedding');
my $before = asked();
remember('one', 'hound');
wait_embedded('one', 5);
is(scalar asked(), $before, 'nor is it asked for again');
is(sql(q{SELECT count(*) FROM prometheus._embedding WHERE hash IN (SELECT hash FROM prometheus._memory_embedding GROUP BY hash HAVING count(*) > 1)}), 1, 'it is stored once');
sql(q{SELECT prometheus_forget(memory_id) FROM prometheus.memory WHERE agent = 'one' AND content = 'hound'});
is(recalled('one', 'hound'), 'The puppy sleeps in the kitchen.', 'what is forgotten is not found');

# Of others nothing is seen.
sql(q{CREATE ROLE eve IN ROLE prometheus_agent_user});
is(sql(q{SET ROLE eve; SELECT count(*) FROM prometheus.memory_embedding; SELECT count(*) FROM prometheus_recall('one', 'hound')}), "0\n0", 'nobody sees those of others');
like(($node->psql('postgres', 'SET ROLE eve; SELECT FROM prometheus.embedding_call'))[2], qr/permission denied/, 'what was asked is for administrators');

# One that is given counts, and is not asked for.
sql("SELECT prometheus_remember('one', 'A given one.', embedding => '{$hound}')");
remember('one', 'The last one.');
wait_embedded('one', 5);
is(sql(q{SELECT count(*) FROM prometheus.memory_embedding e JOIN prometheus.memory m USING (memory_id) WHERE m.content = 'A given one.'}), 0, 'one that came with an embedding keeps it');
is(recalled('one', 'hound'), 'A given one.', 'both are compared');
is(sql("SELECT string_agg(content, '|') FROM prometheus_recall('one', 'zzz', embedding => '{$hound}', k => 2)"), 'A given one.|The puppy sleeps in the kitchen.', '... with each other');

# AS OF.
sql(q{SELECT prometheus_mark('then')});
remember('one', 'A hound and a puppy and a dog, a hound.');
wait_embedded('one', 6);
is(sql(q{SELECT count(*) FROM prometheus_recall('one', 'hound', k => 100) WHERE content LIKE 'A hound and%'}), 1, 'now it is there');
is(sql(q{SET prometheus.as_of = 'mark:then'; SELECT count(*) FROM prometheus_recall('one', 'hound', k => 100) WHERE content LIKE 'A hound and%'}), 0, 'then it was not');
is(sql(q{SET prometheus.as_of = 'mark:then'; SELECT count(*) FROM prometheus.memory_embedding WHERE agent = 'one'}), 5, '... nor was its embedding');

# Another model, or other dimensions: they are made anew, and only those count.

sql(q{SELECT prometheus_set_model('m-one', options => '{"extra_body": {"dimensions": 32}}')});
wait_embedded('one', 6, 'fake-embed {"dimensions": 32}');
is(sql(q{SELECT count(*) FROM prometheus_recall('one', 'hound') WHERE content = 'An automobile is in the yard.'}), 0, 'a query of the other space is none');
sql(q{SELECT prometheus_set_model('m-one', options => '{"extra_body": null, "max_concurrent": 2}')});
$before = asked();
is(recalled('one', 'hound'), 'A hound and a puppy and a dog, a hound.', 'back again: all is there');
remember('one', 'So it goes.');
wait_embedded('one', 7, 'fake-embed');
is(scalar asked(), $before + 1, 'and nothing is asked for twice');
sql(q{SELECT prometheus_set_agent('one', options => '{"embedding_model": null}')});
remember('one', 'Nobody embeds this.');
isnt(recalled('one', 'kitten'), '', 'without the option words are as before');
is(sql(q{SELECT count(*) FROM prometheus.memory_embedding e JOIN prometheus.memory m USING (memory_id) WHERE m.content = 'Nobody embeds this.'}), 0, 'nobody is asked any more');

# Replies that are none: nothing is written, and it is asked again.

foreach my $what (qw(few many twice noindex nodata base64 ragged zero empty huge nan word null))
{
	agent("bad-$what", "fake-embed-$what");
	remember("bad-$what", 'one', 'two');
}
$node->wait_for('all have failed', q{SELECT count(DISTINCT agent) FROM prometheus.embedding_call WHERE agent LIKE 'bad-%' AND error_type = 'ModelUnreadable'}, 13);
is(sql(q{SELECT count(*) FROM prometheus._memory_embedding WHERE agent LIKE 'bad-%'}), 0, 'nothing that cannot be read is written');
is(sql(q{SELECT count(*) FROM prometheus.embedding_call WHERE agent LIKE 'bad-%' AND error !~ '^model server''s reply is unusable: '}), 0, 'each says so')
  or diag(sql(q{SELECT agent, error FROM prometheus.embedding_call}));
my ($failing) = grep { /^embeddings\|/ } split /\n/, sql('SELECT check_name, status, value FROM prometheus_health()');
like($failing, qr/^embeddings\|warning\|.*13 agents.*unusable/, 'prometheus_health() says so');
sql(q{SELECT prometheus_set_model('m-bad-' || w, model => 'fake-embed') FROM unnest('{few,many,twice,noindex,nodata,base64,ragged,zero,empty,huge,nan,word,"null"}'::text[]) w});
$node->wait_for('when it is repaired, all get theirs', q{SELECT count(*) FROM prometheus.memory_embedding WHERE agent LIKE 'bad-%' AND error IS NULL}, 26);
$node->wait_for('... and health is well', q{SELECT status FROM prometheus_health() WHERE check_name = 'embeddings'}, 'ok');

# A text that the model refuses: it alone has none, and is not tried again.

my $long = 'long ' x 20;
agent('long', 'fake-embed-long-50');
sql("SELECT prometheus_remember('long', c) FROM unnest(ARRAY['short', '$long', 'brief', 'tiny', 'small']) c");
wait_embedded('long', 4);
$node->wait_for('the long one is marked', q{SELECT concat_ws('|', content = repeat('long ', 20), dimensions, error) FROM prometheus.memory_embedding JOIN prometheus.memory USING (memory_id) WHERE error IS NOT NULL},
	q{t|model server answered HTTP 400: This model's maximum context length is 50 tokens.});
$before = asked();
remember('long', 'another');
wait_embedded('long', 5);
$node->restart;
remember('long', 'and another');
wait_embedded('long', 6);
is(scalar(grep { "@{$_->{body}{input}}" =~ /long/ } splice @{ [ asked() ] }, $before), 0, 'it is not asked for again, by no caller');

# What fails for one text, again and again, does not hold up others.
agent('poison', 'fake-embed-poison', options => '{"breaker_failures": 1000}');
sql(q{SELECT prometheus_remember('poison', c) FROM unnest('{sweet,POISON,sour,bitter}'::text[]) c});
wait_embedded('poison', 3);
is(sql(q{SELECT count(*) FROM prometheus._memory_embedding WHERE agent = 'poison'}), 3, 'nothing is said of the one that failed');
# ... nor those that come while it is left out.
remember('poison', 'later');
wait_embedded('poison', 4);

# A key that is refused, and one that is not in a row or the log.
sql(q{SELECT prometheus_forget(memory_id) FROM prometheus.memory WHERE content = 'POISON'});
agent('key', 'fake-401');
remember('key', 'secret');
$node->wait_for('the key is refused', q{SELECT count(*) > 0 FROM prometheus.embedding_call WHERE agent = 'key' AND error_type = 'ConfigurationError' AND http_status = 401}, 't');
is(sql(q{SELECT count(*) FROM prometheus.embedding_call WHERE error LIKE '%1234567890%'}), 0, 'no part of it is stored');
is($node->log_count(qr/1234567890abc/), 0, 'nor in the log');
sql(q{SELECT prometheus_set_model('m-key', model => 'fake-embed')});
wait_embedded('key', 1);

# Too many requests: it waits as long as it was asked to, and the gate says so.
agent('busy', 'fake-429-whole-then-ok');
remember('busy', 'busy');
wait_embedded('busy', 1);
is(sql(q{SELECT string_agg(http_status::text, ',' ORDER BY call_id) FROM prometheus.embedding_call WHERE agent = 'busy'}), '429,200', 'it came again');
cmp_ok(sql(q{SELECT extract(epoch FROM max(sent_at) - min(sent_at)) FROM prometheus.embedding_call WHERE agent = 'busy'}), '>=', 1, 'not before it was asked to');

# A model that is paused, and an agent: nobody is asked meanwhile.
agent('paused', 'fake-embed');
$node->pause('model:m-paused');
remember('paused', 'patient');
$node->wait_task($node->submit(q{'x'}), 'completed');
is(sql(q{SELECT count(*) FROM prometheus.memory_embedding WHERE agent = 'paused'}), 0, 'while the model is paused nothing is made');
$node->pause('agent:paused');
sql(q{SELECT prometheus_resume('model:m-paused')});
$node->wait_task($node->submit(q{'x'}), 'completed');
is(sql(q{SELECT count(*) FROM prometheus.memory_embedding WHERE agent = 'paused'}), 0, '... nor while the agent is');
sql(q{SELECT prometheus_resume('agent:paused')});
wait_embedded('paused', 1);

# Many, and a caller that ends in the middle of them, at whatever moment.
agent('many', 'fake-embed-slow-20');
sql(q{SELECT prometheus_remember('many', 'thing number ' || n) FROM generate_series(1, 1000) n});
for my $kill (1 .. 10)
{
	$node->wait_for('some more', sprintf q{SELECT count(*) >= %d FROM prometheus._memory_embedding WHERE agent = 'many'}, 60 * $kill);
	$node->signal_worker('KILL', 'caller');
	$node->wait_for('the server is back', 'SELECT 1', 1);
}
wait_embedded('many', 1000);
is(sql(q{SELECT count(DISTINCT memory_id) FROM prometheus.memory_embedding WHERE agent = 'many'}), 1000, 'each of a thousand has one, whatever was killed');
is(recalled('many', 'thing number 77'), 'thing number 77', 'and is found');

# In full mode what is looked for is embedded first, by a call of the task.

sub full
{
	my ($name, $behaviour, %params) = @_;
	agent($name, $behaviour, %params);
	$node->fake_agent($llm, 'fake-mind', name => "mind-$name");
	sql(qq{SELECT prometheus_set_agent('$name', 'mind-$name', mode => 'full')});
	return;
}

sub run
{
	my ($agent, $request) = @_;
	my $task = $node->submit("'$request', '$agent'");
	$node->wait_task($task, 'completed');
	return $task;
}

sub steps { return sql("SELECT string_agg(concat_ws(' ', kind, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $_[0] AND kind <> 'review'"); }

sub told { return sql("SELECT output #>> '{semantic,0,content}' FROM prometheus.step WHERE task_id = $_[0] AND kind = 'recall'"); }

full('full', 'fake-embed', options => '{"price_in": 3}');
remember('full', 'The kitten has white paws.', 'An automobile is in the yard.', 'Salt is a mineral of the sea.');
wait_embedded('full', 3);
my $task = run('full', 'tomcat');
is(steps($task), 'embed ok, recall ok, plan ok, chat ok, reflect ok', 'the request is embedded before the recall');
is(told($task), 'The kitten has white paws.', 'what means the same is recalled');
is(sql("SELECT concat_ws('|', name, model, tokens_in, tokens_out, cost, input, output) FROM prometheus.step WHERE task_id = $task AND kind = 'embed'"),
	'm-full|fake-embed|2|0|0.000006|{"query": "tomcat"}|{"dimensions": 256}', 'the step says what it was and what it cost');
is(sql("SELECT concat_ws('|', kind, target, status, turn, call) FROM prometheus.call WHERE task_id = $task AND kind = 'embed'"), 'embed|model:m-full|done|0|3', 'it is a call of the task');
is(sql("SELECT prometheus_prompt($task, step) FROM prometheus.step WHERE task_id = $task AND kind = 'embed'"), '{"input": ["tomcat"], "model": "fake-embed", "encoding_format": "float"}', '... which can be shown');
is(sql("SELECT sum(calls) || ' ' || sum(tokens_in) FROM prometheus.usage WHERE model = 'fake-embed' AND agent = 'full'"), '1 2', 'and it is counted');
is(sql("SELECT string_agg(name || ' ' || (attributes ->> 'gen_ai.operation.name'), ',') FROM prometheus.span WHERE attributes ->> 'prometheus.task_id' = '$task' AND name LIKE 'embed%'"), 'embeddings fake-embed embeddings', 'its span is of embeddings');
$task = run('full', 'tomcat');
is(steps($task), 'recall ok, plan ok, chat ok, reflect ok', 'the same is not asked again');
is(told($task), 'The kitten has white paws.', '... and recalls the same');

# Whatever fails: it recalls by words.
foreach my $case (
	[ 'fake-401', qr/HTTP 401/ ], [ 'fake-500', qr/HTTP 500/ ], [ 'fake-429', qr/HTTP 429/ ], [ 'fake-embed-zero', qr/all 0/ ],
	[ 'fake-embed-nan', qr/unusable/ ], [ 'fake-reset', qr/closed the connection|lost/ ])
{
	my ($behaviour, $error) = @$case;
	full("f-$behaviour", $behaviour);
	sql("SELECT prometheus_remember('f-$behaviour', 'Salt is a mineral.', embedding => '{1,2}')");
	$task = run("f-$behaviour", 'salt');
	is(steps($task), 'embed error, recall ok, plan ok, chat ok, reflect ok', "$behaviour: the task goes on");
	is(told($task), 'Salt is a mineral.', '... by words');
	like(sql("SELECT error FROM prometheus.step WHERE task_id = $task AND kind = 'embed'"), $error, '... and its step says why');
}

# A gate that is closed, and a budget that is used up: nothing is sent.
$node->pause('model:m-full');
$task = run('full', 'salt of the ocean');
is(sql("SELECT concat_ws('|', status, error) FROM prometheus.step WHERE task_id = $task AND kind = 'embed'"), 'error|there is no way to its model now', 'through a closed gate nothing is sent');
sql(q{SELECT prometheus_resume('model:m-full'), prometheus_set_budget('model:m-full', 'month', tokens => 1)});
$task = run('full', 'pepper');
like(sql("SELECT error FROM prometheus.step WHERE task_id = $task AND kind = 'embed'"), qr/^budget model:m-full per month is used up/, 'nor without money');
is(scalar(grep { "@{$_->{body}{input}}" =~ /^(salt of the ocean|pepper)$/ } asked()), 0, 'and nothing was');

# Many at once, in the same turns of the caller.
$node->fake_agent($llm, 'fake-mind', name => 'plain-mind');
sql(q{SELECT prometheus_set_agent('plain-mind', mode => 'full'), prometheus_set_budget('model:m-full', 'month', tokens => 1000000)});
sql(qq{SELECT prometheus_submit_many(ARRAY(SELECT 'query ' || n % 7 FROM generate_series(1, 60) n), '$_')}) foreach qw(plain-mind full);
$node->wait_for('all have ended', q{SELECT count(*) FROM prometheus.task WHERE request LIKE 'query _' AND status = 'completed'}, 120);
is(sql(q{SELECT count(*) FROM prometheus.step s JOIN prometheus.task t USING (task_id) WHERE t.request LIKE 'query _' AND s.kind = 'recall' AND s.status = 'ok'}), 120, 'many at once');
is(sql(q{SELECT string_agg(DISTINCT s.status, ',') FROM prometheus.step s JOIN prometheus.task t USING (task_id) WHERE t.request LIKE 'query _' AND s.kind = 'embed'}), 'ok', '... each with its embedding');
is($node->log_count(qr/terminated by signal 11/), 0, 'and nobody crashed');

# A cancel meanwhile, and a caller that dies meanwhile.
full('hang', 'fake-hang-before-headers');
$task = $node->submit(q{'a car', 'hang'});
$node->wait_for('it is asked', "SELECT status FROM prometheus.call WHERE task_id = $task AND kind = 'embed'", 'open');
sql("SELECT prometheus_cancel($task)");
$node->wait_task($task, 'cancelled');
is(sql("SELECT status FROM prometheus.call WHERE task_id = $task AND kind = 'embed'"), 'ambiguous', 'a cancel drops it');
$task = $node->submit(q{'a car', 'hang'});
$node->wait_for('it is asked', "SELECT status FROM prometheus.call WHERE task_id = $task AND kind = 'embed'", 'open');
sql(q{SELECT prometheus_set_model('m-hang', model => 'fake-embed')});
$node->signal_worker('KILL', 'caller');
$node->wait_for('the server is back', 'SELECT 1', 1);
$node->wait_task($task, 'completed');
is(steps($task), 'embed ok, recall ok, plan ok, chat ok, reflect ok', 'the next attempt asks again');
is(sql("SELECT string_agg(status, ',' ORDER BY call_id) FROM prometheus.call WHERE task_id = $task AND kind = 'embed'"), 'ambiguous,done', 'both calls are there');

# What came without a hint, as from a dump: when all is resumed.
sql(q{INSERT INTO prometheus._memory (memory_id, version, xid, mark, created_at, owner_oid, importance, forgotten, owner, agent, kind, content, metadata, words)
	SELECT -1, 1, prometheus._xid(), mark, created_at, owner_oid, importance, forgotten, owner, agent, kind, 'restored', metadata, words FROM prometheus._memory WHERE agent = 'two'});
sql(q{SELECT prometheus_resume()});
wait_embedded('two', 2);

# At rest nobody is asked, and nothing is read.
sql(q{SELECT prometheus_set_agent(name, options => '{"embedding_model": null}') FROM prometheus.agent WHERE name LIKE 'f-%'});
$node->wait_for('all is made', q{SELECT count(*) FROM prometheus.memory m WHERE agent IN ('full', 'hang') AND NOT EXISTS (SELECT FROM prometheus.memory_embedding e WHERE e.memory_id = m.memory_id)}, 0);
my $calls = asked();
sql(q{SELECT prometheus_remember('plain', 'quiet')});
is(scalar asked(), $calls, 'at rest no model is asked');

# An agent that nobody has any more, and a role.
is($node->log_count(qr/PANIC|TRAP|ERROR:  could not/), 0, 'nothing untoward is in the log');

$node->stop;
done_testing();
