# Tracked tables: what the tools of a task changed, as of any moment and undone,
# and all of that after a dump and a restore.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PromAnswers qw(answers);
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $tables = 'account transfer visit';

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The tables as they are, or were at a moment.
sub rows
{
	my ($server, $moment) = @_;
	return $server->safe_psql('postgres', join ';', map {
		my $from = defined $moment ? "prometheus_rows_at(NULL::$_, '$moment')" : $_;
		"SELECT '$_', x FROM $from x ORDER BY x::text";
	} split / /, $tables);
}

# A moment that has seen what was committed until now.
sub moment
{
	return (split /\n/, sql('SELECT prometheus_mark(); SELECT clock_timestamp()'))[1];
}

# Let the agent make calls, one a turn; the task.
sub run_calls
{
	my @calls = @_;
	my $task = $node->submit(
		$node->script((map { [$_] } @calls), 'done') . q{, 'clerk'});

	$node->wait_task($task, 'completed');
	return $task;
}

sub verdicts
{
	my ($task, $more) = @_;
	return sql(sprintf q{SELECT string_agg(verdict || ' ' || n, ', ' ORDER BY verdict) FROM (SELECT verdict, count(*) AS n FROM prometheus_undo(%s%s) GROUP BY 1) v},
		$task, $more // '');
}

$node->init(allows_streaming => 'logical', conf => "timezone = 'Asia/Kolkata'\nmax_prepared_transactions = 1\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;
sql(<<'EOSQL');
CREATE ROLE clerk;
CREATE ROLE boss;
GRANT prometheus_agent_admin TO boss;
CREATE TYPE kind AS ENUM ('in', 'out');
CREATE TABLE account (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner text, balance numeric NOT NULL, since timestamptz DEFAULT now());
CREATE TABLE transfer (account int REFERENCES account ON DELETE CASCADE, n int, gone text, amount numeric, kind kind, PRIMARY KEY (account, n));
CREATE TABLE visit (at timestamptz PRIMARY KEY, account int);
ALTER TABLE transfer DROP gone;
INSERT INTO account (owner, balance) SELECT 'o' || i, 100 FROM generate_series(1, 5) i;
INSERT INTO transfer SELECT a, n, 1.50, 'in' FROM generate_series(1, 5) a, generate_series(1, 3) n;
INSERT INTO visit SELECT '2026-01-01 10:00+00'::timestamptz + i * interval '1 h', i FROM generate_series(1, 5) i;
CREATE SEQUENCE numbers START 20;
GRANT USAGE ON SEQUENCE numbers TO clerk;
-- Every change of a balance is written down, by a trigger.
CREATE FUNCTION write_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO transfer VALUES (NEW.id, nextval('numbers'), abs(NEW.balance - OLD.balance),
		CASE WHEN NEW.balance > OLD.balance THEN 'in' ELSE 'out' END::kind);
	RETURN NULL;
END $$;
CREATE TRIGGER write AFTER UPDATE OF balance ON account FOR EACH ROW WHEN (OLD.balance <> NEW.balance) EXECUTE FUNCTION write_transfer();
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON account, transfer, visit TO clerk;
CREATE FUNCTION pay(a int, amount numeric) RETURNS numeric LANGUAGE sql AS 'UPDATE account SET balance = balance + amount WHERE id = a RETURNING balance';
CREATE FUNCTION open(owner text) RETURNS int LANGUAGE sql AS 'INSERT INTO account (owner, balance) VALUES (owner, 0) RETURNING id';
CREATE FUNCTION close(a int) RETURNS bigint LANGUAGE sql AS 'WITH d AS (DELETE FROM account WHERE id = a RETURNING 1) SELECT count(*) FROM d';
CREATE FUNCTION move(a int, n int) RETURNS int LANGUAGE sql AS 'UPDATE transfer SET n = move.n WHERE account = a AND transfer.n = 1 RETURNING transfer.n';
CREATE FUNCTION fails(a int) RETURNS int LANGUAGE sql AS 'UPDATE account SET owner = NULL WHERE id = a; SELECT 1 / 0';
CREATE FUNCTION wipe() RETURNS text LANGUAGE plpgsql AS $$BEGIN TRUNCATE visit; RETURN 'wiped'; END$$;
SELECT prometheus_set_tool(f::regprocedure, tier => 'write') FROM unnest(ARRAY['pay(int, numeric)', 'open(text)', 'close(int)', 'move(int, int)', 'fails(int)']) f;
SELECT prometheus_set_tool('wipe()', tier => 'destructive');
SELECT prometheus_set_agent('clerk', 'scripted', tools => '{pay,open,close,move,fails,wipe}', run_as => 'clerk');
EOSQL
my $too_early = moment();
sql(qq{SELECT prometheus_track(t::regclass) FROM regexp_split_to_table('$tables', ' ') t});
my $begin = moment();
my $at_begin = rows($node);
is(rows($node, $begin), $at_begin, 'when tracking began');
like($node->error_of("SELECT prometheus_rows_at(NULL::account, '$too_early')")->{detail},
	qr/^Tracking began at \d{4}-/, 'but not before, and it says when');

# A task with several tools, one of which fails.

my $task = run_calls(
	[ 'pay', { a => 1, amount => -30 } ],
	[ 'pay', { a => 2, amount => 30 } ],
	[ 'open', { owner => 'new' } ],
	[ 'close', { a => 3 } ],
	[ 'move', { a => 4, n => 9 } ],
	[ 'fails', { a => 5 } ]);
my $after = moment();
my $at_after = rows($node);
isnt($at_after, $at_begin, 'tools change rows');
is(rows($node, $begin), $at_begin, 'as of before');
is(rows($node, $after), $at_after, 'as of after');
is(sql("BEGIN; SELECT count(*) > 0 FROM prometheus_undo($task); SELECT pg_current_xact_id_if_assigned() IS NULL; ROLLBACK"), "t\nt", 'looking takes no transaction id');
is( sql("SELECT string_agg(concat_ws(' ', relation, key, operation, verdict), E'\\n') FROM prometheus_undo($task)"),
	q{public.account {"id": "1"} update revert
public.transfer {"n": "20", "account": "1"} insert revert
public.account {"id": "2"} update revert
public.transfer {"n": "21", "account": "2"} insert revert
public.account {"id": "6"} insert revert
public.account {"id": "3"} delete revert
public.transfer {"n": "1", "account": "3"} delete revert
public.transfer {"n": "2", "account": "3"} delete revert
public.transfer {"n": "3", "account": "3"} delete revert
public.transfer {"n": "1", "account": "4"} delete revert
public.transfer {"n": "9", "account": "4"} insert revert},
	'what the tools changed, with cascades and triggers, but not what failed');
is( sql("SELECT string_agg(DISTINCT step || ' ' || name, ', ' ORDER BY step || ' ' || name) FROM prometheus._row_version JOIN prometheus.step USING (task_id, step) WHERE task_id = $task"),
	'10 move, 2 pay, 4 pay, 6 open, 8 close', 'and by which step');

# One row, by its key.
is(sql(qq{SELECT id, owner, balance FROM prometheus_rows_at(NULL::account, '$begin', '{"id": 3}')}), '3|o3|100', 'one row as of a moment');
is(sql(qq{SELECT count(*) FROM prometheus_rows_at(NULL::account, '$after', '{"id": "3"}')}), 0, 'which is not there later');
is( sql(qq{SELECT count(*), count(*) FILTER (WHERE x = y) FROM prometheus_rows_at(NULL::transfer, '$begin') x
	CROSS JOIN prometheus_rows_at(NULL::transfer, '$begin', jsonb_build_object('n', x.n, 'account', x.account)) y}),
	'15|15', 'each row of a key of two columns');
is( sql(qq{SET TimeZone = 'Asia/Tokyo'; SELECT account FROM prometheus_rows_at(NULL::visit, '$begin', '{"at": "2026-01-01 20:00"}')}),
	1, 'a key is read as the caller writes it');
is($node->error_of(qq{SELECT prometheus_rows_at(NULL::transfer, '$begin', '$_')})->{state}, '22023', "not the key $_")
  foreach '{"n": 1}', '{"n": 1, "account": null}', '{"n": 1, "account": 1, "x": 1}', '{"n": 1, "x": 1}', '[1, 1]', '1';

# One that has another text than was asked for.
sql(q{CREATE TABLE equal (n numeric, scaled numeric(9, 2), f float8, PRIMARY KEY (n, scaled, f));
	INSERT INTO equal VALUES (1.0, 2, '-0'), (1, 2, 5), (2, 2, '-0');
	SELECT prometheus_track('equal');
	UPDATE equal SET n = 1.00 WHERE n = 1 AND f = 0});
my @equal = moment();
sql(q{DELETE FROM equal WHERE n = 2});
push @equal, moment();
is( sql(join ';', map { my $then = $_; map { qq{SELECT count(x), string_agg(x::text, '') FROM prometheus_rows_at(NULL::equal, '$then', '$_') x} }
		  ('{"n": 1, "scaled": 2.0, "f": 0}', '{"n": "2.00", "scaled": 2, "f": 0}', '{"n": 3, "scaled": 2, "f": 0}') } @equal),
	"1|(1.00,2.00,-0)\n1|(2,2.00,-0)\n0|\n1|(1.00,2.00,-0)\n0|\n0|", 'an equal key is the same one');
sql('DROP TABLE equal');

# What somebody else changes is his own, and a conflict.

sql(q{UPDATE account SET owner = 'theirs' WHERE id = 1});
is(verdicts($task), 'conflict 1, revert 10', 'a change since is a conflict');
my $error = $node->error_of("SELECT prometheus_undo($task, false)");
is($error->{state}, 'PM007', 'and nothing is undone');
like($error->{detail}, qr/^public\.account, key 1: it was changed at .*, by no task\.$/, 'with the reason');
is(sql(q{SELECT owner, balance FROM account WHERE id = 2}), 'o2|130', 'not even the rest');

# A task on the same rows, and its undo.

my $second = run_calls([ 'pay', { a => 1, amount => 5 } ]);
is(verdicts($second), 'revert 2', 'another task');
is(verdicts($second, ', false'), 'revert 2', 'is undone');
is(sql(q{SELECT owner, balance FROM account WHERE id = 1}), 'theirs|70', 'to what it found');

# The undo.

$second = run_calls([ 'pay', { a => 5, amount => 1 } ], [ 'close', { a => 4 } ], [ 'open', { owner => 'x' } ]);
my $moment = moment();
my $at_moment = rows($node);
is(verdicts($second, ', false'), 'revert 7', 'the undo says what it did');
is(verdicts($second, ', false'), 'undone 7', 'a second one has nothing to do');
is( rows($node),
	rows($node, moment()), 'the undo is in the history');
is(rows($node, $moment), $at_moment, 'and what was before it stays there');
is(rows($node, $begin), $at_begin, 'all of it');
is(sql(q{SELECT sum(balance), count(*) FROM account WHERE id >= 4}), '200|3', 'accounts are as before');

# TRUNCATE, which a person has approved.

my $at_visits = sql('SELECT x FROM visit x ORDER BY 1');
my $third = $node->submit($node->script([ [ 'wipe', {} ] ], 'done') . q{, 'clerk'});
$node->wait_task($third, 'waiting');
sql("SET ROLE boss; SELECT prometheus_approve(approval_id) FROM prometheus.approval WHERE task_id = $third");
$node->wait_task($third, 'completed');
is(sql('SELECT count(*) FROM visit'), 0, 'a tool has emptied a table');
is(verdicts($third, ', false'), 'revert 5', 'that can be undone');
is(sql('SELECT x FROM visit x ORDER BY 1'), $at_visits, 'and is as before');

# What the executor does next is not the task's.
is(sql('SELECT count(*) FROM prometheus._row_version WHERE task_id IS NOT NULL AND undoes IS NOT NULL'), 0, 'what is undone is no task\'s');

# A dump and a restore, where oids, attribute numbers and xids are others.

sql('ALTER TABLE account RENAME owner TO holder');
$moment = moment();
$at_moment = rows($node);
my $other = PromCluster->new('other');
# It has less processes than prometheus may need, and an alert says so.
$other->init(conf => "timezone = 'Asia/Kolkata'\nmax_worker_processes = 12\nprometheus.executors = 16\n");
$other->start;
$other->safe_psql('postgres', 'CREATE ROLE clerk; CREATE ROLE boss');
sql(q{SELECT prometheus_mark('dumped')});
my $answers = answers($node, 'dumped', tables => [ split / /, $tables ]);
my $dump = $node->basedir . '/dump';
command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
# Keys come last, as they may with several jobs.
my ($list) = run_command([ 'pg_restore', '-l', $dump ]);
my @entries = split /\n/, $list;
append_to_file("$dump.extension", join("\n", grep({ / EXTENSION - prometheus/ } @entries)) . "\n");
append_to_file("$dump.list", join("\n", (grep { !/ CONSTRAINT | EXTENSION - prometheus/ } @entries), grep({ / CONSTRAINT / } @entries)) . "\n");
# Whatever the workers do there meanwhile.
command_ok([ 'pg_restore', '-e', '-L', "$dump.extension", '-d', $other->connstr('postgres'), $dump ], 'pg_restore of the extension');
$other->wait_for('the publisher waits for something to do',
	q{SELECT state, wait_event_type FROM pg_stat_activity WHERE backend_type = 'prometheus publisher'}, 'idle|Extension');
is($other->safe_psql('postgres', 'SELECT (SELECT count(*) FROM prometheus.mark), (SELECT count(*) FROM prometheus.event)'),
	'0|0', 'neither a mark nor an event is there yet');
command_ok([ 'pg_restore', '-e', '-L', "$dump.list", '-d', $other->connstr('postgres'), $dump ], 'pg_restore');
is( $other->safe_psql('postgres', q{SELECT status, value FROM prometheus_health() WHERE check_name = 'tracked tables'}),
	'ok|3', 'the tables are tracked');
is(rows($other), $at_moment, 'the rows are there');
is(answers($other, 'dumped', tables => [ split / /, $tables ]), $answers, 'as of marks, with all relations');
$other->safe_psql('postgres', 'SELECT prometheus_mark()');
is(rows($other, $moment), $at_moment, 'as of the last moment');
my $renamed = $at_begin;
is(rows($other, $begin), $renamed, 'as of the first');
is(rows($other, $after), $at_after, 'and in between');
is( $other->safe_psql('postgres', "SELECT count(*) FILTER (WHERE verdict = 'revert'), count(*) FILTER (WHERE verdict = 'conflict') FROM prometheus_undo($task)"),
	'9|2', 'what a task changed there can be listed here');
$other->safe_psql('postgres', q{UPDATE account SET holder = 'here' WHERE id = 5; ALTER TABLE account RENAME holder TO who; INSERT INTO transfer VALUES (5, 50, 2, 'out')});
$other->safe_psql('postgres', 'SELECT prometheus_mark()');
is(rows($other, $other->safe_psql('postgres', 'SELECT clock_timestamp()')), rows($other), 'it goes on here');
is(rows($other, $begin), $renamed, 'and what was before stays so');

$other->reload;
$other->wait_for('an alert is raised, now that there are facts',
	q{SELECT status FROM prometheus.alert WHERE name = 'worker_processes'}, 'raised');

# One table out of a dump: what it has was not recorded, and that is said.
$dump = $node->basedir . '/visit.sql';
command_ok([ 'pg_dump', '-t', 'visit', '-f', $dump, $node->connstr('postgres') ], 'pg_dump of one table');
sql('DROP TABLE visit');
command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $dump ], 'and its restore');
is(sql(q{SELECT status, value FROM prometheus_health() WHERE check_name = 'tracked tables'}),
	'warning|2; not recorded any more: public.visit', 'health knows of the table');
