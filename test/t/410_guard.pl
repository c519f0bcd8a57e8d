# Tools run as the role that they are for, and leave nothing behind but what
# they were to do: the rules at the head of src/guard.c, by their numbers.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Run a script as a role; what the model was told of its calls, in order.
sub told
{
	my ($role, $agent, @turns) = @_;
	my $script = $node->script(@turns, 'end');
	my $task = sql("SET ROLE $role; SELECT prometheus_submit($script, '$agent')");

	$node->wait_task($task, 'completed');
	return split /\n--\n/,
	  sql("SELECT string_agg(coalesce('Error: ' || error, output ->> 'content'), E'\\n--\\n' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND kind = 'tool'");
}

# One call.
sub call
{
	my ($role, $agent, $tool, $arguments) = @_;
	return (told($role, $agent, [ [ $tool, $arguments // {} ] ]))[0];
}

sub executor { return sql(q{SELECT pid FROM prometheus.worker WHERE role = 'executor'}); }

# The number of the rule without which a case fails; a tool's name (the tool
# may write if it begins with w), its body, and what the model is told.  One
# process runs them, one after the other.
my $not_in = qr/^Error: cannot .* within security-restricted operation/;
my $no_role = qr/^Error: cannot set parameter "(?:role|session_authorization)" within security-definer function/;
my @cases = (
	[ 1, 'w_fails', q{INSERT INTO log VALUES ('fails'); RAISE EXCEPTION 'no' USING DETAIL = 'Not so.', HINT = 'So.';}, qr/^Error: no\nDetail: Not so\.\nHint: So\.$/ ],
	[ 1, 'w_after', q{INSERT INTO log VALUES ('after'); RETURN 'written';}, qr/^written$/ ],
	[ 1, 'w_handled', q{BEGIN INSERT INTO log VALUES ('handled'); RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN RETURN 'handled'; END;}, qr/^handled$/ ],
	[ 1, 'w_commit', q{COMMIT;}, qr/^Error: invalid transaction termination/ ],
	[ 2, 'w_deferred_key', q{INSERT INTO child VALUES (1); RETURN 'written';}, qr/^written$/ ],
	[ 2, 'w_bad_key', q{INSERT INTO child VALUES (2);}, qr/^Error: insert or update on table "child" violates foreign key/ ],
	[ 2, 'w_deferred_trigger', q{INSERT INTO watched VALUES (1); RETURN (SELECT string_agg(words, ',') FROM log WHERE words ~ '^trigger');}, qr/^trigger low$/ ],
	[ '2, 4', 'w_defers', q{SET CONSTRAINTS ALL DEFERRED; INSERT INTO watched VALUES (2);}, qr/^Error: cannot fire deferred trigger within security-restricted operation/ ],
	[ 3, 'leaks', q{PERFORM set_config(n, v, false) FROM (VALUES ('work_mem', '77kB'), ('my.own', 'leak'), ('search_path', 'evil'), ('statement_timeout', '1'), ('row_security', 'off'), ('enable_seqscan', 'off'), ('lock_timeout', '1')) x(n, v); RETURN current_setting('my.own');}, qr/^leak$/ ],
	[ 3, 'settings', q{RETURN (SELECT string_agg(n || '=' || coalesce(current_setting(n, true), ''), ' ') FROM unnest(ARRAY['work_mem', 'my.own', 'search_path', 'statement_timeout', 'row_security', 'enable_seqscan', 'enable_hashjoin', 'plan_cache_mode', 'lock_timeout', 'transaction_isolation', 'transaction_read_only', 'jit']) n);},
		qr/^work_mem=4MB my.own= search_path=public, pg_temp statement_timeout=0 row_security=on enable_seqscan=on enable_hashjoin=on plan_cache_mode=auto lock_timeout=0 transaction_isolation=read committed transaction_read_only=on jit=on$/ ],
	[ 3, 'resets', q{RESET ALL; RETURN 'reset';}, qr/^reset$/ ],
	[ 3, 'w_settings', q{RETURN current_setting('transaction_read_only') || current_setting('search_path');}, qr/^offpublic, pg_temp$/ ],
	[ 4, 'who', q{RETURN current_user;}, qr/^low$/ ],
	[ 4, 'set_role', q{SET ROLE postgres;}, $no_role ],
	[ 4, 'set_own_role', q{SET ROLE low;}, $no_role ],
	[ 4, 'set_local_role', q{SET LOCAL ROLE postgres;}, $no_role ],
	[ 4, 'role_none', q{SET ROLE NONE;}, $no_role ],
	[ 4, 'reset_role', q{RESET ROLE;}, $no_role ],
	[ 4, 'config_role', q{PERFORM set_config('role', 'postgres', false);}, $no_role ],
	[ 4, 'authorization', q{SET SESSION AUTHORIZATION postgres;}, $no_role ],
	[ 4, 'no_authorization', q{SET SESSION AUTHORIZATION DEFAULT;}, $no_role ],
	[ 4, 'reset_authorization', q{RESET SESSION AUTHORIZATION;}, $no_role ],
	[ 4, 'pg_authid', q{RETURN (SELECT count(*) FROM pg_authid);}, qr/^Error: permission denied for table pg_authid/ ],
	[ 4, 'facts', q{RETURN (SELECT count(*) FROM prometheus._task);}, qr/^Error: permission denied for table _task/ ],
	[ 4, 'rows', q{RETURN (SELECT string_agg(words, ',') FROM rows);}, qr/^of low$/ ],
	[ 4, 'no_row_security', q{SET row_security = off; RETURN (SELECT string_agg(words, ',') FROM rows);}, qr/^Error: query would be affected by row-level security policy/ ],
	[ 4, 'w_temporary', q{CREATE TEMP TABLE t (a int);}, $not_in ],
	[ 4, 'prepare', q{EXECUTE 'PREPARE p AS SELECT 1';}, $not_in ],
	[ 4, 'listen', q{LISTEN x;}, qr/^Error: cannot execute LISTEN within/ ],
	[ 4, 'hold', q{EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1';}, $not_in ],
	[ 4, 'discard', q{EXECUTE 'DISCARD PLANS';}, qr/^Error: .*DISCARD/ ],
	[ 5, 'writes', q{INSERT INTO log VALUES ('read');}, qr/^Error: cannot execute INSERT in a read-only transaction/ ],
	[ 5, 'read_write', q{SET TRANSACTION READ WRITE; INSERT INTO log VALUES ('read');}, qr/^Error: cannot set transaction read-write mode inside a read-only transaction/ ],
	[ 5, 'config_write', q{PERFORM set_config('transaction_read_only', 'off', true); INSERT INTO log VALUES ('read');}, qr/^Error: cannot set transaction read-write mode inside a read-only transaction/ ],
	[ 5, 'write_within', q{BEGIN PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN INSERT INTO log VALUES ('read'); END;}, qr/^Error: cannot execute INSERT in a read-only transaction/ ],
	[ 5, 'next', q{RETURN nextval('counter');}, qr/^Error: cannot execute nextval\(\) in a read-only transaction/ ],
	[ 5, 'submits', q{RETURN prometheus_submit('x');}, qr/^Error: cannot execute prometheus_submit\(\) in a read-only transaction/ ],
	[ 8, 'w_locks', q{PERFORM pg_advisory_lock(4711), pg_advisory_lock_shared(4712); RETURN 'locked';}, qr/^locked$/ ],
	[ 8, 'w_next', q{RETURN nextval('counter') || ' ' || lastval() || ' ' || currval('counter');}, qr/^(\d+) \1 \1$/ ],
	[ 8, 'last', q{RETURN lastval();}, qr/^Error: lastval is not yet defined in this session/ ],
	[ 8, 'current', q{RETURN currval('counter');}, qr/^Error: currval of sequence "counter" is not yet defined in this session/ ]);

$node->init(conf => "prometheus.executors = 1\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;
sql(<<'EOSQL');
CREATE ROLE low;
CREATE ROLE other;
CREATE ROLE evil;
GRANT prometheus_agent_user TO low, other;
GRANT CREATE ON SCHEMA public TO evil;
CREATE SEQUENCE counter;
CREATE TABLE log (words text);
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE watched (id int);
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN INSERT INTO log VALUES ('trigger ' || current_user); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER watch AFTER INSERT ON watched DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION watch();
CREATE TABLE rows (owner text, words text);
INSERT INTO rows VALUES ('low', 'of low'), ('other', 'of other');
ALTER TABLE rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON rows USING (owner = current_user);
GRANT ALL ON ALL TABLES IN SCHEMA public TO low, other;
GRANT ALL ON SEQUENCE counter TO low, other;
EOSQL
sql(join("\n", map {
	my (undef, $name, $body) = @$_;
	sprintf 'CREATE FUNCTION %1$s() RETURNS text LANGUAGE plpgsql AS $body$BEGIN %2$s RETURN NULL; END$body$;'
	  . q{SELECT prometheus_set_tool('%1$s()', tier => '%3$s');},
	  $name, $body, $name =~ /^w/ && $name ne 'who' && $name !~ /^write/ ? 'write' : 'read'
} @cases));
my $tools = sql('SELECT array_agg(name) FROM prometheus.tool');
sql("SELECT prometheus_set_agent('a', 'scripted', tools => '$tools')");

my @told = told('low', 'a', [ map { [ $_->[1], {} ] } @cases ]);
is(scalar @told, scalar @cases, 'every case was told');
foreach my $i (0 .. $#cases)
{
	my ($rule, $name, $body, $expected) = @{ $cases[$i] };
	like($told[$i], $expected, "rule $rule: $name");
}
my $pid = executor();
is(sql(q{SELECT string_agg(words, ', ' ORDER BY words) FROM log}),
	'after, trigger low', 'rule 1: only what succeeded is there');
is(sql('SELECT string_agg(id::text, $$,$$) FROM child'), '1', 'rule 2: the row with a deferred key');
is(sql(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), 0, 'rule 8: no lock is left');
is_deeply([ told('other', 'a', [ [ 'who', {} ], [ 'rows', {} ] ]) ],
	[ 'other', 'of other' ], 'rule 4: of each its submitter');
is_deeply([ told('postgres', 'a', [ [ 'who', {} ], [ 'rows', {} ], [ 'set_role', {} ] ]) ],
	[ 'postgres', 'of low,of other', 'Error: cannot set parameter "role" within security-definer function' ],
	'rule 4: a superuser is one');
sql(q{SELECT prometheus_set_agent('b', 'scripted', tools => '{who,rows,w_deferred_trigger}', run_as => 'other')});
is_deeply([ told('low', 'b', [ [ 'who', {} ], [ 'rows', {} ] ]) ],
	[ 'other', 'of other' ], 'rule 4: run_as goes first');
is(executor(), $pid, 'one process ran all of them');

# 7: arguments are converted as the role: checks of domains, casts, defaults.
sql(<<'EOSQL');
CREATE FUNCTION seen(t text, place text) RETURNS boolean LANGUAGE plpgsql AS
$$BEGIN INSERT INTO log VALUES (place || ' ' || current_user); RETURN true; END$$;
CREATE DOMAIN checked AS text CHECK (seen(VALUE, 'check'));
CREATE FUNCTION given() RETURNS text LANGUAGE plpgsql AS
$$BEGIN INSERT INTO log VALUES ('default ' || current_user); RETURN 'x'; END$$;
CREATE FUNCTION w_checked(a checked, b text DEFAULT given()) RETURNS text LANGUAGE sql AS 'SELECT b';
SELECT prometheus_set_tool('w_checked(checked, text)', tier => 'write');
SELECT prometheus_set_agent('a', tools => '{w_checked,who,w_deferred_trigger,rows}');
TRUNCATE log;
EOSQL
is(call('low', 'a', 'w_checked', { a => 'y' }), 'x', 'rule 7: a domain and a default');
is(sql(q{SELECT string_agg(DISTINCT words, ', ' ORDER BY words) FROM log}),
	'check low, default low', 'rule 7: are code of the role');

# 6: a tool that does not end.
sql(<<'EOSQL');
CREATE FUNCTION sleeps() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log VALUES ('sleeps');
	PERFORM pg_sleep(600);
END $$;
CREATE FUNCTION stubborn() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log VALUES ('stubborn');
	LOOP
		BEGIN
			PERFORM pg_sleep(600);
		EXCEPTION WHEN query_canceled THEN NULL;
		END;
	END LOOP;
END $$;
CREATE FUNCTION waits_for_lock() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(1)';
CREATE FUNCTION disarms() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET statement_timeout = 0;
	SET LOCAL statement_timeout = 0;
	PERFORM pg_sleep(600);
END $$;
SELECT prometheus_set_tool(f::regprocedure, tier => 'write') FROM unnest(ARRAY['sleeps()', 'stubborn()', 'waits_for_lock()', 'disarms()']) f;
SELECT prometheus_set_agent('slow', 'scripted', tools => '{sleeps,stubborn,waits_for_lock,disarms,who}', options => '{"tool_timeout": "100ms"}');
TRUNCATE log;
EOSQL
my $session = $node->background_psql('postgres');
$session->query_safe('SELECT pg_advisory_lock(1)');
my $stopped = 'Error: it did not end within 100 ms and was stopped';
$pid = executor();
is_deeply([ told('low', 'slow', [ map { [ $_, {} ] } qw(sleeps waits_for_lock disarms who) ]) ],
	[ $stopped, $stopped, $stopped, 'low' ], 'rule 6: what sleeps or waits is stopped');
is(executor(), $pid, 'rule 6: and its process goes on');
$session->quit;
is_deeply([ told('low', 'slow', [ map { [ $_, {} ] } qw(stubborn who) ]) ],
	[ 'Error: it did not end when it was to be stopped, and its process was ended; nothing was changed', 'low' ],
	'rule 6: what catches the cancel is stopped as well');
isnt(executor(), $pid, 'rule 6: by the end of its process');
is(sql('SELECT count(*) FROM log'), 0, 'rule 6: nothing of them is there');
is(sql(q{SELECT count(*) FROM prometheus.task WHERE attempts <> 1}), 0, 'no task needed a second attempt');

# Roles and privileges are those of now.
sql('REVOKE EXECUTE ON FUNCTION who() FROM public');
is(call('low', 'a', 'who'), 'Error: permission denied for function who', 'EXECUTE was revoked');
sql('GRANT EXECUTE ON FUNCTION who() TO low');
is(call('low', 'a', 'who'), 'low', 'and is granted again');
sql(q{CREATE ROLE brief; GRANT EXECUTE ON FUNCTION who() TO brief;
	SELECT prometheus_set_agent('c', 'scripted', tools => '{who}', run_as => 'brief')});
is(call('low', 'c', 'who'), 'brief', 'run_as');
my $gone = 'Error: the role that it is to run as does not exist any more';
sql('REVOKE EXECUTE ON FUNCTION who() FROM brief; DROP ROLE brief');
is(call('low', 'c', 'who'), $gone, 'run_as was dropped');
sql('CREATE ROLE brief SUPERUSER');
is(call('low', 'c', 'who'), $gone, 'another role of its name is another');
$node->pause('agent:a');
my $script = $node->script([ [ 'who', {} ], [ 'rows', {} ] ], 'end');
my $task = sql("SET ROLE low; SELECT prometheus_submit($script, 'a')");
sql('ALTER ROLE low RENAME TO lower; CREATE ROLE low SUPERUSER');
sql(q{SELECT prometheus_resume('agent:a')});
$node->wait_task($task, 'completed');
is( sql("SELECT string_agg('Error: ' || error, ',') FROM prometheus.step WHERE task_id = $task AND kind = 'tool'"),
	"$gone,$gone", 'a role of the submitter\'s name is not the submitter');
sql('DROP ROLE low; ALTER ROLE lower RENAME TO low');

# What others make does not get called instead: not the functions of the same
# name that fit as well or better, and not what is first in another search_path.
sql(<<'EOSQL');
CREATE SCHEMA evil AUTHORIZATION evil;
CREATE FUNCTION helper() RETURNS text LANGUAGE sql AS $$SELECT 'good'$$;
CREATE FUNCTION f(a numeric, b int DEFAULT 1) RETURNS text LANGUAGE sql AS $$SELECT 'good ' || a || ' ' || b || ' ' || helper()$$;
CREATE FUNCTION other_default(a int) RETURNS int LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION g(a int DEFAULT other_default(5)) RETURNS int LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION v(VARIADIC a text[]) RETURNS text LANGUAGE sql AS $$SELECT 'good ' || array_to_string(a, ',')$$;
SELECT prometheus_set_tool(f::regprocedure) FROM unnest(ARRAY['f(numeric, int)', 'g(int)', 'v(text[])']) f;
SELECT prometheus_set_agent('a', tools => '{f,g,v,who}');
EOSQL
my @all = ([ 'f', { a => 1 } ], [ 'f', { a => 1, b => 2 } ], [ 'g', {} ], [ 'v', { a => ['x'] } ], [ 'v', { a => [ 'x', 'y' ] } ]);
my @good = ('good 1 1 good', 'good 1 2 good', '5', 'good x', 'good x,y');
is_deeply([ told('low', 'a', \@all) ], \@good, 'before');
sql(<<'EOSQL');
SET ROLE evil;
CREATE FUNCTION public.f(a int) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;
CREATE FUNCTION public.f(a numeric) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;
CREATE FUNCTION public.f(a int, b int) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;
CREATE FUNCTION public.f(VARIADIC a numeric[]) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;
CREATE FUNCTION public.g() RETURNS int LANGUAGE sql AS 'SELECT 666';
CREATE FUNCTION public.g(a bigint, b int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT 666';
CREATE FUNCTION public.v(a text) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;
CREATE FUNCTION public.v(a text, b text) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;
CREATE FUNCTION public.other_default(a bigint) RETURNS int LANGUAGE sql AS 'SELECT 666';
CREATE FUNCTION evil.f(a numeric, b int DEFAULT 1) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;
CREATE FUNCTION evil.helper() RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;
CREATE FUNCTION evil.other_default(a int) RETURNS int LANGUAGE sql AS 'SELECT 666';
CREATE FUNCTION evil.to_jsonb(a text) RETURNS jsonb LANGUAGE sql AS $$SELECT '"evil"'::jsonb$$;
CREATE FUNCTION evil.int4(a numeric) RETURNS int LANGUAGE sql AS 'SELECT 666';
CREATE FUNCTION public.to_jsonb(a text) RETURNS jsonb LANGUAGE sql AS $$SELECT '"evil"'::jsonb$$;
CREATE DOMAIN evil.text AS pg_catalog.text CHECK (false);
CREATE DOMAIN evil.int4 AS pg_catalog.int4 CHECK (false);
RESET ROLE;
GRANT USAGE ON SCHEMA evil TO public;
ALTER ROLE low SET search_path = evil, public;
ALTER ROLE postgres SET search_path = evil, pg_catalog, public;
EOSQL
sql('SELECT count(pg_terminate_backend(pid)) FROM prometheus.worker WHERE role = $$executor$$');
is_deeply([ told('low', 'a', \@all) ], \@good, 'after: nothing of it is called');
sql(q{CREATE FUNCTION public.f(a numeric, b int, c int DEFAULT 1) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$});
like(call('low', 'a', 'f', { a => 1 }), qr/^Error: function public\.f\(numeric, integer\) is not unique/,
	'one that fits as well, with a default: neither is called');

$node->check_invariants('after the guard', all_ended => 1);
$node->stop;
done_testing();
