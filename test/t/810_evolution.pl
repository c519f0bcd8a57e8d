# Agents evolve: tasks are proposed, attempted and verified; what a generation
# came to is measured, written once whatever dies, and nobody scores himself.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
$node->keep_sessions;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# As learner, who has agents evolve.
sub learner { return sql("SET ROLE learner; $_[0]"); }

# Its task; the arguments behind the agent are SQL.
sub evolve
{
	my ($agent, $arguments) = @_;
	return learner("SELECT prometheus_evolve('$agent', $arguments)");
}

sub generations
{
	my ($task, $what) = @_;
	return sql("SELECT string_agg(concat_ws(' ', $what), ', ' ORDER BY generation) FROM prometheus.evolution WHERE task_id = $task");
}

sub moves
{
	my ($task) = @_;
	return sql("SELECT string_agg(name || CASE status WHEN 'ok' THEN '' ELSE ' ' || status END, ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND kind = 'tool'");
}

sub errors
{
	my ($task) = @_;
	return sql("SELECT string_agg(DISTINCT error, E'\\n') FROM prometheus.step WHERE task_id = $task AND kind = 'tool' AND status <> 'ok'");
}

sub end_of
{
	return sql("SELECT concat_ws('|', status, error_type, error) FROM prometheus.task WHERE task_id = $_[0]");
}

# Have the proposer of a script say this: cases, [words, check] each.
sub proposes
{
	my ($name, %said) = @_;
	my $json = JSON::PP->new->ascii;

	$said{cases} = [ map { { what => $_->[0], check => $_->[1] } } @{ $said{cases} } ] if $said{cases};
	sql(sprintf 'DELETE FROM script WHERE name = \'%s\'; INSERT INTO script VALUES (\'%s\', $j$%s$j$)', $name, $name, $json->encode(\%said));
	return;
}

$node->init(conf => "prometheus.executors = 2\n", restart_after_crash => 1);
$node->start;
$node->create_extension;
sql(<<'EOSQL');
CREATE ROLE learner;
CREATE ROLE boss;
GRANT prometheus_agent_user TO learner;
GRANT prometheus_agent_admin TO boss;
CREATE TABLE script (name text PRIMARY KEY, said jsonb);
CREATE TABLE victim (word text);
INSERT INTO victim VALUES ('secret');
CREATE SEQUENCE calls;

-- A model that adds as it was told; what its agent is for is in its instructions.
CREATE FUNCTION pupil(request jsonb) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
	asked text := request #>> '{messages,-1,content}';
	all_of_it text := request::text;
	kind text := coalesce(substring(all_of_it FROM 'kind=(\w+)'), 'honest');
	script jsonb := (SELECT s.said FROM script s WHERE s.name = kind);
	n bigint := (SELECT count(*) + 1 FROM prometheus.evolution);
	sum bigint;
	said text;
BEGIN
	IF asked ~ '^Propose one task' THEN
		sum := 40 + n;
		said := (jsonb_build_object('task', format('Add 40 and %s. Answer with the sum.', n),
			'criteria', 'It is the sum.', 'skill', 'adding', 'solution', sum::text,
			'cases', jsonb_build_array(
				jsonb_build_object('what', 'It has the sum.', 'check', format('answer ~ ''\m%s\M''', sum)),
				jsonb_build_object('what', 'It is a number.', 'check', 'answer ~ ''^[0-9]+$'''),
				jsonb_build_object('what', 'It is the number.', 'check', format('CASE WHEN answer ~ ''^[0-9]+$'' THEN answer::numeric = %s ELSE false END', sum))))
			|| coalesce(script, '{}') - '{judge,answer}'::text[])::text;
	ELSIF asked ~ '^Judge an answer' THEN
		PERFORM nextval('calls');
		sum := (SELECT m[1]::bigint + m[2]::bigint FROM regexp_match(asked, 'Add (\d+) and (\d+)') m);
		said := coalesce(script -> 'judge', jsonb_build_object(
			'score', CASE WHEN asked ~ format('=====\n%s\n=====$', sum) THEN 0.9 ELSE 0 END,
			'critique', 'Look at the sum.', 'procedure', 'Add the tens first, then answer with the sum.'))::text;
	ELSIF asked ~ 'Give three plans' THEN
		said := '{"plans": [{"approach": "balanced", "cost": 1, "steps": [{"action": "add", "tool": "", "outcome": "a sum", "probability": 1, "risks": []}]}]}';
	ELSIF asked ~ 'Look back at it' THEN
		said := '{"aspects": [], "appropriateness": 1, "effectiveness": 1, "critique": "I am perfect.", "lessons": [], "correction": "", "contradictions": []}';
	ELSE
		sum := (SELECT m[1]::bigint + m[2]::bigint FROM regexp_match(asked, 'Add (\d+) and (\d+)') m);
		IF script ? 'answer' THEN
			said := script ->> 'answer';
		ELSIF all_of_it ~ 'Add the tens first' OR asked ~ 'This was tried before' THEN
			said := sum;
		ELSE
			said := 'about ' || sum + 1;
		END IF;
	END IF;
	RETURN jsonb_build_object('choices', jsonb_build_array(jsonb_build_object('index', 0, 'finish_reason', 'stop',
		'message', jsonb_build_object('role', 'assistant', 'content', said))),
		'usage', jsonb_build_object('prompt_tokens', 10, 'completion_tokens', 5));
END $$;
SELECT prometheus_set_model('pupil', 'function', handler => 'pupil(jsonb)');
SELECT prometheus_set_policy('sofia', effect => 'off');
EOSQL
sql(qq{SELECT prometheus_set_agent('$_', 'pupil', instructions => 'kind=$_')})
  foreach qw(honest steady trivial attacker cheat weak late poor);

# Ten generations of a model that does better when it has learned.
my $task = evolve('honest', '10');
$node->wait_task($task, 'completed');
is(generations($task, q{level, attempts, passed || '/' || cases, first_score, score, skill}),
	'1 2 3/3 0 0.9 adding, 1 1 3/3 0.9 0.9 adding, 1 1 3/3 0.9 0.9 adding, '
	  . '2 1 3/3 0.9 0.9 adding, 2 1 3/3 0.9 0.9 adding, 2 1 3/3 0.9 0.9 adding, '
	  . '3 1 3/3 0.9 0.9 adding, 3 1 3/3 0.9 0.9 adding, 3 1 3/3 0.9 0.9 adding, 4 1 3/3 0.9 0.9 adding',
	'it learns, and its level rises');
is( sql("SELECT prometheus_result($task)"),
	'10 generations, 10 succeeded; level 1 at first, 4 in the end.'
	  . ' In the first 3 of them: first attempts scored 0.60 and last ones 0.90 in the mean, at level 1.0. In the last 3: 0.90 and 0.90, at level 3.3.'
	  . ' Skills shown: adding (success rate 0.99).',
	'the result says what was measured');
print sql(q{SELECT prometheus_evolution_report('honest')}), "\n";
done_testing();
