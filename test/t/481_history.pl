# A history checker: sessions write in every way that transactions have, others
# look at what is now and at what was, and none of what they saw may change.
#
# Each writer numbers its transactions that commit, one after the other, and
# writes the number into two memories, an agent and a task.  So whatever
# a snapshot shows of a writer are the numbers 1 to n, and the same n in each
# relation.  A reader compares
#	now, before it asks for a mark <= AS OF the mark <= now, after it
# and AS OF a moment with AS OF the same moment, at once, later, and at the end.
#
# PROM_HISTORY_SECONDS=N writes for N seconds (8), for a long run by hand.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PromCluster;
use Test::More;

use constant WRITERS => 6;
use constant READERS => 3;

# Transactions of the one that prepares them, at the most.
use constant MOST => $ENV{PROM_HISTORY_SECONDS} ? 1_000_000 : 500;

my $seconds = $ENV{PROM_HISTORY_SECONDS} // 8;
my $node = PromCluster->new('history');
$node->init(conf => "prometheus.mark_interval = '50ms'\nmax_prepared_transactions = 4\nstatement_timeout = 0\n");
$node->start;
$node->create_extension;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(<<'EOSQL');
CREATE TABLE reading (id bigserial PRIMARY KEY, at timestamptz, before text, past text, again text, after text);
CREATE TABLE stop ();

-- What is seen: for each writer and relation, how many numbers and the last.
CREATE FUNCTION state() RETURNS text LANGUAGE plpgsql AS $$
DECLARE found text;
BEGIN
	EXECUTE $q$SELECT string_agg(s, chr(10) ORDER BY s COLLATE "C") FROM (
		SELECT format('%s %s %s %s', agent, kind, count(*), max(content::int)) FROM prometheus.memory GROUP BY agent, kind
		UNION ALL SELECT format('%s task %s %s', agent, count(*), max((data ->> 'request')::int)) FROM prometheus.event
		           WHERE type = 'task.received' GROUP BY agent
		UNION ALL SELECT format('%s agent %s %s', name, version - 1, instructions) FROM prometheus.agent
		           WHERE name ~ '^w' AND version > 1) x (s)$q$ INTO found;
	RETURN coalesce(found, '');
END$$;

CREATE FUNCTION state_at(at timestamptz) RETURNS text LANGUAGE plpgsql AS $$
DECLARE found text;
BEGIN
	PERFORM set_config('prometheus.as_of', at::text, true);
	found := state();
	PERFORM set_config('prometheus.as_of', '', true);
	RETURN found;
END$$;

-- One transaction's facts, in any order, with pauses, and some that are undone.
CREATE PROCEDURE write_once(who text, n int, pause float) LANGUAGE plpgsql AS $$
DECLARE part int;
BEGIN
	FOR part IN SELECT p FROM generate_series(1, 4) p ORDER BY random() LOOP
		CASE part
			WHEN 1 THEN PERFORM prometheus_remember(who, n::text, 'semantic');
			WHEN 2 THEN
				BEGIN
					PERFORM prometheus_remember(who, n::text, 'episodic');
				EXCEPTION WHEN division_by_zero THEN NULL;
				END;
			WHEN 3 THEN PERFORM prometheus_set_agent(who, instructions => n::text);
			ELSE PERFORM prometheus_submit(n::text, who);
		END CASE;
		PERFORM pg_sleep(random() * pause);
		BEGIN
			PERFORM prometheus_remember(who, '1000000', 'core'), prometheus_submit('1000000', who), 1 / (random() * 0)::int;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
END$$;

CREATE PROCEDURE write_on(who text, pause float) LANGUAGE plpgsql AS $$
DECLARE n int := 0;
BEGIN
	WHILE NOT EXISTS (SELECT FROM stop) LOOP
		CALL write_once(who, n + 1, pause);
		IF random() < 0.2 THEN
			ROLLBACK;
		ELSE
			COMMIT;
			n := n + 1;
		END IF;
	END LOOP;
END$$;

CREATE PROCEDURE read_on() LANGUAGE plpgsql AS $$
DECLARE r reading; id bigint;
BEGIN
	WHILE NOT EXISTS (SELECT FROM stop) LOOP
		r := NULL;
		IF random() < 0.3 THEN
			COMMIT;
			SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
			r.before := state();
			COMMIT;
			id := prometheus_mark();
			r.at := (SELECT m.at FROM prometheus.mark m WHERE m.mark_id = id);
		ELSE
			r.at := clock_timestamp();
		END IF;
		COMMIT;
		r.past := state_at(r.at);
		COMMIT;
		SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
		r.after := state();
		r.again := state_at(r.at);
		INSERT INTO reading (at, before, past, again, after) VALUES (r.at, r.before, r.past, r.again, r.after);
		COMMIT;
		-- One of before, once more.
		SELECT x.* INTO r FROM reading x WHERE x.id = (SELECT 1 + floor(random() * max(y.id)) FROM reading y);
		INSERT INTO reading (at, past, again, after) SELECT r.at, r.past, state_at(r.at), r.after WHERE r.id IS NOT NULL;
		COMMIT;
	END LOOP;
END$$;

