# Processes die around the delivery of events: none is lost, a function has each
# once, and a webhook is sent again with the same id.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;
my $round = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->init(restart_after_crash => 1, conf => "prometheus.max_crashes = 2\n");
$node->start;
$node->create_extension;
plan skip_all => 'the library was built without FAULTS=1'
  unless $node->has_faults;
sql(<<'EOSQL');
CREATE TABLE seen (event_id bigint, n int);
CREATE FUNCTION note(e prometheus.event) RETURNS void LANGUAGE sql AS $$INSERT INTO seen VALUES ((e).event_id, ((e).data ->> 'n')::int)$$;
CREATE FUNCTION crash(e prometheus.event) RETURNS void LANGUAGE plpgsql AS
	$$BEGIN EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'kill -9 ' || pg_backend_pid()); PERFORM pg_sleep(60); END$$;
SELECT prometheus_subscribe('note', 'note(prometheus.event)', types => '{round}', max_attempts => 100, breaker_failures => 1000);
EOSQL
sql(sprintf q{SELECT prometheus_subscribe('hook', url => '%s', types => '{round}', max_attempts => 100, breaker_failures => 1000)}, $llm->url('/hook/ok'));

foreach my $fault (
	'distribute-before-commit:die:2', 'distribute-before-commit:error:2', 'distribute-after-commit:die:2',
	'deliver-in-prepare:error:1', 'deliver-in-record:error:1', 'reply-half-read:die:1', 'reply-read:die:1',
	'deliver-before-commit:die:2', 'deliver-before-commit:error:2', 'deliver-after-commit:die:2', 'deliver-before-send:die:1', 'deliver-after-send:die:1',
	'job-before-give:die:1', 'job-begun:die:1', 'job-before-commit:die:1', 'job-before-commit:error:1', 'job-after-commit:die:1', 'job-before-take-back:die:1')
{
	my ($point, $action) = split /:/, $fault;

	$round++;
	$node->set_fault($fault);
	$node->psql('postgres', "SELECT prometheus_emit('round', '{\"n\": $round}') FROM generate_series(1, 5)");
	$node->wait_for("$fault: it was met", "SELECT count(*) > 0 FROM pg_ls_dir('.') f WHERE f = 'prometheus.fault.$point'");
	$node->wait_for("$fault: all is delivered",
		"SELECT count(*) FROM prometheus.delivery d JOIN prometheus.event e USING (event_id) WHERE e.data = '{\"n\": $round}' AND d.status = 'delivered'", 10);
	is(sql("SELECT count(*) || ' ' || count(DISTINCT event_id) FROM seen WHERE n = $round"), '5 5', "$fault: the function had each once");
	my %ids = map { $_->{headers}{'webhook-id'} => 1 } grep { $_->{body}{data}{n} == $round } @{ $llm->requests };
	is(scalar keys %ids, 5, "$fault: the webhook was sent each, however often");
}

# A function that crashes the server does so twice.
my $log = $node->log_end;
sql(q{SELECT prometheus_subscribe('crash', 'crash(prometheus.event)', types => '{crash}'); SELECT prometheus_emit('crash')});
$node->wait_for('it is a dead letter', q{SELECT concat_ws(' ', status, attempts, error) FROM prometheus.delivery WHERE subscription = 'crash'},
	'dead 2 the server crashed while its function ran');
is($node->log_count(qr/all server processes terminated; reinitializing/, $log), 2, 'it crashed the server twice');

# So does what reads the answer to a webhook.
$log = $node->log_end;
sql(sprintf q{SELECT prometheus_subscribe('poison', url => '%s', types => '{poison}'); SELECT prometheus_pause('subscription:poison'), prometheus_emit('poison')}, $llm->url('/hook/ok/poison'));
$node->set_fault('reply-half-read:die:1, reply-read:die:1');
sql(q{SELECT prometheus_resume('subscription:poison')});
$node->wait_for('it is a dead letter, too', q{SELECT concat_ws(' ', status, attempts, error) FROM prometheus.delivery WHERE subscription = 'poison'},
	'dead 2 the server crashed while its answer was read');
is($node->log_count(qr/all server processes terminated; reinitializing/, $log), 2, 'it crashed the server twice, too');

$node->stop;
$llm->stop;
done_testing();
