# Processes die around the intent, the request and the step of HTTP tools: what
# may be done once is done once at most, and whoever says that it was done, or
# that it was not, is right.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;
my $round = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# What came for a tool in this round.
sub requests_of
{
	my ($name) = @_;
	return grep { $_->{path} eq "/tool/echo/$name/$round" } @{ $llm->requests };
}

$node->init(restart_after_crash => 1, conf => "prometheus.max_crashes = 100\n");
$node->start;
$node->create_extension;
plan skip_all => 'the library was built without FAULTS=1'
  unless $node->has_faults;
$node->create_scripted_model;
my $schema = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}';
sql(sprintf q{SELECT prometheus_set_http_tool('%s', 'POST', '%s', '%s', tier => '%s', idempotent => %s)},
	$_->[0], $llm->url("/tool/echo/$_->[0]/{n}"), $schema, $_->[1], $_->[2])
  foreach [ 'look', 'read', 'false' ], [ 'push', 'write', 'false' ], [ 'keyed', 'write', 'true' ];
sql(q{SELECT prometheus_set_agent('a', 'scripted', tools => '{push,look,keyed}')});

# Before these, the task's own works pass the points of the beginning twice.
foreach my $fault (
	'begin-before-commit:die:3', 'begin-after-commit:die:3', 'before-send:error:1', 'after-send:die:1', 'reply-half-read:die:1',
	'before-record:error:1', 'record-before-commit:die:1', 'record-after-commit:die:1')
{
	my ($point, $action) = split /:/, $fault;
	my $log = $node->log_end;

	$round++;
	$node->set_fault($fault);
	my $task = $node->submit_to_crash($node->script([ map { [ $_, { n => $round } ] } qw(push look keyed) ], 'end') . ", 'a'");
	$node->wait_task($task, 'completed');
	ok($node->fault_fired($point), "$fault: it was met");
	is($node->log_count(qr/all server processes terminated; reinitializing/, $log), $action eq 'die' ? 1 : 0, "$fault: crashes");
	my %status = map { split / / } split /,/,
	  sql("SELECT string_agg(name || ' ' || status, ',') FROM prometheus.step WHERE task_id = $task AND kind = 'tool'");
	my $push = () = requests_of('push');
	my @keyed = requests_of('keyed');
	my %keys = map { $_->{headers}{'idempotency-key'} => 1 } @keyed;

	is("$status{look} $status{keyed}", 'ok ok', "$fault: what may be sent again is done");
	like($status{push}, qr/^(?:ok|unknown)$/, "$fault: what may not is done, or nobody knows");
	cmp_ok($push, '<=', 1, "$fault: it was sent once at most");
	is($push, 1, "$fault: it was sent, if it is said to be done") if $status{push} eq 'ok';
	cmp_ok(scalar @keyed, '<=', 2, "$fault: the other twice at most");
	is(scalar keys %keys, 1, "$fault: with one key");
	is( sql("SELECT count(*) FROM prometheus.call c LEFT JOIN prometheus._step s USING (task_id, call_id) WHERE c.task_id = $task AND c.kind = 'tool' AND (coalesce(s.status, '') <> 'ok' OR c.status <> 'done') AND c.status <> 'ambiguous'"
		),
		0, "$fault: the calls say so, too");
	$node->check_invariants("$fault: invariants", all_ended => 1);
}

$node->stop;
done_testing();
