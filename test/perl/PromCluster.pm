# A PostgreSQL::Test::Cluster with the extension preloaded, and subroutines that
# wait for what its workers do.  Nothing here sleeps for a fixed time: each
# waits for a condition and, when it does not come, says what was seen last.
#
#	my $node = PromCluster->new('main');
#	$node->init(databases => ['postgres'], restart_after_crash => 1);
#	$node->start;
#	$node->create_extension;
#	my $id = $node->safe_psql('postgres', q{SELECT prometheus_submit('hi')});
#	$node->wait_task($id, 'completed');
#	$node->check_invariants('after one task', all_ended => 1);
package PromCluster;

use strict;
use warnings FATAL => 'all';
use parent 'PostgreSQL::Test::Cluster';

use Carp qw(croak);
use Fcntl qw(LOCK_EX);
use JSON::PP ();
use PostgreSQL::Test::Utils qw(slurp_file); # its others are not methods
use PromSession;
use Test::More;
use Time::HiRes qw(time usleep);

# The same for whoever runs the tests; and a test that is interrupted stops its
# servers, which PostgreSQL::Test::Cluster does at the end of the program only.
BEGIN
{
	$SIG{TERM} = $SIG{INT} = sub { die "ended by a signal\n" };
	delete @ENV{ grep { /^LC_/ } keys %ENV };
	$ENV{LANG} = 'C.UTF-8';
}

# From now on send statements to psqls that stay, one for each database, or each
# of those named, as far as nothing of the result depends on that (see
# keeps_session).  A test that counts sessions does without.
sub keep_sessions
{
	my ($self, @databases) = @_;
	$self->{sessions} = {};
	$self->{kept} = @databases ? { map { $_ => 1 } @databases } : undef;
	return;
}

sub keeps_sessions_of
{
	my ($self, $dbname) = @_;
	return $self->{sessions} && (!$self->{kept} || $self->{kept}{$dbname});
}

sub end_sessions
{
	my ($self) = @_;
	%{ $self->{sessions} } = () if $self->{sessions};
	return;
}

# The session of a database: kept, or for the caller only.
sub session
{
	my ($self, $dbname) = @_;
	return PromSession->new($self, $dbname) if !$self->keeps_sessions_of($dbname);
	return $self->{sessions}{$dbname} //= PromSession->new($self, $dbname);
}

