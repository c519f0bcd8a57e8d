# A base backup is made while tasks run, follows as a standby, and is promoted in
# the middle of the load: what was acknowledged is there, AS OF says the same, and
# everything goes on.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use PromAnswers qw(answers);
use PromCluster;
use Test::More;

my $primary = PromCluster->new('primary');
my $standby = PromCluster->new('standby');
my $llm = FakeLLM->new;
my ($out, $err) = ('', '');

# One session that submits without an end, each task a transaction, and prints
# the ids of those that were committed.  It waits for each fifth, so that a slow
# machine has no more of them to compare than a quick one.
sub start_load
{
	my $file = PostgreSQL::Test::Utils::tempdir() . '/load.sql';

	append_to_file($file, join "\n", map {
		my $agent = $_ % 5 == 0 ? 'fake-slow-50' : $_ % 3 ? 'fake-echo' : 'default';
		my $submit = "SELECT prometheus_submit('load $_', '$agent', conversation => 'c' || $_ % 50)";
		$_ % 5 ? "$submit;" : "$submit AS id \\gset\n\\echo :id\nSELECT prometheus_wait(:id);";
	} 1 .. 20000);
	return IPC::Run::start([ 'psql', '-X', '-A', '-t', '-q', '-d', $primary->connstr('postgres'), '-f', $file ],
		'>', \$out, '2>', \$err);
}

$primary->init(allows_streaming => 1, conf => "prometheus.max_in_flight = 100\n");
$primary->start;
$primary->create_extension;
$primary->fake_agent($llm, $_) foreach qw(fake-echo fake-slow-50);
my $load = start_load();
$primary->wait_for('tasks run', q{SELECT count(*) > 50 FROM prometheus._outcome});
$primary->backup('base');
$load->pump_nb;
my $during = () = $out =~ /\n/g;
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

# From here on a commit is acknowledged when the standby has it.
$primary->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = '*'});
$primary->safe_psql('postgres', 'SELECT pg_reload_conf()');
$primary->wait_for('the standby is synchronous', q{SELECT sync_state FROM pg_stat_replication}, 'sync');
my $before = $primary->safe_psql('postgres', q{SELECT max(task_id) FROM prometheus._task});
$primary->wait_for('more tasks come, and end',
	"SELECT count(*) > 50 FROM prometheus._outcome WHERE task_id > $before");
$primary->safe_psql('postgres', q{SELECT prometheus_mark('before')});
my $seen = answers($primary, 'before');
like($seen, qr/^before\|usage\|\d/m, 'there is something to compare');
$load->pump_nb;
$primary->stop('immediate');
$standby->promote;
$load->finish;
my @acknowledged = $out =~ /^(\d+)$/mg;
cmp_ok(scalar @acknowledged, '>', $during, 'it was promoted in the middle of the load');
like($err, qr/server closed the connection|connection to server was lost|terminating connection/, '... which ended with the primary');

# Nothing that was acknowledged is lost, also of before the standby was one.
is($standby->safe_psql('postgres', 'SELECT task_id FROM unnest(ARRAY[' . join(',', @acknowledged) . ']) a (task_id) WHERE task_id NOT IN (SELECT task_id FROM prometheus._task)'),
	'', 'every task that was acknowledged is there');
is(answers($standby, 'before'), $seen, 'AS OF says the same as on the primary');

# A promotion is no copy: it goes on.
like($standby->health('era'), qr/^ok\|1\|/, 'it is the same era');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM prometheus._gate'), 0, 'nothing is paused');
$standby->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = ''});
$standby->safe_psql('postgres', 'SELECT pg_reload_conf()');
is($standby->safe_psql('postgres', q{CALL prometheus_ask('promoted', 'fake-echo')}), 'promoted', 'it answers');
$standby->wait_for('what was under way ends', 'SELECT count(*) FROM prometheus.task WHERE ended_at IS NULL', 0);
is($standby->safe_psql('postgres', q{SELECT count(*) FROM prometheus.task WHERE status <> 'completed'}), 0, 'all of it well');
is(answers($standby, 'before'), $seen, 'AS OF still says the same');
$standby->check_invariants('invariants', all_ended => 1);
$standby->stop;
$llm->stop;
done_testing();
