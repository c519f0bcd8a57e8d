# A checker of histories: sessions write in every way that transactions have,
# others look at what is now and at what was, and none of what they saw may
# change.
#
# Each writer numbers its transactions that commit, one after the other, and
# writes the number into memories, an agent, a state, a task and a tracked
# table.  So whatever a snapshot shows of a writer are the numbers 1 to n, and
# the same n in each relation.  What is AS OF a moment must be
#	repeatable	the same whenever, and wherever, it is asked for
#	whole		of each writer the same n in all relations
#	faithful	not less than what transactions saw whose snapshot was taken
#				before the mark's, and not more than those saw that began after it
# of which the last needs no knowledge of snapshots, only clocks: a mark's
# snapshot is taken after the mark before it has its time, and before its own.
#
#	my $history = PromHistory->new($node, seed => 1, writers => 6);
#	is($history->work('SELECT ...'), '', ...);	until that is so
#	is($history->wrong, '', ...);			what was read meanwhile
#	$history->settle;						what is known of each moment
#	my ($n, $wrong) = $history->ask($node, 1000, 2);	by two sessions
package PromHistory;

use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PromSession;
use Test::More;

use constant READERS => 3;

my $schema = <<'EOSQL';
CREATE TABLE reading (id bigserial PRIMARY KEY, at timestamptz, before text, past text, again text, after text);
CREATE TABLE observed (began timestamptz, ended timestamptz, mark bigint, seen text);
CREATE TABLE stop ();
CREATE TABLE account (who text PRIMARY KEY, n int);
CREATE TABLE written (who text, n int, task bigint, fact bigint, moved bigint, PRIMARY KEY (who, n));
CREATE TABLE moment (id int PRIMARY KEY, at timestamptz, mark_id bigint);
CREATE TABLE truth (mark_id bigint, who text, low int, high int, n int, PRIMARY KEY (mark_id, who));
SELECT prometheus_track('account');

