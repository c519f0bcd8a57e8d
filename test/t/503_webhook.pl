# Webhooks: signed, sent again with the same id, and what each answer means; the
# gate before a receiver that fails, and others that do not wait for it.
use strict;
use warnings FATAL => 'all';

use Encode qw(encode_utf8);
use FakeLLM;
use IPC::Run ();
use JSON::PP qw(encode_json);
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('webhook');
my $llm = FakeLLM->new;
my $secrets = PostgreSQL::Test::Utils::tempdir;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub write_secret
{
	my ($name, $text) = @_;
	append_to_file("$secrets/$name", $text);
	chmod 0600, "$secrets/$name" or die "chmod: $!";
	return;
}

# A webhook for the events of one type, which has its name.
sub hook
{
	my ($name, $path, $more) = @_;
	sql(sprintf q{SELECT prometheus_subscribe('%s', url => '%s', types => '{%s}'%s)},
		$name, $llm->url("/hook/$path"), $name, $more ? ", $more" : '');
	return;
}

sub wait_delivery
{
	my ($name, $expected, $columns) = @_;
	$columns //= "concat_ws(' ', status, attempts, http_status)";
	$node->wait_for("the delivery of $name", "SELECT $columns FROM prometheus.delivery WHERE subscription = '$name' ORDER BY event_id LIMIT 1", $expected);
	pass("$name: $expected");
	return;
}

sub requests_of { return grep { $_->{path} =~ m{^/hook/$_[0]} } @{ $llm->requests }; }

my $good = 'whsec_' . encode_base64('a key of the tests, 32 bytes long', '');
write_secret('good', $good);
write_secret('other', 'whsec_' . encode_base64('another key of the tests, of whom', ''));
write_secret('bad', 'whsec_none');
$node->init(conf => "prometheus.secrets_dir = '$secrets'\n");
$node->start;
$node->create_extension;

# What is sent.

hook('signed', 'ok/signed', "secret => 'good'");
hook('unsigned', 'ok/unsigned');
hook('foreign', 'ok/foreign', "secret => 'other', max_attempts => 1");
hook('keyless', 'ok/keyless', "secret => 'bad', max_attempts => 1");
hook('again', 'status/500/1', "secret => 'good'");
hook('gone', 'status/410', "secret => 'good'");
hook('later', 'status/429/1', "secret => 'good'");
hook('busy', 'status/503/1', "secret => 'good'");
hook('moved', 'status/302', 'max_attempts => 1');
hook('refused', 'status/422', 'max_attempts => 1');
hook('hung', 'hang', "timeout => '300ms', max_attempts => 1");
hook('reset', 'reset', 'max_attempts => 1');
sql(q{SELECT prometheus_emit(name, '{"ä": 1}', 'about/' || name) FROM prometheus.subscription});

wait_delivery('signed', 'delivered 1 200 signed', "concat_ws(' ', status, attempts, http_status, result)");
wait_delivery('unsigned', 'delivered 1 200 unsigned', "concat_ws(' ', status, attempts, http_status, result)");
wait_delivery('foreign', 'dead 1 401');
wait_delivery('keyless', 'dead 1');
wait_delivery('again', 'delivered 2 200');
wait_delivery('later', 'delivered 1 200');
wait_delivery('busy', 'delivered 2 200');
wait_delivery('moved', 'dead 1 302');
wait_delivery('refused', 'dead 1 422');
wait_delivery('hung', 'dead 1');
wait_delivery('reset', 'dead 1');
$node->wait_for('the endpoint that is gone disables its subscription',
	q{SELECT concat_ws(' ', s.state, d.status, d.attempts, d.http_status) FROM prometheus.subscription s JOIN prometheus.delivery d ON d.subscription = s.name WHERE s.name = 'gone'},
	'disabled waiting 0 410');
like($node->health('subscriptions'), qr/^warning\|.*disabled: gone/, 'health says so');
is($llm->stats->{elsewhere}, 0, 'no redirect was followed');

