# Subscriptions: events are pushed to functions, once each, as their owners; what
# fails is tried again, and in the end is a dead letter.
use strict;
use warnings FATAL => 'all';

use PromCluster;
use Test::More;
use Time::HiRes qw(usleep);

my $node = PromCluster->new('subscription');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub deliveries
{
	my ($name) = @_;
	return sql("SELECT string_agg(concat_ws(' ', status, n), ', ' ORDER BY status) FROM (SELECT status, count(*) AS n FROM prometheus.delivery WHERE subscription = '$name' GROUP BY status) x");
}

sub wait_deliveries
{
	my ($name, $expected) = @_;
	$node->wait_for("deliveries of $name",
		"SELECT coalesce(string_agg(concat_ws(' ', status, n), ', ' ORDER BY status), '') FROM (SELECT status, count(*) AS n FROM prometheus.delivery WHERE subscription = '$name' GROUP BY status) x",
		$expected);
	pass("$name: $expected");
	return;
}

# All of it by hints: nobody looks for what came without one.
$node->init(conf => "prometheus.rescan_interval = '1h'\n");
$node->start;
$node->create_extension;
sql(<<'EOSQL');
CREATE ROLE alice; CREATE ROLE bob;
GRANT prometheus_agent_user TO alice, bob;
GRANT CREATE ON SCHEMA public TO alice, bob;
CREATE TABLE seen (id int GENERATED ALWAYS AS IDENTITY, who text, event_id bigint, type text, subject text, data jsonb, backend int DEFAULT pg_backend_pid());
GRANT ALL ON seen TO alice, bob;
CREATE FUNCTION note(e prometheus.event) RETURNS text LANGUAGE sql AS
	$$INSERT INTO seen (who, event_id, type, subject, data) VALUES (current_user, (e).event_id, (e).type, (e).subject, (e).data) RETURNING 'noted ' || (e).type$$;
CREATE FUNCTION fails(e prometheus.event) RETURNS void LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO seen (who, type) VALUES ('never', e.type); RAISE EXCEPTION 'order % is bad', e.data ->> 'n'; END$$;
EOSQL

# As its owner, what he may see, of the types and the filter.

sql(q{SET ROLE alice; SELECT prometheus_subscribe('orders', 'note(prometheus.event)', types => '{shop.order.*}', filter => '$.n > 1')});
sql(q{SET ROLE alice; SELECT prometheus_emit('shop.order.paid', jsonb_build_object('n', n), 's/' || n) FROM generate_series(1, 3) n; SELECT prometheus_emit('shop.other', '{"n": 7}')});
sql(q{SET ROLE bob; SELECT prometheus_emit('shop.order.paid', '{"n": 8}')});
wait_deliveries('orders', 'delivered 2');
is(sql(q{SELECT string_agg(concat_ws(' ', who, type, subject, data), ', ' ORDER BY id) FROM seen}),
	'alice shop.order.paid s/2 {"n": 2}, alice shop.order.paid s/3 {"n": 3}', 'the function was given them, as alice');
is(sql(q{SELECT DISTINCT concat_ws(' ', attempts, run_as, error IS NULL, result, duration > '0', ended_at >= started_at) FROM prometheus.delivery}),
	'1 alice t noted shop.order.paid t t', 'what came of them is recorded');
is(sql('SELECT count(*) FROM seen WHERE backend = pg_backend_pid()'), 0, 'not by who emitted');

# Errors.

sql(q{SET ROLE alice; SELECT prometheus_subscribe('failing', 'fails(prometheus.event)', types => '{bad}', max_attempts => 2)});
sql(q{SET ROLE alice; SELECT prometheus_emit('bad', jsonb_build_object('n', n)) FROM generate_series(1, 2) n});
wait_deliveries('failing', 'dead 2');
is(sql(q{SELECT concat_ws(' ', subscription, deliveries, first_at <= last_at, error ~ '^order \d is bad$') FROM prometheus.dead_letter}),
	'failing 2 t t', 'they are dead letters of one error');
