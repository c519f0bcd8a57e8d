# A checker of consumers: sessions write events in every way that transactions
# have, others read them, and end in the middle of it, as does the server.  Each
# reader must be given each event once, whole, and in its order.
#
# Of a subject the writers number their events, under a lock, so that the numbers
# are in the order of commits; some of them have taken their xid long before.
# What a reader is given he writes down in the transaction that acknowledges it.
#
# PROM_EVENTS_SECONDS=N goes on for N seconds (4), with a crash every ten.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PromCluster;
use Test::More;
use Time::HiRes qw(time usleep);

use constant WRITERS => 5;

my $seconds = $ENV{PROM_EVENTS_SECONDS} // 4;
my $node = PromCluster->new('consumer');
$node->init(
	restart_after_crash => 1,
	conf => "prometheus.mark_interval = '50ms'\nmax_prepared_transactions = 4\nstatement_timeout = 0\n");
$node->start;
$node->create_extension;
my $stop = $node->data_dir . '/stop';

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(<<'EOSQL');
CREATE TABLE counter (subject text PRIMARY KEY, n bigint NOT NULL);
INSERT INTO counter SELECT 's' || n, 0 FROM generate_series(1, 6) n;
CREATE TABLE got (seq bigserial, consumer text, event_id bigint, type text, task_id bigint, agent text, subject text,
	created_at timestamptz, data jsonb, caused_by bigint);
CREATE TABLE stop ();
CREATE ROLE alice; GRANT prometheus_agent_user TO alice;
GRANT ALL ON counter, got, stop, got_seq_seq TO alice;

-- One transaction's events: some early, some after a lock, some undone.
CREATE PROCEDURE write_once(pause float) LANGUAGE plpgsql AS $$
DECLARE s text; k bigint;
BEGIN
	IF random() < 0.5 THEN
		PERFORM prometheus_emit('w.early');
		PERFORM pg_sleep(random() * pause);
	END IF;
	FOR s IN SELECT subject FROM counter WHERE random() < 0.4 ORDER BY subject LOOP
		UPDATE counter SET n = n + 1 WHERE subject = s RETURNING n INTO k;
		BEGIN
			PERFORM prometheus_emit('w.undone', '{}', s), 1 / (random() * 0)::int;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
		IF random() < 0.5 THEN
			PERFORM prometheus_emit('w.a.b', to_jsonb(k), s);
		ELSE
			BEGIN
				PERFORM prometheus_emit('w.a.c', to_jsonb(k), s);
			EXCEPTION WHEN division_by_zero THEN NULL;
			END;
		END IF;
	END LOOP;
	IF random() < 0.3 THEN
		PERFORM prometheus_submit('x');
	END IF;
	PERFORM pg_sleep(random() * pause);
END$$;

CREATE PROCEDURE write_on(pause float) LANGUAGE plpgsql AS $$
BEGIN
	WHILE NOT EXISTS (SELECT FROM stop) LOOP
		CALL write_once(pause);
		IF random() < 0.2 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END$$;

-- Acknowledges all, in the transaction of what it does; or a part; or later.
CREATE PROCEDURE read_on(who text, how text DEFAULT 'all') LANGUAGE plpgsql AS $$
DECLARE given prometheus.event[]; part int;
BEGIN
	LOOP
		SELECT array_agg(e) INTO given FROM prometheus_poll(who, (1 + random() * 40)::int) e;
		EXIT WHEN given IS NULL AND EXISTS (SELECT FROM stop);
		part := CASE how WHEN 'part' THEN 1 + floor(random() * cardinality(given)) ELSE cardinality(given) END;
		IF how = 'later' THEN
			COMMIT;
		END IF;
		INSERT INTO got (consumer, event_id, type, task_id, agent, subject, created_at, data, caused_by)
		SELECT who, e.* FROM unnest(given[:part]) e;
		IF how = 'later' THEN
			COMMIT;
		END IF;
		IF random() < 0.15 THEN
			ROLLBACK;
		ELSIF how = 'part' THEN
			PERFORM prometheus_ack(who, given[part].event_id) WHERE given IS NOT NULL;
			COMMIT;
		ELSE
			PERFORM prometheus_ack(who);
			COMMIT;
		END IF;
		IF given IS NULL THEN
			PERFORM pg_sleep(0.01);
		END IF;
	END LOOP;
END$$;