is($node->error_of("SELECT prometheus_rows_at(NULL::visit, '$moment')")->{state}, '55000', 'it has no history');
sql(q{INSERT INTO visit VALUES (now(), 1); SELECT prometheus_track('visit'); DELETE FROM visit WHERE account = 1});
is(sql(q{SELECT value FROM prometheus_health() WHERE check_name = 'tracked tables'}), '3', 'until it begins anew');

# Of many versions of a key the scan goes on at the next key; long keys, too, and
# versions after the moment that fill pages of the index.
sql(q{CREATE TABLE busy (id text PRIMARY KEY, n int); SELECT prometheus_track('busy')});
my $many = q{DO $$BEGIN FOR i IN 1 .. %d LOOP UPDATE busy SET n = n + 1; END LOOP; END$$};
foreach my $length (1, 700)
{
	sql(qq{DELETE FROM busy; INSERT INTO busy SELECT repeat(c, $length), 0 FROM unnest('{a,b,c,d}'::text[]) c});
	sql(sprintf $many, 30);
	my $then = moment();
	sql(sprintf $many, 400);
	sql('SELECT prometheus_mark()');
	is(sql("SELECT string_agg(left(id, 1) || n, ' ' ORDER BY id) FROM prometheus_rows_at(NULL::busy, '$then')"),
		'a30 b30 c30 d30', "keys of $length, as of before many changes");
	is(sql("SELECT string_agg(left(id, 1) || n, ' ' ORDER BY id) FROM prometheus_rows_at(NULL::busy, clock_timestamp())"),
		'a430 b430 c430 d430', "keys of $length, as of now");
}