-- What was read, taken apart.
CREATE VIEW line AS
	SELECT r.id, x.which, l[1] AS who, l[2] AS what, l[3]::int AS n, l[4]::int AS last
	  FROM reading r
	 CROSS JOIN LATERAL (VALUES ('before', r.before), ('past', r.past), ('after', r.after)) AS x (which, text)
	 CROSS JOIN LATERAL string_to_table(x.text, chr(10)) AS t (line)
	 CROSS JOIN LATERAL string_to_array(t.line, ' ') AS l;
EOSQL
sql("SELECT prometheus_set_agent('w$_', 'echo')") foreach 1 .. WRITERS + 2;

# Let all of them work until a query says t; besides, perhaps, somebody who does
# what must not be done.
sub work
{
	my ($until, $mutant) = @_;
	my $prepared = 'w' . (WRITERS + 2);
	my @scripts = (
		(map { "CALL write_on('w$_', 0.02)" } 1 .. WRITERS),
		# a long one
		"CALL write_on('w@{[ WRITERS + 1 ]}', 0.5)",
		('CALL read_on()') x READERS,
		$mutant // ());
	my @sessions;

	sql('TRUNCATE stop, reading; TRUNCATE prometheus._memory, prometheus._task, prometheus._attempt, prometheus._step, prometheus._outcome; DELETE FROM prometheus._agent WHERE name ~ \'^w\' AND version > 1');
	foreach my $script (@scripts)
	{
		my ($in, $out) = ('', '');
		push @sessions,
		  IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c', $script ],
			'<', \$in, '>&', \$out);
	}
	my $n = 0;
	do
	{
		$n++;
		sql("BEGIN; CALL write_once('$prepared', $n, 0.02); PREPARE TRANSACTION 'p'");
		sql("SELECT pg_sleep(0.05); COMMIT PREPARED 'p'");
	} until sql($until) eq 't' || $n > MOST;
	sql('INSERT INTO stop DEFAULT VALUES');
	is(scalar(grep { !IPC::Run::finish($_) } @sessions), 0, 'all sessions ended well');
	return;
}

# What is wrong with what was read: of each kind, how many.
sub wrong
{
	return sql(<<'EOSQL');
CREATE TEMP TABLE l AS SELECT * FROM line;
CREATE INDEX ON l (id, who, what);
ANALYZE l;
SELECT wrong, count(*) FROM (
	SELECT 'not repeatable' FROM reading WHERE past <> again
	UNION ALL SELECT 'torn' FROM l GROUP BY id, which, who
	           HAVING count(*) <> 4 OR min(n) <> max(n) OR min(last) <> max(last) OR min(n) <> min(last)
	UNION ALL SELECT 'without what was there before'
	            FROM l b LEFT JOIN l p ON p.id = b.id AND p.who = b.who AND p.what = b.what AND p.which = 'past'
	           WHERE b.which = 'before' AND coalesce(p.n, 0) < b.n
	UNION ALL SELECT 'with what came after it'
	            FROM l p LEFT JOIN l a ON a.id = p.id AND a.who = p.who AND a.what = p.what AND a.which = 'after'
	           WHERE p.which = 'past' AND coalesce(a.n, 0) < p.n) x (wrong)
 GROUP BY 1 ORDER BY 1
EOSQL
}


my $end = sql("SELECT clock_timestamp() + interval '$seconds s'");
work("SELECT clock_timestamp() > '$end'");
# In another order, and by other sessions.
sql('INSERT INTO reading (at, past, again, after) SELECT at, past, state_at(at), after FROM (SELECT DISTINCT ON (at) * FROM reading ORDER BY at, id) r ORDER BY random()');
is(wrong(), '', 'what was seen is what is seen AS OF then, whole, and for ever');
my ($readings, $moments) = split /\|/, sql('SELECT count(*), count(DISTINCT at) FROM reading');
note "$readings readings of $moments moments";
is( sql(q{SELECT count(DISTINCT who) FROM line WHERE which = 'past' AND n > 1}),
	WRITERS + 2, 'and each writer was seen');
cmp_ok(sql(q{SELECT count(*) FROM reading WHERE before <> after}),
	'>', 0, 'while it wrote');

my $noticed = q{SELECT EXISTS (SELECT FROM reading WHERE past <> again)};

# The checker is good for something.  A second process that writes marks, and
# commits late:
work($noticed, <<'EOSQL');
DO $$ BEGIN FOR n IN 1 .. 1000 LOOP
	INSERT INTO prometheus._mark (mark_id, xid, snapshot, at)
	SELECT min(mark_id) - 1, prometheus._xid(), prometheus._snapshot(), clock_timestamp() FROM prometheus._mark;
	PERFORM pg_sleep(0.03);
	COMMIT;
	EXIT WHEN EXISTS (SELECT FROM stop);
END LOOP; END $$;
EOSQL
like(wrong(), qr/^not repeatable/m, 'it notices two that write marks');
sql('DELETE FROM prometheus._mark WHERE mark_id <= 0');

# The order of xids in the place of snapshots:
sql(q{CREATE OR REPLACE FUNCTION prometheus._seen(xid xid8) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE LEAKPROOF
	RETURN coalesce(xid < (SELECT min(m.xid) FROM prometheus._mark m WHERE m.mark_id > prometheus._last_mark()), true)});
work($noticed);
like(wrong(), qr/^not repeatable/m, 'and an order of transactions in the place of snapshots');

$node->stop;
done_testing();