-- What many an outbox does: what is above the last id.
CREATE PROCEDURE read_by_id() LANGUAGE plpgsql AS $$
BEGIN
	WHILE NOT EXISTS (SELECT FROM stop) LOOP
		INSERT INTO got (consumer, event_id, type)
		SELECT 'by id', e.event_id, e.type FROM prometheus._event e
		 WHERE e.event_id > coalesce((SELECT max(g.event_id) FROM got g WHERE g.consumer = 'by id'), 0) ORDER BY e.event_id;
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END$$;

-- Some of the readers are ordinary users.
SELECT prometheus_create_consumer(c) FROM unnest(ARRAY['shared', 'part', 'later', 'idle']) c;
SELECT prometheus_create_consumer('some', '{w.a.*, task.*}');
SET ROLE alice;
SELECT prometheus_create_consumer('alice');
EOSQL

# A psql that begins again when it is ended, until all is to stop.
sub session
{
	my ($sql) = @_;
	my ($in, $out) = ('', '');
	return IPC::Run::start(
		[ 'bash', '-c', 'while psql -Xq -d "$1" <<<"$2"; [ ! -e "$3" ]; do sleep 0.1; done', 'session', $node->connstr('postgres'), $sql, $stop ],
		'<', \$in, '>&', \$out);
}

my @sessions = map { session($_) } (
	('CALL write_on(0.01)') x WRITERS,
	'CALL write_on(0.4)',
	"SET ROLE alice; CALL write_on(0.02)",
	("CALL read_on('shared')") x 3,
	"CALL read_on('part', 'part')",
	"CALL read_on('later', 'later')",
	"CALL read_on('some')",
	"SET ROLE alice; CALL read_on('alice')",
	'CALL read_by_id()');

# Meanwhile transactions are prepared, one of them for long, readers end, and the
# server crashes.
sql(q{BEGIN; SELECT prometheus_emit('w.early'); PREPARE TRANSACTION 'long'});
my $end = time + $seconds;
my $crash = time + ($seconds < 20 ? $seconds / 2 : 10);
for (my $n = 0; time < $end; $n++)
{
	$node->psql('postgres', "BEGIN; CALL write_once(0.02); PREPARE TRANSACTION 'p$n'");
	$node->psql('postgres',
		q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ 'read_on' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1})
	  if $n % 3 == 0;
	usleep(50_000);
	$node->psql('postgres', "COMMIT PREPARED 'p$n'");
	next if time < $crash;
	$crash = $seconds < 20 ? $end : time + 10;
	my ($rc, $pid) = $node->psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'prometheus publisher'});
	kill 'KILL', $pid if $rc == 0 && $pid;
	$node->wait_for('the server is back', 'SELECT true');
}
open my $file, '>', $stop or die "$stop: $!";
close $file;
$node->wait_for('the server takes it', q{SELECT true});
sql(q{INSERT INTO stop DEFAULT VALUES});
IPC::Run::finish($_) foreach @sessions;
sql("COMMIT PREPARED '$_'") foreach split /\n/, sql('SELECT gid FROM pg_prepared_xacts');
$node->worker_pid('publisher');
$node->wait_for('all tasks have ended',
	q{SELECT count(*) FROM prometheus.task WHERE ended_at IS NULL}, 0);

# An alert that is cleared is an event, too: nothing more comes from here on.
sql(q{SELECT count(prometheus_set_alert(name, 'off')) FROM prometheus.alert});
$node->wait_for('no alert is raised', q{SELECT count(*) FROM prometheus.alert WHERE status <> 'off'}, 0);

# What is left; one has not read at all until now.
sql("CALL read_on('$_')") foreach qw(shared part later some idle);
sql("SET ROLE alice; CALL read_on('alice')");

my $events = sql('SELECT count(*) FROM prometheus.event');
note "$events events";
cmp_ok($events, '>', 100, 'there were events');
sql(q{CREATE TABLE event AS SELECT e.*, row_number() OVER (PARTITION BY task_id ORDER BY created_at, event_id) AS nth,
		(SELECT t.submitter FROM prometheus.task t WHERE t.task_id = e.task_id) AS submitter,
		(SELECT x.emitter FROM prometheus._event x WHERE x.event_id = e.event_id) AS emitter FROM prometheus.event e;
	CREATE INDEX ON event (event_id); CREATE INDEX ON got (consumer, event_id); ANALYZE event; ANALYZE got});
my %wanted = (
	some => q{type ~ '^(w\.a|task)\.'},
	alice => q{'alice' IN (submitter, emitter)});