# Values that ALTER TABLE computes, of a column that keeps its type.
my @then = moment();
sql('ALTER TABLE busy ALTER n TYPE int USING n * 2');
push @then, moment();
is( sql(join ';', map { "SELECT string_agg(left(id, 1) || n, ' ' ORDER BY id) FROM prometheus_rows_at(NULL::busy, '$_')" } @then),
	"a430 b430 c430 d430\na860 b860 c860 d860", 'before and after they got other values');

# A prepared transaction is seen from its commit on.
sql(q{BEGIN; UPDATE busy SET n = 1; SAVEPOINT s; UPDATE busy SET n = 2; ROLLBACK TO s; PREPARE TRANSACTION 'later'});
@then = moment();
sql(q{COMMIT PREPARED 'later'});
push @then, moment();
is( sql(join ';', map { "SELECT string_agg(DISTINCT n::text, ' ') FROM prometheus_rows_at(NULL::busy, '$_')" } @then),
	"860\n1", 'a prepared transaction');

# What logical replication brings to another server.
sql('CREATE PUBLICATION changes FOR TABLE busy');
$other->safe_psql('postgres', q{CREATE TABLE busy (id text PRIMARY KEY, n int); SELECT prometheus_track('busy')});
$other->safe_psql('postgres', sprintf q{CREATE SUBSCRIPTION changes CONNECTION '%s' PUBLICATION changes},
	$node->connstr('postgres') =~ s/'/''/gr);
$other->wait_for('rows are copied', 'SELECT count(*) FROM busy', 4);
sql(q{UPDATE busy SET n = 7 WHERE id ~ '^a'; DELETE FROM busy WHERE id ~ '^b'; UPDATE busy SET id = 'e' WHERE id ~ '^c'});
$other->wait_for('changes come', q{SELECT string_agg(left(id, 1) || n, ' ' ORDER BY id) FROM busy}, 'a7 d1 e1');
$other->safe_psql('postgres', 'SELECT prometheus_mark()');
my $brought = $other->safe_psql('postgres', 'SELECT clock_timestamp()');
sql('TRUNCATE busy');
$other->wait_for('and their end', 'SELECT count(*) FROM busy', 0);
$other->safe_psql('postgres', 'SELECT prometheus_mark()');
is( $other->safe_psql('postgres', join ';', map { "SELECT count(*), string_agg(left(id, 1) || n, ' ' ORDER BY id) FROM prometheus_rows_at(NULL::busy, $_)" } "'$brought'", 'clock_timestamp()'),
	"3|a7 d1 e1\n0|", 'what replication brings');
$other->safe_psql('postgres', 'DROP SUBSCRIPTION changes');

# Without a leaving trace.
sql('DROP EXTENSION prometheus CASCADE');
is(sql(q{SELECT count(*) FROM pg_trigger WHERE tgname ~ 'prometheus'}), 0, 'DROP EXTENSION takes the triggers along');
sql('UPDATE account SET balance = 1');

$other->stop;
$node->stop;
done_testing();