my ($first) = requests_of('ok/signed');
my $event = sql(q{SELECT concat_ws(' ', event_id, type, subject) FROM prometheus.event WHERE type = 'signed'});
is("$first->{body}{id} $first->{body}{type} $first->{body}{subject}", $event, 'the body is the event');
is_deeply($first->{body}{data}, { "\x{e4}" => 1 }, 'with its data');
is($first->{body}{timestamp}, $first->{body}{time}, 'and its time, in two names');
my @again = requests_of('status/500');
my %ids = map { $_->{headers}{'webhook-id'} => 1 } @again;
is(@again . ' ' . keys %ids, '2 1', 'sent again with the same id');
cmp_ok($again[0]{headers}{'webhook-timestamp'}, '<=', $again[1]{headers}{'webhook-timestamp'}, 'of its own time');
my @ids = map { $_->{headers}{'webhook-id'} } requests_of('ok/(?:un)?signed');
isnt($ids[0], $ids[1], 'ids of two subscriptions differ');

# The reference library believes it, and nothing else.

SKIP:
{
	my ($out, $err);

	skip 'node has no standardwebhooks', 1
	  if !eval { IPC::Run::run([ 'node', '-e', q{require('standardwebhooks')} ], '>&', \my $nothing) };
	my @requests = ($first, @again, requests_of('ok/foreign'), { %$first, raw => "$first->{raw} " },
		{ %$first, headers => { %{ $first->{headers} }, 'webhook-timestamp' => $first->{headers}{'webhook-timestamp'} + 1 } });
	my $in = join '', map { encode_json($_) . "\n" } @requests;
	IPC::Run::run([ 'node', 'test/examples/webhook.js', $good ], '<', \$in, '>', \$out, '2>', \$err) or diag($err);
	is($out, encode_utf8(qq{signed {"\x{e4}":1}\nagain {"\x{e4}":1}\nagain {"\x{e4}":1}\n}) . "refused: No matching signature found\n" x 3,
		'the reference library from npm says the same');
}

# The gate.

hook('failing', 'status/500', 'max_attempts => 20, breaker_failures => 3');
sql(q{SELECT prometheus_emit('failing') FROM generate_series(1, 20)});
$node->wait_for('its gate is closed', q{SELECT state || ' ' || reason FROM prometheus.gate WHERE target = 'subscription:failing'}, 'closed deliveries failed in a row');
sql(q{SELECT prometheus_emit('signed')});
$node->wait_for('others go on', q{SELECT count(*) FROM prometheus.delivery WHERE subscription = 'signed' AND status = 'delivered'}, 2);
is(sql(q{SELECT concat_ws(' ', count(*), sum(attempts) < 20) FROM prometheus.delivery WHERE subscription = 'failing' AND status = 'waiting'}),
	'20 t', 'what waits uses up no attempts');
$node->wait_for('that is an event', q{SELECT count(*) FROM prometheus.event WHERE type = 'gate.closed' AND subject = 'subscription:failing' AND data ->> 'reason' = 'failures' AND data ? 'until'}, 1);
hook('failing', 'ok/failing', 'max_attempts => 20');
$node->wait_for('when it is well, all are delivered', q{SELECT count(*) FROM prometheus.delivery WHERE subscription = 'failing' AND status = 'delivered'}, 20);
$node->wait_for('so is that it is open', q{SELECT count(*) FROM prometheus.event WHERE type = 'gate.opened' AND data = '{"target": "subscription:failing"}'}, 1);
$node->check_event_fields('gate.closed', 'gate.opened');

# A pause; and one that is removed.

sql(q{SELECT prometheus_pause('subscription:signed')});
$node->wait_for('it is paused', q{SELECT state FROM prometheus.gate WHERE target = 'subscription:signed'}, 'paused');
sql(q{SELECT prometheus_emit('signed'), prometheus_emit('unsigned')});
$node->wait_for('the other is delivered', q{SELECT count(*) FROM prometheus.delivery WHERE subscription = 'unsigned' AND status = 'delivered'}, 2);
is(sql(q{SELECT count(*) FROM prometheus.delivery WHERE subscription = 'signed' AND status = 'waiting'}), 1, 'the paused one waits');
sql(q{SELECT prometheus_resume('subscription:signed')});
$node->wait_for('resumed, it is delivered', q{SELECT count(*) FROM prometheus.delivery WHERE subscription = 'signed' AND status = 'delivered'}, 3);
sql(q{SELECT prometheus_unsubscribe('hung')});
is(sql(q{SELECT count(*) FROM prometheus.delivery WHERE subscription = 'hung'}), 0, 'what is removed has no deliveries');