is(sql(q{SELECT DISTINCT attempts FROM prometheus.delivery WHERE status = 'dead'}), 2, 'after two attempts');
is(sql(q{SELECT count(*) FROM seen WHERE who = 'never'}), 0, 'nothing of them is there');
like($node->health('dead letters'), qr/^warning\|2: failing/, 'health says so');
sql(q{CREATE OR REPLACE FUNCTION fails(e prometheus.event) RETURNS void LANGUAGE sql AS $$INSERT INTO seen (who, type) VALUES ('again', (e).type)$$});
sql(q{SET ROLE alice; SELECT prometheus_redrive('failing')});
wait_deliveries('failing', 'delivered 2');
is(sql(q{SELECT count(*) FROM seen WHERE who = 'again'}), 2, 'redriven, they are delivered');

# One that always fails does not stop the rest.

sql(<<'EOSQL');
CREATE FUNCTION picky(e prometheus.event) RETURNS void LANGUAGE plpgsql AS $$BEGIN IF e.data = '{"n": 1}' THEN RAISE EXCEPTION 'not this one'; END IF; END$$;
SELECT prometheus_subscribe('picky', 'picky(prometheus.event)', types => '{pick}', max_attempts => 2);
SELECT prometheus_emit('pick', jsonb_build_object('n', n)) FROM generate_series(1, 3) n;
EOSQL
wait_deliveries('picky', 'dead 1, delivered 2');
sql(q{SELECT prometheus_unsubscribe('picky')});

# Who is slow holds up nobody, and is stopped in time; whoever is dropped waits.

sql(<<'EOSQL');
CREATE FUNCTION sleeps(e prometheus.event) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(300)';
CREATE FUNCTION stubborn(e prometheus.event) RETURNS void LANGUAGE plpgsql AS
	$$BEGIN LOOP BEGIN PERFORM pg_sleep(300); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END$$;
CREATE FUNCTION echoes(e prometheus.event) RETURNS bigint LANGUAGE sql AS $$SELECT prometheus_emit('echo', (e).data, (e).subject)$$;
SELECT prometheus_subscribe('sleeper', 'sleeps(prometheus.event)', types => '{slow}', timeout => '20 s');
SELECT prometheus_emit('slow');
EOSQL
$node->wait_for('the slow one runs', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'prometheus executor' AND wait_event = 'PgSleep'}, 1);
sql(q{SET ROLE alice; SELECT prometheus_emit('shop.order.paid', '{"n": 9}')});
$node->wait_for('others are delivered meanwhile', q{SELECT count(*) FROM seen WHERE data = '{"n": 9}'}, 1);
sql(q{SELECT prometheus_unsubscribe('sleeper')});
$node->wait_for('it ends with its subscription', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'prometheus executor' AND wait_event = 'PgSleep'}, 0);
sql(q{SELECT prometheus_subscribe('late', 'sleeps(prometheus.event)', types => '{late}', timeout => '100 ms', max_attempts => 1),
	prometheus_subscribe('stubborn', 'stubborn(prometheus.event)', types => '{late}', timeout => '2 s', max_attempts => 1); SELECT prometheus_emit('late')});
$node->wait_for('what takes too long is stopped', q{SELECT string_agg(error, '; ' ORDER BY subscription) FROM prometheus.dead_letter},
	'it did not end within 100 ms and was stopped; it did not end when it was to be stopped, and its process was ended; nothing was changed');

# To have waited for an executor is not to be slow.

sql(<<'EOSQL');
CREATE TABLE door ();
CREATE FUNCTION waits(e prometheus.event) RETURNS void LANGUAGE plpgsql AS
	$$BEGIN WHILE NOT EXISTS (SELECT FROM door) LOOP PERFORM pg_sleep(0.01); END LOOP; END$$;