foreach my $consumer (qw(shared part later some idle alice))
{
	my $wanted = $wanted{$consumer} // 'true';
	my $first = qq{(SELECT DISTINCT ON (event_id) * FROM got WHERE consumer = '$consumer' ORDER BY event_id, seq)};
	my ($lost, $other, $twice, $subjects, $tasks) = split /\n/, sql(qq{
		SELECT count(*) FROM event e WHERE $wanted
		   AND NOT EXISTS (SELECT FROM got g WHERE g.consumer = '$consumer' AND g.event_id = e.event_id);
		SELECT count(*) FROM got g WHERE consumer = '$consumer' AND NOT EXISTS (
			SELECT FROM event e WHERE $wanted AND e.event_id = g.event_id
			   AND (e.type, e.task_id, e.agent, e.subject, e.created_at, e.data, e.caused_by)
			       IS NOT DISTINCT FROM (g.type, g.task_id, g.agent, g.subject, g.created_at, g.data, g.caused_by));
		SELECT count(*) - count(DISTINCT event_id) FROM got WHERE consumer = '$consumer';
		SELECT count(*) FROM (
			SELECT data::int AS n, lag(data::int) OVER (PARTITION BY subject ORDER BY seq) AS before FROM $first g
			 WHERE type ~ '^w.a') x WHERE n <= before;
		SELECT count(*) FROM (
			SELECT e.nth, lag(e.nth) OVER (PARTITION BY g.task_id ORDER BY g.seq) AS before
			  FROM $first g JOIN event e USING (event_id) WHERE g.task_id IS NOT NULL) x WHERE nth < before});

	is($lost, 0, "$consumer: none was lost");
	is($other, 0, "$consumer: none that is not in prometheus.event, or is other there");
	$consumer eq 'later' ? cmp_ok($twice, '>', 0, 'later: some came again')
	  : is($twice, 0, "$consumer: none came twice");
	is($subjects, 0, "$consumer: those of a subject in their order");
	is($tasks, 0, "$consumer: those of a task, too");
}
is(sql(q{SELECT count(*) FROM event WHERE type = 'w.undone'}), 0, 'what was undone is nowhere');
is( sql(q{SELECT count(*) FROM counter c WHERE n <> (SELECT count(*) FROM event e WHERE e.subject = c.subject AND e.type ~ '^w.a')}),
	0, 'and what was not undone is there');
cmp_ok(sql(q{SELECT count(*) FROM event e WHERE emitter IS NOT NULL AND NOT EXISTS (
		SELECT FROM got g WHERE g.consumer = 'by id' AND g.event_id = e.event_id)}),
	'>', 0, 'who reads by ids loses some: this would be noticed');
is(sql(q{SELECT count(*) FROM prometheus.consumer WHERE lag > 0}), 0, 'nobody lags behind');

# A poll reads what is new, and not what is behind it.
my ($pages) = sql(<<'EOSQL') =~ /Buffers: shared hit=(\d+)/;
SELECT count(prometheus_emit('w.many')) FROM generate_series(1, 30000);
SELECT count(*) FROM prometheus_poll('idle', 100000);
SELECT prometheus_ack('idle'), prometheus_emit('w.one');
SELECT count(*) FROM prometheus_poll('idle');
SELECT prometheus_ack('idle'), prometheus_emit('w.one');
EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM prometheus_poll('idle');
EOSQL
cmp_ok($pages, '<', 150, 'a poll at the end of 30,000 events reads few pages');

# A session that polls for long does not grow.
is(sql(<<'EOSQL'), 't', 'two thousand polls need no more memory than a hundred');
CREATE PROCEDURE poll_on(n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM prometheus_emit('w.one') WHERE i % 10 = 0;
		COMMIT;
		PERFORM count(*) FROM prometheus_poll('idle');
		PERFORM prometheus_ack('idle') WHERE i % 10 = 5;
		COMMIT;
	END LOOP;
END$$;
CREATE TEMP TABLE memory (bytes) AS SELECT 0::bigint;
CALL poll_on(100);
UPDATE memory SET bytes = (SELECT sum(used_bytes) FROM pg_backend_memory_contexts);
UPDATE memory SET bytes = (SELECT sum(used_bytes) FROM pg_backend_memory_contexts);
CALL poll_on(2000);
SELECT (SELECT sum(used_bytes) FROM pg_backend_memory_contexts) < bytes + 65536 FROM memory;
EOSQL

$node->stop;
done_testing();