# What somebody has locked, others do not wait for.

hook('held', 'slow/4000');
sql(q{SELECT prometheus_emit('held')});
$node->wait_for('it is under way', q{SELECT in_flight FROM prometheus.gate WHERE target = 'subscription:held'}, 1);
my $session = $node->background_psql('postgres');
$session->query_safe(q{BEGIN; SELECT prometheus_unsubscribe('held')});
$node->wait_for('it is answered', sprintf q{SELECT pg_read_file('%s') ~ 'canceling statement due to lock timeout'}, $node->logfile);
sql(q{SELECT prometheus_emit('signed') FROM generate_series(1, 3)});
$node->wait_for('others are delivered', q{SELECT count(*) FROM prometheus.delivery WHERE subscription = 'signed' AND status = 'delivered'}, 6);
$session->query_safe('ROLLBACK');
$session->quit;
wait_delivery('held', 'delivered 1 200');
is(scalar(requests_of('slow')), 1, 'it was sent once');

# Who may not see a subscription hears nothing of its name.

sql('CREATE ROLE carol; GRANT prometheus_agent_user TO carol');
hook('secret.plan', 'status/500', 'breaker_failures => 1');
sql(q{SELECT prometheus_emit('secret.plan'), prometheus_emit('signed'); SELECT prometheus_pause('subscription:signed')});
$node->wait_for('one gate is closed, one paused', q{SELECT count(*) FROM prometheus.gate WHERE target IN ('subscription:secret.plan', 'subscription:signed') AND state <> 'open'}, 2);
is(sql(q{SET ROLE carol; SELECT count(*) FROM prometheus.gate WHERE target LIKE 'subscription:%'}), 0, 'no gate');
is(sql(q{SET ROLE carol; SELECT count(*) FROM prometheus._gates() WHERE target LIKE 'subscription:%'}), 0, 'not by the function either');
is(sql(q{SET ROLE carol; SELECT count(*) FROM prometheus_health() WHERE value ~ 'secret.plan|signed|foreign|gone'}), 0, 'nothing in health');
like(sql(q{SET ROLE carol; SELECT value FROM prometheus_health() WHERE check_name = 'gates'}), qr/^\d of others' subscriptions$/, 'but how many');
$node->wait_for('an administrator sees all, whenever it is closed',
	q{SELECT value ~ 'subscription:secret.plan is closed' FROM prometheus_health() WHERE check_name = 'gates'}, 't');

# Gates are given back, so many subscriptions may come one after the other.

sql(q{SELECT prometheus_unsubscribe(name) FROM prometheus.subscription});
foreach my $round (1 .. 3)
{
	sql("SET prometheus.max_subscriptions = 256; DO \$\$BEGIN FOR n IN 1 .. 256 LOOP PERFORM prometheus_subscribe('$round/' || n, url => 'https://127.0.0.1:1/', types => '{none}'); END LOOP; END\$\$");
	$node->wait_for("$round: each has a gate", "SELECT count(*) FROM prometheus.gate WHERE target LIKE 'subscription:$round/%'", 256);
	my ($rc, undef, $error) = $node->psql('postgres', q{SELECT prometheus_subscribe('one more', url => 'https://127.0.0.1:1/')});
	like($error, qr/there are 256 subscriptions already/, "$round: another one would have none");
	sql('SELECT prometheus_unsubscribe(name) FROM prometheus.subscription');
}
$node->wait_for('there are none left', q{SELECT count(*) FROM prometheus.gate WHERE target LIKE 'subscription:%'}, 0);

$node->stop;
$llm->stop;
done_testing();