SELECT prometheus_subscribe('door ' || n, 'waits(prometheus.event)', types => '{door}', timeout => '10 min') FROM generate_series(1, 2) n;
SELECT prometheus_subscribe('quick', 'note(prometheus.event)', types => '{knock}');
SELECT prometheus_emit('door');
EOSQL
my $at_the_door = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'prometheus executor' AND wait_event = 'PgSleep'};
$node->wait_for('both executors are busy', $at_the_door, 2);
sql(q{SELECT prometheus_emit('knock')});
$node->wait_for('the third waits', q{SELECT clock_timestamp() - created_at > '1.2 s' FROM prometheus.delivery WHERE subscription = 'quick'}, 't');

# Nor does it wait for who has locked what others are to write.

my $session = $node->background_psql('postgres');
$session->query_safe(q{BEGIN; SELECT prometheus_unsubscribe('door ' || n) FROM generate_series(1, 2) n});
sql(q{INSERT INTO door DEFAULT VALUES});
wait_deliveries('quick', 'delivered 1');
$session->query_safe('ROLLBACK');
$session->quit;
wait_deliveries($_, 'delivered 1') foreach 'door 1', 'door 2';
sql(q{DELETE FROM door; SELECT prometheus_emit('door')});
$node->wait_for('one of the slow ones runs', $at_the_door, 1);
sql(q{SELECT prometheus_emit('knock')});
wait_deliveries('quick', 'delivered 2');
sql(q{SELECT prometheus_unsubscribe('door ' || n) FROM generate_series(1, 2) n});

# Causes: an event that a function emits has the one that it was given.

sql(q{SELECT prometheus_subscribe('echoes', 'echoes(prometheus.event)', types => '{sound,echo}', max_attempts => 1); SELECT prometheus_emit('sound')});
$node->wait_for('a circle of causes ends', q{SELECT count(*) FROM prometheus.dead_letter WHERE subscription = 'echoes'}, 1);
is(sql(q{WITH RECURSIVE c AS (SELECT event_id, 0 AS n FROM prometheus.event WHERE type = 'sound' UNION ALL
		SELECT e.event_id, n + 1 FROM c JOIN prometheus.event e ON e.caused_by = c.event_id) SELECT max(n) FROM c}), 16, 'after sixteen');

# A task that it submits, too; what it does at the end of that one comes after it.

sql(q{CREATE FUNCTION goes_on(e prometheus.event) RETURNS bigint LANGUAGE sql AS $$SELECT prometheus_submit('again')$$;
	SELECT prometheus_subscribe('goes_on', 'goes_on(prometheus.event)', types => '{task.completed}', max_attempts => 1); SELECT prometheus_submit('begins')});
$node->wait_for('a circle of tasks ends', q{SELECT string_agg(split_part(error, E'\n', 1), '; ') FROM prometheus.dead_letter WHERE subscription = 'goes_on'},
	'a task has too many causes, one behind the other');
is(sql(q{WITH RECURSIVE c AS (SELECT event_id, task_id, 0 AS n FROM prometheus.event WHERE type = 'task.completed' AND data ->> 'result' = 'begins' UNION ALL
		SELECT e.event_id, e.task_id, n + 1 FROM c JOIN prometheus.event e ON e.caused_by = c.event_id)
	SELECT format('%s %s %s', max(n), count(DISTINCT task_id), count(*)) FROM c}), '16 17 49', 'after sixteen: each event of a task has the end of the one before as its cause');
sql(q{SELECT prometheus_unsubscribe('goes_on')});

# In order: of one subject one after the other, also through its retries.