# May these statements go to a psql that others have used?  Not with options of
# psql, nor its commands, nor data that follow; nor what has no end without the
# end of the input.  And settings of databases and roles are those of new
# sessions.
sub keeps_session
{
	my ($self, $dbname, $sql, %params) = @_;

	delete @params{qw(stdout stderr on_error_die)};
	return 0
	  if !$self->keeps_sessions_of($dbname)
	  || !(delete $params{on_error_stop} // 1)
	  || %params;
	if ($sql =~ /\b(?:ALTER\s+(?:DATABASE|ROLE|USER)|(?:CREATE|DROP)\s+DATABASE|pg_reload_conf)\b/i)
	{
		$self->end_sessions;
		return 0;
	}
	return
		 PromSession::can_run($sql)
	  && $sql !~ /\\|\bSTDIN\b/i
	  && ($sql =~ tr/(//) == ($sql =~ tr/)//)
	  && ($sql =~ tr/'//) % 2 == 0
	  && ($sql =~ tr/"//) % 2 == 0;
}

# PostgreSQL::Test::Cluster's psql, of a psql that stays.
sub psql_of_session
{
	my ($self, $database, $sql, %params) = @_;
	my ($rc, $out, $error) = $self->session($database)->run($sql);

	${ $params{stdout} } = $out if $params{stdout};
	${ $params{stderr} } = $error if $params{stderr};
	print STDERR $error if $error ne '' && !$params{stderr} && !wantarray;
	croak "error $rc running SQL: '$error'\nwith sql '$sql'"
	  if $rc && $params{on_error_die};
	return wantarray ? ($rc, $out, $error) : $rc;
}

# A psql that finds no server may end before it has read the statement, which
# IPC::Run dies of: it is a psql that could not connect, as any other.
sub psql
{
	my ($self, $database, $sql, %params) = @_;
	my $list = wantarray;
	my @result;

	return $self->psql_of_session($database, $sql, %params)
	  if $self->keeps_session($database, $sql, %params);
	my $done = eval {
		if ($list)
		{
			@result = $self->SUPER::psql($database, $sql, %params);
		}
		else
		{
			$result[0] = $self->SUPER::psql($database, $sql, %params);
		}
		1;
	};

	if (!$done)
	{
		die $@ if $@ !~ /Broken pipe/ || $params{on_error_die};
		@result = (2, '', $@);
	}
	return $list ? @result : $result[0];
}

# Whatever the server is told, those who stay are told nothing: sessions begun
# after it have its settings.
foreach my $name (qw(start stop restart reload kill9 promote))
{
	my $method = "SUPER::$name";
	no strict 'refs'; ## no critic
	*$name = sub {
		my ($self, @arguments) = @_;
		$self->end_sessions;
		return $self->$method(@arguments);
	};
}

# Prepare a server.  Besides those of PostgreSQL::Test::Cluster:
#	databases => [...]			have workers (default: postgres)
#	restart_after_crash => 1	the server outlives the crash of a process
#	fsync => 1					for tests about what a crash leaves behind
#	conf => "..."				more lines for postgresql.conf
sub init
{
	my ($self, %params) = @_;
	my $databases = delete $params{databases} // ['postgres'];
	my $restart = delete $params{restart_after_crash};
	my $fsync = delete $params{fsync};
	my $conf = delete $params{conf} // '';

	{
		no warnings 'redefine';
		my $run = \&PostgreSQL::Test::Utils::system_or_bail;
		local *PostgreSQL::Test::Utils::system_or_bail =
		  sub { copy_template(@_) or $run->(@_) };
		$self->SUPER::init(%params);
	}
	$self->append_conf('postgresql.conf', slurp_file('test/prometheus.conf'));
	$self->append_conf('postgresql.conf',
		sprintf "prometheus.databases = '%s'\n", join(', ', @$databases));

	# Here statements wait for workers; and a log of every statement would be
	# one of polling.
	$self->append_conf('postgresql.conf',
		"statement_timeout = '${PostgreSQL::Test::Utils::timeout_default}s'\n"
		  . "log_statement = none\n");
	$self->append_conf('postgresql.conf', "restart_after_crash = on\n")
	  if $restart;
	$self->append_conf('postgresql.conf', "fsync = on\n") if $fsync;
	$self->append_conf('postgresql.conf', $conf) if $conf ne '';
	return;
}

# The first server of a file has the files of a template instead of an initdb
# of its own.  Another has: servers are told apart by an identifier.
my $copied;

sub copy_template
{
	my ($program, $option, $directory, @options) = @_;

	return 0 if $program ne 'initdb' || "@options" ne '-A trust -N' || $copied++;
	my $template = "$PostgreSQL::Test::Utils::tmp_check/template";
	open(my $lock, '>', "$template.lock") or croak "$template.lock: $!";
	flock($lock, LOCK_EX) or croak "$template.lock: $!";
	if (!-e "$template.made")
	{
		PostgreSQL::Test::Utils::system_or_bail($program, $option, $template, @options);
		PostgreSQL::Test::Utils::append_to_file("$template.made", '');
	}
	PostgreSQL::Test::Utils::system_or_bail('cp', '-a', $template, $directory);
	return 1;
}

sub create_extension
{
	my ($self, $dbname) = @_;
	$self->safe_psql($dbname // 'postgres', 'CREATE EXTENSION prometheus');
	return;
}

# A pause is committed at once, and the processes hear of it in a moment.
sub pause
{
	my ($self, $target) = @_;

	$self->safe_psql('postgres', "SELECT prometheus_pause('$target')");
	$self->wait_for("the processes know that $target is paused",
		"SELECT state FROM prometheus._gates() WHERE target = '$target'", 'paused');
	return;
}

# Submit a task and return its id; the arguments are SQL.
sub submit
{
	my ($self, $arguments, %params) = @_;
	return $self->safe_psql($params{dbname} // 'postgres',
		"SELECT prometheus_submit($arguments)");
}

# The same of a task with which a process crashes, perhaps before the session
# that has submitted it is told its id: nobody submits another one meanwhile.
sub submit_to_crash
{
	my ($self, $arguments) = @_;
	my ($rc, $id) = $self->psql('postgres', "SELECT prometheus_submit($arguments)");

	return $id if $rc == 0;
	$self->wait_for('the server is back', 'SELECT 1', 1);
	return $self->safe_psql('postgres', 'SELECT max(task_id) FROM prometheus._task');
}

# Make an agent, and a model of the same name, for one behaviour of a FakeLLM;
# with secret => ..., options => '{...}', instructions => ..., name => ....
sub fake_agent
{
	my ($self, $llm, $behaviour, %params) = @_;
	my $name = $params{name} // $behaviour;
	my $text = sub { defined $_[0] ? "'$_[0]'" : 'NULL' };

	$self->safe_psql(
		$params{dbname} // 'postgres',
		sprintf "SELECT prometheus_set_model('%s', 'openai', '%s', '%s', %s, options => %s);"
		  . "SELECT prometheus_set_agent('%s', '%s', %s);",
		$name, $params{url} // $llm->url('/v1'), $behaviour,
		$text->($params{secret}), $text->($params{options} // '{}'),
		$name, $name, $text->($params{instructions}));
	return $name;
}

# Make a model "scripted", an SQL function that says what the request tells it
# to.  A request is a list of its turns, the last of which it repeats:
#	"text"						an answer
#	["text", [NAME, ARGUMENTS], ...]	tool calls, with or without a text;
#								arguments that are a string are given as it is
#	{...}						the message itself
# The model "fake-tools" of fake_llm.py understands the same.
sub create_scripted_model
{
	my ($self, $dbname) = @_;
	$self->safe_psql($dbname // 'postgres', <<'EOSQL');
CREATE FUNCTION scripted(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
	turn int;
	script jsonb;
	said jsonb;
	message jsonb;
BEGIN
	SELECT count(*) FILTER (WHERE m ->> 'role' = 'assistant'),
	       (array_agg(m ->> 'content' ORDER BY n DESC)
	           FILTER (WHERE m ->> 'role' = 'user'))[1]::jsonb
	  INTO turn, script
	  FROM jsonb_array_elements(request -> 'messages') WITH ORDINALITY AS x(m, n);
	said := script -> least(turn, jsonb_array_length(script) - 1);
	message := jsonb_build_object('role', 'assistant') || CASE jsonb_typeof(said)
		WHEN 'object' THEN said
		WHEN 'array' THEN jsonb_build_object(
			'content', CASE jsonb_typeof(said -> 0) WHEN 'string' THEN said -> 0 END,
			'tool_calls', (
				SELECT jsonb_agg(jsonb_build_object(
					'id', format('call_%s_%s', turn + 1, n),
					'type', 'function',
					'function', jsonb_build_object(
						'name', c -> 0,
						'arguments', CASE jsonb_typeof(c -> 1)
							WHEN 'string' THEN c ->> 1
							ELSE (c -> 1)::text END)) ORDER BY n)
				  FROM jsonb_path_query(said, 'strict $[*] ? (@.type() == "array")')
				       WITH ORDINALITY AS x(c, n)))
		ELSE jsonb_build_object('content', said) END;
	RETURN jsonb_build_object(
		'choices', jsonb_build_array(jsonb_build_object(
			'index', 0,
			'finish_reason', CASE WHEN message ? 'tool_calls' THEN 'tool_calls' ELSE 'stop' END,
			'message', message)),
		'usage', jsonb_build_object('prompt_tokens', 10, 'completion_tokens', 5));
END $$;
SELECT prometheus_set_model('scripted', 'function', handler => 'scripted(jsonb)');
EOSQL
	return;
}

# Such a request, as an SQL literal.
sub script
{
	my ($self, @turns) = @_;
	my $json = JSON::PP->new->ascii->canonical->encode(\@turns);
	return "\$script\$$json\$script\$";
}

# Submit such a request to an agent, its turns in an array, and wait until its
# task has a status (default: completed); the task.
sub run_script
{
	my ($self, $agent, $turns, $status) = @_;
	my $task = $self->submit($self->script(@$turns) . ", '$agent'");

	$self->wait_task($task, $status // 'completed');
	return $task;
}

# The same of a request in words, to the agent default if there is no other.
sub run_request
{
	my ($self, $request, $status, $agent) = @_;
	my $task = $self->submit(sprintf q{$r$%s$r$, '%s'}, $request, $agent // 'default');

	$self->wait_task($task, $status // 'completed');
	return $task;
}

# What the model of a task was told of its tool calls before a step.
sub told
{
	my ($self, $task, $step) = @_;
	my $prompt = JSON::PP::decode_json($self->safe_psql('postgres',
		"SELECT prometheus_prompt($task, $step)"));
	return map { $_->{content} } grep { $_->{role} eq 'tool' } @{ $prompt->{messages} };
}

# The steps of a task, in order: number, kind, name, status.
sub steps
{
	my ($self, $task) = @_;
	return $self->safe_psql('postgres',
		"SELECT string_agg(concat_ws(' ', step, kind, name, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task");
}

# The error that a statement ends with: state (empty if there is none), message,
# detail and hint.
sub error_of
{
	my ($self, $sql, %params) = @_;
	my ($rc, undef, $err) = $self->psql($params{dbname} // 'postgres', $sql,
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	my %error = (state => '');

	return \%error if $rc == 0;
	@error{qw(state message)} = ($1, $2)
	  if $err =~ /^(?:psql:\S+ )?(?:ERROR|FATAL):  (\w{5}): (.*)$/m;
	$error{ lc $1 } = $2 while $err =~ /^(DETAIL|HINT):  (.*)$/mg;
	return \%error;
}

# A row of prometheus_health(): its status, value and hint.
sub health
{
	my ($self, $check, %params) = @_;
	return $self->safe_psql($params{dbname} // 'postgres',
		"SELECT status, value, hint FROM prometheus_health() WHERE check_name = '$check'");
}

# How often a pattern is in the server's log, from an offset on.
sub log_count
{
	my ($self, $pattern, $offset) = @_;
	my $log = slurp_file($self->logfile, $offset // 0);
	return scalar(() = $log =~ /$pattern/g);
}

# Wait until a query returns the expected text; else die with what it returned
# last.  An error counts as another answer: the server may be restarting.
sub wait_for
{
	my ($self, $what, $query, $expected, %params) = @_;
	my $dbname = $params{dbname} // 'postgres';
	my $timeout = $params{timeout} // $PostgreSQL::Test::Utils::timeout_default;
	my $end = time + $timeout;
	my $session = $self->session($dbname);
	my $last;

	$expected //= 't';
	for (;;)
	{
		(my $ok, $last) = $session->ask($query);
		return if $ok && $last eq $expected;
		last if time >= $end;
		usleep(20_000);
	}
	my ($rc, $live) = $self->psql($dbname,
		q{SELECT count(*), status, why, min(task_id), max(task_id), min(due_at) FROM prometheus.queue GROUP BY status, why LIMIT 20;
		SELECT * FROM prometheus.gate LIMIT 20});
	croak "waited $timeout s in vain for: $what\nquery: $query\n"
	  . "expected: $expected\nlast seen: $last\n"
	  . ($rc == 0 ? "what lives, and gates:\n$live" : '');
}

# Wait until a task has a status (a list: one of them); return it.
sub wait_task
{
	my ($self, $task_id, $status, %params) = @_;
	my @any = ref $status ? @$status : ($status);
	my $list = join(', ', map { "'$_'" } @any);
	my $found = eval {
		$self->wait_for("task $task_id is @any",
			"SELECT status IN ($list) FROM prometheus.task WHERE task_id = $task_id",
			't', %params);
		1;
	};

	if (!$found)
	{
		my $error = $@;
		my (undef, $facts) = $self->psql(
			$params{dbname} // 'postgres',
			"\\x on\nSELECT * FROM prometheus.task WHERE task_id = $task_id;\n"
			  . "SELECT * FROM prometheus.attempt WHERE task_id = $task_id;",
			extra_params => ['-a']);
		croak "$error\n$facts";
	}
	return $any[0] if @any == 1;
	return $self->safe_psql($params{dbname} // 'postgres',
		"SELECT status FROM prometheus.task WHERE task_id = $task_id");
}

# The pid of a worker ("launcher", "scheduler", ...), as soon as there is one.
# With other_than, one that took the place of that pid.
sub worker_pid
{
	my ($self, $role, %params) = @_;
	my $from = "FROM pg_stat_activity WHERE backend_type = 'prometheus $role'";

	$from .= " AND datname = '$params{of}'" if defined $params{of};
	$from .= " AND pid <> $params{other_than}" if defined $params{other_than};
	$self->wait_for("a $role is running", "SELECT count(*) > 0 $from", 't',
		%params);
	return $self->safe_psql($params{dbname} // 'postgres',
		"SELECT pid $from ORDER BY backend_start LIMIT 1");
}

# Send a signal to a worker; return its pid.  One that is killed is gone: the
# server has seen it, and lets nobody in before it has begun anew.
sub signal_worker
{
	my ($self, $signal, $role, %params) = @_;
	my $pid = $self->worker_pid($role, %params);

	kill($signal, $pid) == 1 or croak "could not send $signal to $role $pid: $!";
	if ($signal eq 'KILL')
	{
		$self->wait_gone($pid);
		$self->end_sessions;
	}
	return $pid;
}

# Wait until a process is no more.
sub wait_gone
{
	my ($self, $pid, %params) = @_;
	my $timeout = $params{timeout} // $PostgreSQL::Test::Utils::timeout_default;
	my $end = time + $timeout;

	while (kill(0, $pid))
	{
		croak "process $pid still runs after $timeout s" if time >= $end;
		usleep(10_000);
	}
	return;
}

# Was the library built with FAULTS=1?
sub has_faults
{
	my ($self) = @_;
	my ($rc) = $self->psql('postgres', 'SHOW prometheus.fault');
	return $rc == 0;
}

# Set prometheus.fault (src/fault.c); what fired before may fire again.  With
# seen_by_caller => 1, wait until the caller has read it.
sub set_fault
{
	my ($self, $fault, %params) = @_;

	$fault .= ', caller-after-take:note' if $params{seen_by_caller};
	# A process that starts only now must not meet the one of before.
	$self->safe_psql('postgres', q{ALTER SYSTEM SET prometheus.fault = ''});
	$self->reload;
	$self->wait_for('the fault of before is gone', 'SHOW prometheus.fault', '');
	unlink(glob $self->data_dir . '/prometheus.{fault,note}.*');
	$self->safe_psql('postgres', "ALTER SYSTEM SET prometheus.fault = '$fault'");
	$self->reload;
	$self->wait_fault_seen if $params{seen_by_caller};
	return;
}

# README's table of events says of these types which fields they have; some have
# happened.
sub check_event_fields
{
	my ($self, @types) = @_;
	my ($events) = slurp_file('README.md') =~ /\n### Events\n(.*?)\n### /s;

	foreach my $type (@types)
	{
		my ($fields) = $events =~ /^\| `\Q$type\E` \| (.*) \|$/m;
		$fields =~ s/ \([^)]*\)//g;
		my @fields = split /, /, $fields;
		is( $self->safe_psql('postgres', "SELECT string_agg(DISTINCT f, ', ' ORDER BY f) || count(DISTINCT f) || min(n) FROM (SELECT jsonb_object_keys(data) AS f, (SELECT count(*) FROM jsonb_object_keys(data)) AS n FROM prometheus.event WHERE type = '$type') x"),
			join(', ', sort @fields) . @fields . @fields,
			"$type has the fields that README has");
	}
	return;
}

# Give the caller tasks until it leaves its note.
sub wait_fault_seen
{
	my ($self) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	until (-e $self->data_dir . '/prometheus.note.caller-after-take')
	{
		croak 'the caller did not read prometheus.fault' if time >= $end;
		$self->wait_task($self->submit(q{'has it read the setting?'}),
			'completed');
	}
	return;
}

# Has the fault at a point (any) fired since it was set?
sub fault_fired
{
	my ($self, $point) = @_;
	$point //= '*';
	return scalar(() = glob $self->data_dir . "/prometheus.fault.$point*") > 0;
}

# Wait until the server has stopped by itself, so that it can be started.
sub wait_stopped
{
	my ($self) = @_;
	my $timeout = $PostgreSQL::Test::Utils::timeout_default;
	my $end = time + $timeout;

	while (-e $self->data_dir . '/postmaster.pid')
	{
		croak "the server did not stop within $timeout s" if time >= $end;
		usleep(10_000);
	}
	$self->_update_pid(0);
	return;
}

# A hash of the catalogues and of what governs agents: what an attack must not
# change.
sub catalogue
{
	my ($self, $dbname) = @_;
	return $self->safe_psql($dbname // 'postgres', <<'EOSQL');
SELECT md5(string_agg(x::text, E'\n' ORDER BY x::text)) FROM (
	SELECT to_jsonb(c) - '{relpages,reltuples,relallvisible,relfrozenxid,relminmxid}'::text[] FROM pg_class c
	UNION ALL SELECT to_jsonb(p) FROM pg_proc p
	UNION ALL SELECT to_jsonb(t) FROM pg_type t
	UNION ALL SELECT to_jsonb(t) FROM pg_trigger t
	UNION ALL SELECT to_jsonb(a) FROM pg_authid a
	UNION ALL SELECT to_jsonb(m) FROM pg_auth_members m
	UNION ALL SELECT to_jsonb(n) FROM pg_namespace n
	UNION ALL SELECT to_jsonb(d) FROM pg_default_acl d
	UNION ALL SELECT to_jsonb(e) FROM pg_extension e
	UNION ALL SELECT to_jsonb(s) FROM pg_db_role_setting s
	UNION ALL SELECT to_jsonb(d) FROM pg_description d
	UNION ALL SELECT to_jsonb(f) - 'seqno' FROM pg_file_settings f
	UNION ALL SELECT to_jsonb(p) FROM prometheus._policy p
	UNION ALL SELECT to_jsonb(t) FROM prometheus._tool t
	UNION ALL SELECT to_jsonb(a) FROM prometheus._agent a
	UNION ALL SELECT to_jsonb(m) FROM prometheus._model m
	UNION ALL SELECT to_jsonb(d) FROM prometheus._decision d
	UNION ALL SELECT to_jsonb(g) FROM prometheus._gate g) AS v (x)
EOSQL
}

# Where the server's log ends now: for wait_for_log() and log_contains().
sub log_end
{
	my ($self) = @_;
	return -s $self->logfile;
}

# Each query returns one line for each fact that must not be.
my %invariants = (
	'attempt of no task' => q{
		SELECT task_id, attempt FROM prometheus._attempt
		 WHERE task_id NOT IN (SELECT task_id FROM prometheus._task)},
	'attempts with a gap' => q{
		SELECT task_id, array_agg(attempt ORDER BY attempt)
		  FROM (SELECT task_id, attempt FROM prometheus._attempt UNION
		        SELECT task_id, attempt FROM prometheus._outcome) a
		 GROUP BY task_id
		HAVING array_agg(attempt ORDER BY attempt) <>
		       array(SELECT generate_series(min(attempt), min(attempt) + count(attempt)::int - 1))},
	'outcome of no attempt' => q{
		SELECT task_id, attempt, outcome FROM prometheus._outcome o
		 WHERE NOT EXISTS (SELECT FROM prometheus._task t WHERE t.task_id = o.task_id)
		    OR outcome NOT IN ('cancelled', 'failed', 'vetoed', 'quarantined') AND NOT EXISTS (
		       SELECT FROM prometheus._attempt a
		        WHERE a.task_id = o.task_id AND a.attempt = o.attempt)},
	'two outcomes of one attempt' => q{
		SELECT task_id, attempt, array_agg(outcome) FROM prometheus._outcome
		 GROUP BY task_id, attempt HAVING count(*) > 1},
	'open attempt that is not the last' => q{
		SELECT task_id, attempt FROM prometheus._attempt a
		 WHERE EXISTS (SELECT FROM prometheus._attempt b
		        WHERE b.task_id = a.task_id AND b.attempt > a.attempt)
		   AND NOT EXISTS (SELECT FROM prometheus._outcome o
		        WHERE o.task_id = a.task_id AND o.attempt = a.attempt)},
	'attempt after completion' => q{
		SELECT a.task_id, a.attempt FROM prometheus._attempt a
		  JOIN prometheus._outcome o
		    ON o.task_id = a.task_id AND o.attempt < a.attempt
		 WHERE o.outcome = 'completed'},
	'step of no attempt' => q{
		SELECT task_id, step, attempt FROM prometheus._step s
		 WHERE NOT EXISTS (SELECT FROM prometheus._attempt a
		        WHERE a.task_id = s.task_id AND a.attempt = s.attempt)},
	'steps with a gap or twice' => q{
		SELECT task_id, array_agg(step ORDER BY step)
		  FROM prometheus._step GROUP BY task_id
		HAVING array_agg(step ORDER BY step) <>
		       array(SELECT generate_series(min(step), min(step) + count(step)::int - 1))},
	'call of no attempt' => q{
		SELECT call_id, task_id, attempt FROM prometheus._call c
		 WHERE NOT EXISTS (SELECT FROM prometheus._attempt a
		        WHERE a.task_id = c.task_id AND a.attempt = c.attempt)},
	'call of a model with nothing reserved' => q{
		SELECT call_id, task_id FROM prometheus._call
		 WHERE target LIKE 'model:%' AND coalesce(reserved_tokens, 0) <= 0},
	'one call twice' => q{
		SELECT task_id, attempt, turn, call, count(*) FROM prometheus._call
		 GROUP BY task_id, attempt, turn, call HAVING count(*) > 1},
	'versions of a state with a gap' => q{
		SELECT owner, agent, key, count(*), max(version) FROM prometheus._state
		 GROUP BY owner, owner_oid, agent, key
		HAVING min(version) <> 1
		    OR max(version) <> count(*)
		       AND NOT EXISTS (SELECT FROM prometheus._horizon)},
);

# The outcomes after which a task does not go on by itself.
my $ends = q{('completed', 'failed', 'vetoed', 'cancelled', 'quarantined')};

# One test: the facts of all tasks fit together.
#	tasks => [...]		were submitted, so they must be there
#	all_ended => 1		every task has come to an end, and only to one
#	retried => [...]	by hand, so they may have ended more than once
sub check_invariants
{
	my ($self, $name, %params) = @_;
	my $dbname = $params{dbname} // 'postgres';
	my $retried = join(', ', 0, @{ $params{retried} // [] });
	my %checks = (
		%invariants,
		'two ends of one task' => qq{
			SELECT task_id, array_agg(outcome ORDER BY attempt)
			  FROM prometheus._outcome
			 WHERE outcome IN $ends AND task_id NOT IN ($retried)
			 GROUP BY task_id HAVING count(*) > 1});

	if ($params{tasks})
	{
		my $tasks = join(', ', @{ $params{tasks} });
		$checks{'lost task'} = qq{
			SELECT unnest('{$tasks}'::bigint[])
			EXCEPT SELECT task_id FROM prometheus._task};
	}
	if ($params{all_ended})
	{
		$checks{'task without end'} = qq{
			SELECT task_id FROM prometheus._task EXCEPT
			SELECT task_id FROM prometheus._outcome WHERE outcome IN $ends};
		$checks{'open attempt'} = q{
			SELECT task_id, attempt FROM prometheus.attempt WHERE outcome IS NULL};
		$checks{'open call'} = q{
			SELECT call_id, task_id FROM prometheus.call WHERE status = 'open'};
		$checks{'events of a task that do not tell its facts'} = qq{
			SELECT task_id, e.* FROM prometheus._task t CROSS JOIN LATERAL (
				SELECT count(*) FILTER (WHERE type = 'task.received') AS received,
				       count(*) FILTER (WHERE type IN ('step.executed', 'reflection')) AS executed,
				       count(*) FILTER (WHERE type = 'task.retried') AS retried,
				       count(*) AS events,
				       count(DISTINCT event_id) AS ids
				  FROM prometheus.event x WHERE x.task_id = t.task_id) e
			 WHERE received <> 1 OR ids <> events
			    OR executed <> (SELECT count(*) FROM prometheus._step x
			                     WHERE x.task_id = t.task_id)
			    OR retried <> (SELECT count(*) FROM prometheus._outcome x
			                    WHERE x.task_id = t.task_id AND outcome = 'retry')
			    OR events <> received + executed + retried +
			       (SELECT count(*) FROM prometheus._outcome x
			         WHERE x.task_id = t.task_id AND outcome IN $ends) +
			       (SELECT count(*) + count(d.approval_id)
			          FROM prometheus._approval x LEFT JOIN prometheus._decision d USING (approval_id)
			         WHERE x.task_id = t.task_id) +
			       (SELECT count(*) FROM prometheus._state_failure x
			         WHERE x.task_id = t.task_id)};
	}
	if ($params{summaries})
	{
		$checks{'agent that does not know what it has done'} = q{
			SELECT DISTINCT submitter, agent FROM prometheus.task t
			 WHERE status = 'completed' AND NOT EXISTS (
			       SELECT FROM prometheus._state_failure x WHERE x.task_id = t.task_id)
			EXCEPT SELECT owner, agent FROM prometheus._state WHERE key = 'last_task'};
		$checks{'summary of what was not completed'} = q{
			SELECT s.agent, s.version, s.task_id FROM prometheus._state s
			 WHERE s.key = 'last_task' AND NOT EXISTS (
			       SELECT FROM prometheus._outcome x
			        WHERE x.task_id = s.task_id AND x.outcome = 'completed' AND x.xid = s.xid)};
	}

	local $Test::Builder::Level = $Test::Builder::Level + 1;

	# one statement, so one snapshot
	my $sql = join(' UNION ALL ',
		map { "SELECT '$_: ' || v::text FROM ($checks{$_}) v" } sort keys %checks);
	return is($self->safe_psql($dbname, $sql), '', $name);
}

# Begin to count what all calls of a month use up, for check_spending().
sub count_spending
{
	my ($self) = @_;
	$self->safe_psql('postgres',
		q{SELECT prometheus_set_budget('all', 'month', 1000000000)});
	return;
}

# One test: what the caller has counted since count_spending() is what the facts
# say.  It tells that to a task which may use nothing; its request is "never".
# Nothing may be under way.
sub check_spending
{
	my ($self, $name, $agent) = @_;
	$self->safe_psql('postgres',
		q{SELECT prometheus_set_budget('all', 'month', 0)});
	my $task = $self->submit("'never', '$agent'");
	$self->wait_task($task, 'failed');
	my $said = $self->safe_psql('postgres',
		"SELECT replace(substring(error FROM '^budget all per month is used up: (.* reserved),'), ',', '') FROM prometheus.task WHERE task_id = $task"
	);
	$self->count_spending;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is( $said,
		$self->safe_psql('postgres',
			q{SELECT format('%s of 0 tokens spent %s reserved', spent_tokens, reserved_tokens) FROM prometheus.budget WHERE scope = 'all' AND period = 'month'}
		),
		$name);
}

1;
