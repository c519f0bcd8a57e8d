# pgvector, where the server has it: its values are embeddings, and its index
# finds the nearest memories; the same as without it, whatever others remember.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $sharedir = (run_command([ $ENV{PG_CONFIG} || 'pg_config', '--sharedir' ]))[0];
plan skip_all => 'pgvector is not installed' unless -e "$sharedir/extension/vector.control";

my $node = PromCluster->new('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# A point of a circle, as an embedding of three numbers.
sub at { return "ARRAY[cos($_[0]), sin($_[0]), 0.1]::real[]"; }

sub recalled
{
	my ($who, $rest) = @_;
	return sql("SET ROLE $who; SELECT string_agg(content, ',' ORDER BY content) FROM prometheus_recall('bot', '', k => 5, $rest)");
}

sub scans
{
	return sql(q{SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_all_indexes WHERE relname = '_memory' AND indexrelname LIKE '\_memory\_vector\_%'});
}

sub is_used
{
	my ($what, $before) = @_;
	$node->wait_for($what, q{SELECT coalesce(sum(idx_scan), 0) > } . $before . q{ FROM pg_stat_all_indexes WHERE relname = '_memory' AND indexrelname LIKE '\_memory\_vector\_%'});
	return;
}

$node->init;
$node->start;
$node->create_extension;
sql(q{CREATE SCHEMA "my vectors"; CREATE EXTENSION vector SCHEMA "my vectors"; GRANT USAGE ON SCHEMA "my vectors" TO PUBLIC;
	CREATE ROLE alice; CREATE ROLE bob; GRANT prometheus_agent_user TO alice, bob});

# Values.
my $type = '"my vectors".vector';
sql("SELECT prometheus_remember('values', 'east', embedding => '[1,0,0]'::$type), prometheus_remember('values', 'north', embedding => '[0,1,0]'::$type)");
is(sql(q{SELECT embedding FROM prometheus._memory WHERE content = 'east'}), '{1,0,0}', 'a vector is an embedding');
is(sql("SELECT content FROM prometheus_recall('values', '', k => 1, embedding => '[0.1,3,0]'::$type)"), 'north', 'and finds one');
is(sql(qq{SELECT content FROM prometheus_recall('values', '', k => 1, embedding => '[3,0.1,0]'::"my vectors".halfvec::real[])}), 'east', 'half a vector when it is cast');

# Facts of two roles, of as many numbers, and of another; experiences of one.
sql("SET ROLE $_; SELECT count(prometheus_remember('bot', '$_ ' || to_char(n, 'FM0000'), embedding => " . at('n * 0.001') . ')) FROM generate_series(1, 2000) n') foreach 'alice', 'bob';
sql(q{SET ROLE alice; SELECT prometheus_remember('bot', 'flat', embedding => '{1,2}'), prometheus_remember('bot', 'event', 'episodic', embedding => '{0.5,0.86,0.1}')});
sql(q{SELECT prometheus_mark('before')});

my %near = (alice => recalled('alice', 'embedding => ' . at('0.5')), bob => recalled('bob', 'embedding => ' . at('0.5')));
my $mixed = recalled('alice', 'embedding => ' . at('1.044'));
like($mixed, qr/event/, 'an experience is near, too');

my $statement = q{SELECT prometheus_memory_index('bot', 'semantic', 3, 'alice')};
sql(sql($statement));
sql(sql($statement));
is(sql(q{SELECT count(*) FROM pg_index WHERE indrelid = 'prometheus._memory'::regclass AND indisvalid AND indexrelid::regclass::text LIKE '%\_memory\_vector\_%'}), 1, 'an index is made once');

my $before = scans();
is(recalled('alice', 'embedding => ' . at('0.5')), $near{alice}, 'the same is found with it');
is_used('it is used', $before);
is(recalled('alice', 'embedding => ' . at('1.044')), $mixed, 'beside what has none');
is(recalled('alice', "kinds => '{semantic,NULL,semantic}', embedding => " . at('0.5')), $near{alice}, 'a kind that is named twice counts once');
is(recalled('bob', 'embedding => ' . at('0.5')), $near{bob}, 'who has none finds what he found');
is(recalled('alice', "embedding => '{1,2}'"), 'flat', 'embeddings of another length are there');
sql(q{SET ROLE alice; SELECT prometheus_remember('bot', 'also flat', embedding => '{1,2.1}')});
is(recalled('alice', "embedding => '{1,2}'"), 'also flat,flat', 'and can be remembered');

# Nothing that others remember is in the way.
sql("SET ROLE bob; SELECT count(prometheus_remember('bot', 'nearer ' || n, embedding => " . at('0.5 + n * 0.0000001') . ')) FROM generate_series(1, 3000) n');
is(recalled('alice', 'embedding => ' . at('0.5')), $near{alice}, 'others have what is nearer');

# What does not count any more.
my ($first) = split(/,/, $near{alice});
my $id = sql("SELECT memory_id FROM prometheus.memory WHERE content = '$first'");
sql("SET ROLE alice; SELECT prometheus_forget($id)");
unlike(recalled('alice', 'embedding => ' . at('0.5')), qr/$first/, 'what is forgotten is not found');
is(sql("SET prometheus.as_of = 'mark:before'; SET ROLE alice; SELECT string_agg(content, ',' ORDER BY content) FROM prometheus_recall('bot', '', k => 5, embedding => " . at('0.5') . ')'), $near{alice}, 'but AS OF');
sql("SET ROLE alice; SELECT prometheus_restore_memory($id)");
is(recalled('alice', 'embedding => ' . at('0.5')), $near{alice}, 'and when it is back');
sql("SELECT count(prometheus_forget(memory_id)) FROM prometheus.memory WHERE owner = 'alice' AND content BETWEEN 'alice 0002' AND 'alice 1990'");
is(recalled('alice', "kinds => '{semantic}', embedding => " . at('0.5')), 'alice 0001,alice 1991,alice 1992,alice 1993,alice 1994', 'that most are forgotten hides none');
sql("SELECT count(prometheus_restore_memory(memory_id)) FROM prometheus.memory_version WHERE owner = 'alice' AND forgotten IS NOT NULL");
is(recalled('alice', 'embedding => ' . at('0.5')), $near{alice}, 'nor do their versions');

# The operators of users are none of ours, wherever they are.
sql(q{CREATE FUNCTION public.trap(a real[], b real[]) RETURNS float8 LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
	CREATE OPERATOR public.<=> (FUNCTION = public.trap, LEFTARG = real[], RIGHTARG = real[])});
$before = scans();
is(recalled('alice', 'embedding => ' . at('0.5')), $near{alice}, 'an operator of the same name is not called');
is_used('the index is', $before);

# Another schema, and none.
sql('ALTER EXTENSION vector SET SCHEMA public');
$before = scans();
is(recalled('alice', 'embedding => ' . at('0.5')), $near{alice}, 'the extension may move');
is_used('its index is used there', $before);
my ($rc, undef, $stderr) = $node->psql('postgres', 'DROP EXTENSION vector');
like($stderr, qr/index prometheus\._memory_vector_\w+ depends on operator class/, 'it is not dropped by mistake');
sql('DROP EXTENSION vector CASCADE');
is(recalled('alice', 'embedding => ' . at('0.5')), $near{alice}, 'without it all is as before');
($rc, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");
like($stderr, qr/ERROR:  42704: extension "vector" is not installed/, 'and no index of it is offered');

# Who is not let.
sql('CREATE EXTENSION vector');
foreach my $wrong ([ "'bot', 'facts', 3", '22023' ], [ "'bot', 'semantic', 0", '22023' ], [ "'bot', 'semantic', 2001", '22023' ])
{
	($rc, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT prometheus_memory_index($wrong->[0])");
	like($stderr, qr/ERROR:  $wrong->[1]/, "refused: $wrong->[0]");
}
($rc, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE alice; SELECT prometheus_memory_index('bot', 'semantic', 3)");
like($stderr, qr/ERROR:  42501/, 'users do not ask for one');
$statement = sql(q{SELECT prometheus_memory_index($$o'; DROP TABLE x; --\\$$, 'core', 2, $$a"b'c$$)});
sql($statement);
is(sql(q{SELECT count(*) FROM pg_index WHERE indrelid = 'prometheus._memory'::regclass AND pg_get_expr(indpred, indrelid) LIKE '%DROP TABLE x%'}), 1, 'names are names');

$node->stop;
done_testing();