sql(<<'EOSQL');
CREATE TABLE tries (id int GENERATED ALWAYS AS IDENTITY, subject text, n int);
CREATE SEQUENCE failures;
CREATE FUNCTION in_order(e prometheus.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF e.subject = 'a' AND (e.data ->> 'n')::int = 1 AND nextval('failures') < 3 THEN RAISE EXCEPTION 'not yet'; END IF;
	INSERT INTO tries (subject, n) VALUES (e.subject, (e.data ->> 'n')::int);
END $$;
SELECT prometheus_subscribe('ordered', 'in_order(prometheus.event)', types => '{pace}', ordered => true);
SELECT prometheus_emit('pace', jsonb_build_object('n', n), s) FROM generate_series(1, 3) n, unnest('{a,b}'::text[]) s;
EOSQL
wait_deliveries('ordered', 'delivered 6');
is(sql(q{SELECT string_agg(n::text, ' ' ORDER BY id) FROM tries WHERE subject = 'a'}), '1 2 3', 'in their order, through the retries');
is(sql(q{SELECT max(b.id) < min(a.id) FROM tries a, tries b WHERE a.subject = 'a' AND b.subject = 'b'}), 't', 'another subject did not wait');

# Of more subjects than are looked at together, and of none.

$node->pause('subscription:ordered');
sql(<<'EOSQL');
SELECT prometheus_emit('pace', jsonb_build_object('n', n), 'many ' || s) FROM generate_series(1, 2) n, generate_series(1, 130) s;
SELECT prometheus_emit('pace', jsonb_build_object('n', n), 'few ' || n) FROM generate_series(1, 140) n;
SELECT prometheus_emit('pace', '{"n": 1}') FROM generate_series(1, 3);
EOSQL
wait_deliveries('ordered', 'delivered 6, waiting 403');
sql(q{SELECT prometheus_resume('subscription:ordered')});
wait_deliveries('ordered', 'delivered 409');
is(sql(q{SELECT count(*) FROM tries a JOIN tries b USING (subject) WHERE subject LIKE 'many%' AND a.n = 1 AND b.n = 2 AND a.id < b.id}), 130, 'each subject in its order');
is(sql(q{SELECT count(*) FROM tries WHERE subject IS NULL}), 3, 'and those without');

# A function that is dropped disables its subscription, and nothing is lost.

sql(q{DROP FUNCTION in_order(prometheus.event); SELECT prometheus_emit('pace', '{"n": 4}', 'a')});
$node->wait_for('it is disabled', q{SELECT state || ': ' || disabled_reason FROM prometheus.subscription WHERE name = 'ordered'}, 'disabled: its function does not exist any more');
sql(q{SELECT prometheus_emit('pace', '{"n": 5}', 'a')});
sql(q{SELECT prometheus_subscribe('ordered', 'note(prometheus.event)', types => '{pace}', ordered => true)});
wait_deliveries('ordered', 'delivered 411');
is(sql(q{SELECT string_agg(data ->> 'n', ' ' ORDER BY id) FROM seen WHERE type = 'pace'}), '4 5', 'made anew, it goes on');

# Who loses what he needs is told why, and nothing is lost.

sql(<<'EOSQL');
CREATE SCHEMA shop; GRANT USAGE ON SCHEMA shop TO alice;
CREATE FUNCTION shop.note(e prometheus.event) RETURNS void LANGUAGE sql AS $$INSERT INTO seen (who, type) VALUES ('rights of ' || current_user, (e).type)$$;
REVOKE EXECUTE ON FUNCTION shop.note(prometheus.event) FROM PUBLIC; GRANT EXECUTE ON FUNCTION shop.note(prometheus.event) TO alice;
GRANT bob TO alice;
SET ROLE alice; SELECT prometheus_subscribe('rights', 'shop.note(prometheus.event)', types => '{rights}');
EOSQL
foreach my $case (
	[ 'EXECUTE ON FUNCTION shop.note(prometheus.event)', 'alice', 'its owner may not execute its function any more' ],
	[ 'USAGE ON SCHEMA shop', 'alice', 'its owner may not execute its function any more' ],
	[ 'prometheus_agent_user', 'alice, bob', 'its owner may not read prometheus.event any more' ])
{
	my ($right, $from, $reason) = @$case;

	sql("BEGIN; SET LOCAL ROLE alice; SELECT prometheus_emit('rights'); RESET ROLE; REVOKE $right FROM $from; COMMIT");
	$node->wait_for("$right: it is disabled", q{SELECT disabled_reason FROM prometheus.subscription WHERE name = 'rights'}, $reason);
	sql("GRANT $right TO $from; SET ROLE alice; SELECT prometheus_subscribe('rights', 'shop.note(prometheus.event)', types => '{rights}')");
}
wait_deliveries('rights', 'delivered 3');
$node->pause('subscription:rights');
sql(q{SET ROLE bob; SELECT prometheus_emit('rights')});
wait_deliveries('rights', 'delivered 3, waiting 1');
sql(q{REVOKE bob FROM alice; SELECT prometheus_resume('subscription:rights')});
$node->wait_for('an event that he may not see any more is a dead letter', q{SELECT error FROM prometheus.dead_letter WHERE subscription = 'rights'},
	'the event is not kept any more, or its owner may not see it');

# A function may remove its own subscription.

sql(<<'EOSQL');
CREATE FUNCTION last(e prometheus.event) RETURNS void LANGUAGE sql AS
	$$SELECT prometheus_unsubscribe('once'); INSERT INTO seen (who, type) VALUES ('once', (e).type)$$;
SELECT prometheus_subscribe('once', 'last(prometheus.event)', types => '{once}');
SELECT prometheus_emit('once');
EOSQL
$node->wait_for('what it did stays', q{SELECT count(*) FROM seen WHERE who = 'once'}, 1);
is(sql(q{SELECT count(*) FROM prometheus.subscription WHERE name = 'once'}), 0, 'and the subscription is gone');

# A replay delivers what was delivered, as its subscription is now.

sql(q{SET ROLE alice; SELECT prometheus_subscribe('orders', 'note(prometheus.event)', types => '{shop.order.*}', filter => '$.n > 1', ordered => true)});
sql(q{SET ROLE alice; SELECT prometheus_replay('orders', '-infinity')});
$node->wait_for('all again', q{SELECT count(*) FROM seen WHERE who = 'alice'}, 6);
is(deliveries('orders'), 'delivered 3', 'as the same deliveries');
is(sql(q{SELECT string_agg(key, ', ' ORDER BY key) FROM prometheus._delivery WHERE subscription = 'orders'}), 'subject s/2, subject s/3', 'now in order');

# A filter that raises an error gives up that event, and no other.

sql(q{SELECT prometheus_subscribe('dated', 'note(prometheus.event)', types => '{dated}', filter => '$.at.datetime() > "2026-01-01T00:00:00+00".datetime()')});
sql(q{SELECT prometheus_emit('dated', jsonb_build_object('at', at)) FROM unnest('{2026-05-01T00:00:00+00,2026-05-02,2026-05-03T00:00:00+00}'::text[]) at});
wait_deliveries('dated', 'dead 1, delivered 2');

# While somebody changes a subscription its events wait, and then they come.

my $holder = $node->background_psql('postgres');
$holder->query(q{BEGIN; SELECT prometheus_replay('dated', '-infinity')});
sql(q{SELECT prometheus_emit('dated', '{"at": "2026-05-04T00:00:00+00"}')});
$node->wait_for('the publisher has passed it by',
	q{SELECT state = 'idle' AND state_change > (SELECT max(emitted_at) FROM prometheus._event) FROM pg_stat_activity WHERE backend_type = 'prometheus publisher'});
is(deliveries('dated'), 'dead 1, delivered 2', 'it is held');
$holder->query('ROLLBACK');
$holder->quit;
wait_deliveries('dated', 'dead 1, delivered 3');

# What comes while a large transaction's events are taken is taken after them.

sql(<<'EOSQL');
SELECT prometheus_subscribe('many', 'note(prometheus.event)', types => '{many}'), prometheus_pause('subscription:many');
SELECT count(prometheus_emit('many')) FROM generate_series(1, 260);
SELECT count(prometheus_emit('many')) FROM generate_series(1, 140);
SELECT prometheus_emit('many');
EOSQL
wait_deliveries('many', 'waiting 401');
# A slow one gives up what it cannot judge in time, and then all; others do not wait.

sql(q{SELECT prometheus_subscribe('heavy', 'note(prometheus.event)', types => '{heavy}', filter => '$.a[*] ? (exists($.a[*] ? (exists($.a[*] ? (@ == -1)))))')});
sql(q{SELECT prometheus_emit('heavy', jsonb_build_object('a', (SELECT jsonb_agg(n) FROM generate_series(1, 2000) n))) FROM generate_series(1, 4)});
sql(q{SET ROLE alice; SELECT prometheus_emit('shop.order.paid', '{"n": 10}')});
$node->wait_for('others are delivered', q{SELECT count(*) FROM seen WHERE data = '{"n": 10}'}, 1);
$node->wait_for('it is disabled', q{SELECT state || ': ' || disabled_reason FROM prometheus.subscription WHERE name = 'heavy'}, 'disabled: its filter takes too long');
is(deliveries('heavy'), 'dead 3', 'three are dead letters, the fourth waits');
sql(q{SELECT prometheus_unsubscribe('heavy')});

# Nor is another event given up for it, which comes before it and is committed
# while it is looked at.

sql(q{SELECT prometheus_subscribe('heavy', 'note(prometheus.event)', types => '{heavy}', filter => '$.a[*] ? (exists($.a[*] ? (exists($.a[*] ? (@ == -1)))))')});
sql(q{SELECT prometheus_emit('heavy', '{"a": [-1]}')});
wait_deliveries('heavy', 'delivered 1');
my $earlier = $node->background_psql('postgres');
$earlier->query(q{BEGIN; SELECT prometheus_emit('heavy', '{"a": [-1]}')});
sql(q{SELECT prometheus_emit('heavy', jsonb_build_object('a', (SELECT jsonb_agg(n) FROM generate_series(1, 2000) n)))});
$node->wait_for('its filter is slow', q{SELECT state = 'active' AND clock_timestamp() - xact_start > '50 ms' FROM pg_stat_activity WHERE backend_type = 'prometheus publisher'});
$earlier->query('COMMIT');
$earlier->quit;
wait_deliveries('heavy', 'dead 1, delivered 2');
sql(q{SELECT prometheus_unsubscribe('heavy')});

# One whose events cannot be taken just now tries again after a pause, and loses
# none; others do not wait.

sub failures
{
	my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
	return $log =~ /^\d\S+ (\d+):(\d+):([\d.]+) [^\n]*ERROR:  canceling statement due to lock timeout\n(?=[^\n]*CONTEXT:  while \w+ tuple [^\n]* in relation "_consumer")/mg;
}
is(scalar(() = failures()), 0, 'nothing was locked yet');
my $locker = $node->background_psql('postgres');
$locker->query(q{BEGIN; SELECT FROM prometheus._consumer WHERE name = 'dated' FOR UPDATE});
sql(q{SELECT prometheus_emit('dated', '{"at": "2026-05-05T00:00:00+00"}')});
my @at;
for (my $end = time + $PostgreSQL::Test::Utils::timeout_default; @at < 6 && time < $end; usleep(50_000))
{
	@at = failures();
}
cmp_ok(scalar @at, '>=', 6, 'it has failed twice');
sql(q{SET ROLE alice; SELECT prometheus_emit('shop.order.paid', '{"n": 11}')});
$node->wait_for('others are delivered', q{SELECT count(*) FROM seen WHERE data = '{"n": 11}'}, 1);
is(deliveries('dated'), 'dead 1, delivered 3', 'it has not been given it');
my $pause = ($at[3] - $at[0]) * 3600 + ($at[4] - $at[1]) * 60 + $at[5] - $at[2];
ok($pause < 0 || $pause >= 1, "there is a pause between: $pause s");
$locker->query('ROLLBACK');
$locker->quit;
wait_deliveries('dated', 'dead 1, delivered 4');
is(sql(q{SELECT state FROM prometheus.subscription WHERE name = 'dated'}), 'active', 'it is as it was');

# Retention waits for who has not been given an event, for so long.

sub set_retention
{
	my ($retention, $waiting) = @_;
	sql("ALTER SYSTEM SET prometheus.retention = '$retention'");
	sql("ALTER SYSTEM SET prometheus.retention_waiting = '$waiting'");
	$node->reload;
	return;
}

# What the audit has goes last in a pass.
sub wait_pass
{
	my ($what) = @_;
	sql(q{INSERT INTO prometheus._audit_usage SELECT (jsonb_populate_record(NULL::prometheus._audit_usage, '{"first_task": 1, "day": "2000-01-01", "xid": "3", "submitter_oid": 10, "submitter": "x", "agent": "x", "model": "x", "tasks": 0, "calls": 0, "tokens_in": 0, "tokens_out": 0, "cost": 0}')).*});
	$node->wait_for($what, q{SELECT count(*) FROM prometheus._audit_usage WHERE submitter = 'x'}, 0);
	return;
}

sql(<<'EOSQL');
CREATE FUNCTION kept(e prometheus.event) RETURNS void LANGUAGE sql AS '';
SELECT prometheus_subscribe('kept', 'kept(prometheus.event)', types => '{kept}'), prometheus_subscribe('idle', 'note(prometheus.event)', types => '{idle}');
DROP FUNCTION kept(prometheus.event);
SELECT prometheus_emit('kept');
EOSQL
$node->wait_for('one is disabled', q{SELECT state FROM prometheus.subscription WHERE name = 'kept'}, 'disabled');
$node->pause('subscription:idle');
sql(q{SELECT prometheus_emit('kept'), prometheus_emit('idle')});
wait_deliveries('idle', 'waiting 1');
set_retention('1s', '1d');
$node->wait_for('health says that retention is held back', q{SELECT concat_ws(' ', status, value ~ '^held back by subscriptions: ', value ~ '\midle\M', value ~ '\mkept\M') FROM prometheus_health() WHERE check_name = 'retention'}, 'warning t t t');
wait_pass('a pass has ended since');
is(sql(q{SELECT string_agg(type, ' ' ORDER BY type) FROM prometheus.event WHERE type IN ('kept', 'idle')}), 'idle kept kept', 'their events are there');
is(sql(q{SELECT count(*) FROM prometheus.event WHERE type = 'slow'}), 0, 'what came before is not');
sql(q{SELECT prometheus_subscribe('kept', 'note(prometheus.event)', types => '{kept}')});
wait_deliveries('kept', 'delivered 2');
set_retention('1s', '0');
$node->wait_for('no longer than that', q{SELECT count(*) FROM prometheus.event WHERE type = 'idle'}, 0);
sql(q{SELECT prometheus_resume('subscription:idle')});
$node->wait_for('what is gone is a dead letter', q{SELECT error FROM prometheus.dead_letter WHERE subscription = 'idle'}, 'the event is not kept any more, or its owner may not see it');
set_retention('30d', '30d');

# Nobody knows what an owner of another name may see.

sql(q{ALTER ROLE alice RENAME TO alicia; SELECT prometheus_emit('shop.order.paid', '{"n": 5}')});
$node->wait_for('it is disabled', q{SELECT state || ': ' || disabled_reason FROM prometheus.subscription WHERE name = 'orders'}, 'disabled: its owner is not the role that it was');

$node->stop;
done_testing();