-- What is seen, now or at a moment: for each writer and relation, how many
-- numbers and the last.
CREATE FUNCTION state(moment timestamptz DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE found text;
BEGIN
	EXECUTE format($q$SELECT string_agg(s, chr(10) ORDER BY s COLLATE "C") FROM (
		SELECT format('%%s %%s %%s %%s', agent, kind, CASE WHEN kind = 'procedural' AND count(*) = 1 THEN max(content::int) ELSE count(*) END,
		              max(content::int)) FROM prometheus.memory GROUP BY agent, kind
		UNION ALL SELECT format('%%s task %%s %%s', agent, count(*), max((data ->> 'request')::int)) FROM prometheus.event
		           WHERE type = 'task.received' GROUP BY agent
		UNION ALL SELECT format('%%s agent %%s %%s', name, version - 1, instructions) FROM prometheus.agent
		           WHERE name ~ '^w' AND version > 1
		UNION ALL SELECT format('%%s state %%s %%s', agent, version, value) FROM prometheus.state WHERE key = 'state'
		UNION ALL SELECT format('%%s account %%s %%s', who, n, n) FROM %s) x (s)$q$,
		CASE WHEN moment IS NULL THEN 'account' ELSE format('prometheus_rows_at(NULL::account, %L)', moment) END) INTO found;
	RETURN coalesce(found, '');
END$$;

CREATE FUNCTION state_at(at timestamptz) RETURNS text LANGUAGE plpgsql AS $$
DECLARE found text;
BEGIN
	PERFORM set_config('prometheus.as_of', at::text, true);
	found := state(at);
	PERFORM set_config('prometheus.as_of', '', true);
	RETURN found;
END$$;

-- One transaction's facts, in any order, with pauses, and some that are undone.
CREATE PROCEDURE write_once(who text, n int, pause float) LANGUAGE plpgsql AS $$
DECLARE
	part int;
	this written;
BEGIN
	this.who := who;
	this.n := n;
	FOR part IN SELECT p FROM generate_series(1, 5) p ORDER BY random() LOOP
		CASE part
			WHEN 1 THEN this.fact := prometheus_remember(who, n::text, 'semantic');
			WHEN 2 THEN
				BEGIN
					PERFORM prometheus_remember(who, n::text, 'episodic');
					PERFORM prometheus_forget(m.memory_id) FROM prometheus.memory m WHERE m.agent = who AND m.kind = 'procedural';
					this.moved := prometheus_remember(who, n::text, 'procedural');
				EXCEPTION WHEN division_by_zero THEN NULL;
				END;
			WHEN 3 THEN PERFORM prometheus_set_agent(who, instructions => n::text);
			WHEN 4 THEN
				PERFORM prometheus_save_state(who, to_jsonb(n));
				INSERT INTO account VALUES (who, n) ON CONFLICT ON CONSTRAINT account_pkey DO UPDATE SET n = excluded.n;
			ELSE this.task := prometheus_submit(n::text, who);
		END CASE;
		PERFORM pg_sleep(random() * pause);
		BEGIN
			UPDATE account a SET n = 1000000 WHERE a.who = write_once.who;
			PERFORM prometheus_remember(who, '1000000', 'core'), prometheus_submit('1000000', who), 1 / (random() * 0)::int;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
	INSERT INTO written VALUES (this.*);
END$$;

CREATE PROCEDURE write_on(who text, pause float, seed float) LANGUAGE plpgsql AS $$
DECLARE n int := 0;
BEGIN
	PERFORM setseed(seed);
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

-- Each reading of what is now is kept, with times around its snapshot.
CREATE PROCEDURE read_on(seed float) LANGUAGE plpgsql AS $$
DECLARE
	r reading;
	mark bigint;
	began timestamptz;
BEGIN
	PERFORM setseed(seed);
	WHILE NOT EXISTS (SELECT FROM stop) LOOP
		r := NULL;
		mark := NULL;
		IF random() < 0.3 THEN
			-- A mark that is newer than the snapshot: no answer, or the right one.
			began := clock_timestamp();
			COMMIT;
			SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
			r.before := state();
			mark := prometheus_mark();
			r.at := (SELECT h.at FROM prometheus._hidden_marks() h WHERE h.mark_id = mark);
			BEGIN
				r.past := state_at(r.at);
			EXCEPTION WHEN invalid_transaction_state THEN NULL;
			END;
			INSERT INTO observed VALUES (began, clock_timestamp(), mark, r.before);
		ELSE
			r.at := clock_timestamp();
		END IF;
		COMMIT;
		r.past := coalesce(r.past, state_at(r.at));
		began := clock_timestamp();
		COMMIT;
		SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
		r.after := state();
		INSERT INTO observed VALUES (began, clock_timestamp(), NULL, r.after);
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
CREATE FUNCTION lines(seen text) RETURNS TABLE (who text, what text, n int, last int) LANGUAGE sql ROWS 50 AS $$
	SELECT l[1], l[2], l[3]::int, l[4]::int
	  FROM string_to_table(seen, chr(10)) AS t (line)
	 CROSS JOIN LATERAL string_to_array(t.line, ' ') AS l
$$;
CREATE VIEW line AS
	SELECT r.id, x.which, l.*
	  FROM reading r
	 CROSS JOIN LATERAL (VALUES ('before', r.before), ('past', r.past), ('after', r.after)) AS x (which, text)
	 CROSS JOIN LATERAL lines(x.text) AS l;

-- A reading: the n of a writer as of what is set; null if the relations do not
-- agree, on what was there and on what came next.
CREATE FUNCTION look(who text) RETURNS int LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN a.n = s.n AND x.fit THEN a.n END
	  FROM (SELECT coalesce(max(instructions::int), 0) AS n FROM prometheus.agent WHERE name = $1) a
	 CROSS JOIN (SELECT coalesce(max((value #>> '{}')::int), 0) AS n FROM prometheus.state WHERE agent = $1 AND key = 'state') s
	 CROSS JOIN LATERAL (
		SELECT coalesce(bool_and(
		       (x.n <= a.n) = EXISTS (SELECT FROM prometheus.task WHERE task_id = x.task)
		   AND (x.n <= a.n) = EXISTS (SELECT FROM prometheus.event WHERE task_id = x.task AND type = 'task.received')
		   AND (x.n <= a.n) = EXISTS (SELECT FROM prometheus.memory WHERE memory_id = x.fact)
		   AND (x.n = a.n) = EXISTS (SELECT FROM prometheus.memory WHERE memory_id = x.moved)), a.n = 0) AS fit
		  FROM written x WHERE x.who = $1 AND x.n IN (a.n, a.n + 1)) x
$$;
CREATE FUNCTION look_at(who text, at timestamptz) RETURNS int LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN a.n = s.n AND x.fit THEN a.n END
	  FROM (SELECT coalesce(max(instructions::int), 0) AS n FROM prometheus.agent_at($2) WHERE name = $1) a
	 CROSS JOIN (SELECT coalesce(max((prometheus_state($1, as_of => $2) #>> '{}')::int), 0) AS n) s
	 CROSS JOIN LATERAL (
		SELECT coalesce(bool_and(
		       (x.n <= a.n) = EXISTS (SELECT FROM prometheus.task_at($2) WHERE task_id = x.task)
		   AND (x.n <= a.n) = EXISTS (SELECT FROM prometheus.event_at($2) WHERE task_id = x.task AND type = 'task.received')
		   AND (x.n <= a.n) = EXISTS (SELECT FROM prometheus.memory_at($2) WHERE memory_id = x.fact)
		   AND (x.n = a.n) = EXISTS (SELECT FROM prometheus.memory_at($2) WHERE memory_id = x.moved)), a.n = 0) AS fit
		  FROM written x WHERE x.who = $1 AND x.n IN (a.n, a.n + 1)) x
$$;

-- Many readings, of moments in any order, and what is wrong with them.
CREATE FUNCTION ask(most int, seed float, OUT readings int, OUT wrong text) LANGUAGE plpgsql AS $$
DECLARE
	m moment;
	t truth;
	found int;
BEGIN
	PERFORM setseed(seed);
	readings := 0;
	wrong := '';
	WHILE readings < most LOOP
		FOR m IN SELECT * FROM moment ORDER BY random() LOOP
			EXIT WHEN readings >= most;
			PERFORM set_config('prometheus.as_of', m.at::text, true);
			FOR t IN SELECT * FROM truth x WHERE x.mark_id = m.mark_id LOOP
				IF random() < 0.1 THEN
					PERFORM set_config('prometheus.as_of', '', true);
					found := look_at(t.who, m.at);
					PERFORM set_config('prometheus.as_of', m.at::text, true);
				ELSE
					found := look(t.who);
				END IF;
				readings := readings + 1;
				CONTINUE WHEN found = t.n AND found BETWEEN t.low AND t.high;
				wrong := wrong || format(E'%s of %s: %s, %s\n', m.at, t.who,
					CASE WHEN found IS NULL THEN 'torn' WHEN found <> t.n THEN 'not repeatable' ELSE 'not faithful' END, t);
				EXIT WHEN length(wrong) > 1000;
			END LOOP;
		END LOOP;
		EXIT WHEN length(wrong) > 1000;
	END LOOP;
	PERFORM set_config('prometheus.as_of', '', true);
END$$;
EOSQL

sub new
{
	my ($class, $node, %params) = @_;
	my $self = bless { node => $node, %params }, $class;

	srand($self->{seed});
	note "the seed is $self->{seed}";
	$node->safe_psql('postgres', $schema);
	$node->safe_psql('postgres', "SELECT prometheus_set_agent('w$_', 'echo')")
	  foreach 1 .. $self->{writers} + 2;
	return $self;
}

sub sql { my ($self, $sql) = @_; return $self->{node}->safe_psql('postgres', $sql); }

# The same of the one session that prepares transactions.
sub ask_session
{
	my ($self, $sql) = @_;
	$self->{session} //= PromSession->new($self->{node}, 'postgres');
	my ($ok, $out) = $self->{session}->ask($sql);

	die "$sql: $out" if !$ok;
	return $out;
}

# One that the seed decides, for setseed().
sub seed { return sprintf '%.6f', rand; }

sub start
{
	my ($self, $server, $script) = @_;
	my ($in, $out) = ('', '');
	my $session = { out => \$out };

	$session->{psql} = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $server->connstr('postgres'), '-c', $script ],
		'<', \$in, '>&', \$out);
	return $session;
}

# Let all of them write and read until a query says t; besides, perhaps, somebody
# who does what must not be done.  Their errors: there should be none.
sub work
{
	my ($self, $until, $mutant) = @_;
	my $prepared = 'w' . ($self->{writers} + 2);
	my @scripts = (
		(map { "CALL write_on('w$_', 0.02, @{[ seed() ]})" } 1 .. $self->{writers}),
		# a long one
		"CALL write_on('w@{[ $self->{writers} + 1 ]}', 0.5, @{[ seed() ]})",
		(map { "CALL read_on(@{[ seed() ]})" } 1 .. READERS),
		$mutant // ());

	$self->sql(q{TRUNCATE stop, reading, observed, written, moment, truth, account;
		TRUNCATE prometheus._memory, prometheus._task, prometheus._attempt, prometheus._step, prometheus._outcome, prometheus._state;
		DELETE FROM prometheus._agent WHERE name ~ '^w' AND version > 1});
	$self->{first} = $self->sql('SELECT prometheus_mark()');
	my @sessions = map { $self->start($self->{node}, $_) } @scripts;
	my $n = 0;
	do
	{
		$n++;
		$self->ask_session("BEGIN; CALL write_once('$prepared', $n, 0.02); PREPARE TRANSACTION 'p'");
		$self->ask_session("SELECT pg_sleep(0.05)");
		$self->ask_session("COMMIT PREPARED 'p'");
	} until $self->ask_session($until) eq 't';
	$self->sql('INSERT INTO stop DEFAULT VALUES');
	return join '', map { $_->{psql}->finish ? '' : ${ $_->{out} } } @sessions;
}

# What is wrong with what was read: of each kind, how many.
sub wrong
{
	my ($self) = @_;
	return $self->sql(<<'EOSQL');
CREATE TEMP TABLE l AS SELECT * FROM line;
CREATE INDEX ON l (id, who, what);
ANALYZE l;
SELECT wrong, count(*) FROM (
	SELECT 'not repeatable' FROM reading WHERE past <> again
	UNION ALL SELECT 'torn' FROM l GROUP BY id, which, who
	           HAVING count(*) <> 7 OR min(n) <> max(n) OR min(last) <> max(last) OR min(n) <> min(last)
	UNION ALL SELECT 'without what was there before'
	            FROM l b LEFT JOIN l p ON p.id = b.id AND p.who = b.who AND p.what = b.what AND p.which = 'past'
	           WHERE b.which = 'before' AND coalesce(p.n, 0) < b.n
	UNION ALL SELECT 'with what came after it'
	            FROM l p LEFT JOIN l a ON a.id = p.id AND a.who = p.who AND a.what = p.what AND a.which = 'after'
	           WHERE p.which = 'past' AND coalesce(a.n, 0) < p.n) x (wrong)
 GROUP BY 1 ORDER BY 1
EOSQL
}

# Find out what is known of each mark, and what it says at first; of moments,
# those of marks and some between them.  Of how many writers and marks the
# observers leave nothing open.
sub settle
{
	my ($self) = @_;
	my $count = $self->{writers} + 2;
	return $self->sql(<<"EOSQL");
DO \$\$BEGIN PERFORM prometheus_mark(); END\$\$;
CREATE TEMP TABLE m AS SELECT * FROM (
	SELECT mark_id, at, lag(at) OVER w AS at_before, lead(at) OVER w AS at_after FROM prometheus.mark
	 WHERE mark_id >= $self->{first} WINDOW w AS (ORDER BY mark_id)) x
 WHERE at_before IS NOT NULL AND at_after IS NOT NULL;
CREATE TEMP TABLE o AS
	SELECT o.began, o.ended, o.mark, w.who, coalesce(l.n, 0) AS n
	  FROM observed o CROSS JOIN (SELECT 'w' || i FROM generate_series(1, $count) i) w (who)
	  LEFT JOIN LATERAL lines(o.seen) l ON l.who = w.who AND l.what = 'agent';
ANALYZE m, o;
INSERT INTO truth (mark_id, who, low, high)
SELECT m.mark_id, o.who, coalesce(max(o.n) FILTER (WHERE o.ended <= m.at_before OR o.mark <= m.mark_id), 0),
       coalesce(min(o.n) FILTER (WHERE o.began >= m.at), 1000000)
  FROM m CROSS JOIN o GROUP BY 1, 2;
INSERT INTO moment
SELECT row_number() OVER (), m.at + x.part * (m.at_after - m.at), m.mark_id FROM m, (VALUES (0), (random()), (random())) x (part)
 WHERE m.at + x.part * (m.at_after - m.at) < m.at_after;
ANALYZE;
UPDATE truth t SET n = look_at(t.who, m.at) FROM m WHERE m.mark_id = t.mark_id;
SELECT count(*) FILTER (WHERE low = high) || ' of ' || count(*) FROM truth;
EOSQL
}

# Ask a server for so many readings by so many sessions; how many there were, and
# what was wrong.
sub ask
{
	my ($self, $server, $most, $sessions) = @_;
	my $each = int($most / $sessions);
	my @sessions = map { $self->start($server, "SELECT readings, wrong FROM ask($each, @{[ seed() ]})") } 1 .. $sessions;
	my ($readings, $wrong) = (0, '');

	foreach (@sessions)
	{
		$_->{psql}->finish;
		if (${ $_->{out} } =~ /\A(\d+)\|(.*)\Z/s)
		{
			$readings += $1;
			$wrong .= $2 =~ s/\s*\z//r;
		}
		else
		{
			$wrong .= ${ $_->{out} };
		}
	}
	return ($readings, $wrong);
}

1;
