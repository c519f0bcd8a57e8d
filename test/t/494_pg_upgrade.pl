# pg_upgrade from an older major: what happened is there, AS OF says the same, and
# tracked rows can be undone; the server has another identity, so all is paused
# until it is told to go on.
#
# Needs the extension in two majors: PROM_OLD_PG_CONFIG, or one that Debian's
# packages have beside this one, says which is the older.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PromAnswers qw(answers);
use PromCluster;
use Test::More;

# What a pg_config says; undef if it is not there.
sub config_of
{
	my ($program, $what) = @_;
	my $value = -x $program ? (run_command([ $program, "--$what" ]))[0] : '';
	return $value eq '' ? undef : $value;
}

sub major_of { my ($version) = (config_of($_[0], 'version') // '') =~ /(\d+)/; return $version // 0; }

# The newest of those that are older than this one and have the extension.
sub older_config
{
	my $own = major_of($ENV{PG_CONFIG} // "@{[ (run_command(['pg_config', '--bindir']))[0] ]}/pg_config");
	my @older = grep { major_of($_) > 0 && major_of($_) < $own && -e config_of($_, 'pkglibdir') . '/prometheus.so' }
	  defined $ENV{PROM_OLD_PG_CONFIG} ? $ENV{PROM_OLD_PG_CONFIG} : glob '/usr/lib/postgresql/*/bin/pg_config';
	return (sort { major_of($b) <=> major_of($a) } @older)[0];
}

my $older = older_config();
plan skip_all => 'there is no older major with the extension' unless $older;
my $bindir = config_of($older, 'bindir');
my $old = PromCluster->new('old', install_path => $bindir =~ s{/bin$}{}r);
my $new = PromCluster->new('new');

sub sql { return $old->safe_psql('postgres', $_[0]); }

# The same locale and checksums, whatever is usual in each major.
$_->init(extra => ['--data-checksums'], conf => "prometheus.mark_interval = '50ms'\nwal_level = replica\n") foreach $old, $new;
note "from $bindir";

# A past in which everything changes.
$old->start;
$old->create_extension;
$old->create_scripted_model;
sql(q{CREATE TABLE account (id int PRIMARY KEY, gone text DEFAULT 'x', sum numeric, owner text);
	INSERT INTO account SELECT i, 'x', i * 100, 'nobody' FROM generate_series(1, 20) i;
	SELECT prometheus_track('account');
	CREATE FUNCTION pay(payer int, amount int) RETURNS text LANGUAGE sql
		AS 'UPDATE account SET sum = sum - amount WHERE id = payer RETURNING sum::text';
	SELECT prometheus_set_tool('pay(int, int)', tier => 'write');
	SELECT prometheus_set_agent('clerk', 'scripted', tools => '{pay}');
	SELECT prometheus_create_consumer('reader', '{*}')});
sql(q{UPDATE account SET owner = 'first' WHERE id < 5; DELETE FROM account WHERE id = 20});
sql('ALTER TABLE account DROP gone');
my $task = $old->run_script('clerk', [ [ [ pay => { payer => 1, amount => 30 } ], [ pay => { payer => 2, amount => 40 } ] ], 'paid' ]);
foreach my $n (1 .. 4)
{
	$old->run_request("turn $n");
	sql("SELECT prometheus_save_state('talk', jsonb_build_object('turns', $n, 'said', repeat('A turn of which much stays. ', 400)))");
	sql("SELECT prometheus_remember('talk', 'what was learned in turn $n')");
	sql("SELECT prometheus_set_agent('clerk', instructions => 'as of turn $n')");
	sql("SELECT prometheus_emit('turn.ended', jsonb_build_object('n', $n))");
	sql("UPDATE account SET sum = sum + $n WHERE id = 3");
	sql('SELECT prometheus_mark()');
}
sql(q{SELECT prometheus_forget(min(memory_id)) FROM prometheus.memory});
my $later = $old->submit(q{'later', run_at => now() + interval '1 year'});
is(sql(q{SELECT count(*) FROM prometheus_poll('reader', 3); SELECT prometheus_ack('reader')}), "3\n3", 'some events are read');
sql(q{SELECT prometheus_mark('upgraded')});
my $marks = q{SELECT mark_id, at, snapshot FROM prometheus._mark WHERE mark_id <= (SELECT mark_id FROM prometheus.mark WHERE name = 'upgraded') ORDER BY 1};
my $undo = "SELECT * FROM prometheus_undo($task)";
my ($seen, $kept, $undone) = (answers($old, 'upgraded', tables => ['account']), sql($marks), sql($undo));
my $batch = q{SELECT string_agg(concat_ws(' ', event_id, type, data), ', ' ORDER BY event_id) FROM prometheus_poll('reader', 1000)};
my $unread = sql($batch);
my $xid = sql('SELECT pg_current_xact_id()');
like($seen, qr/^upgraded\|task\|\d/m, 'there is something to compare');
like($undone, qr/revert/, 'there is something to undo');
$old->stop;

command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bindir,
		'-B', (run_command([ 'pg_config', '--bindir' ]))[0], '-s', $new->host, '-p', $old->port, '-P', $new->port ],
	'pg_upgrade');
$new->start;
$new->wait_for('it is known to be a copy', q{SELECT state FROM prometheus.gate WHERE target = 'all'}, 'paused');
like($new->health('era'), qr/^warning\|2; a copy/, 'it is another era');
is(answers($new, 'upgraded', tables => ['account']), $seen, 'AS OF says the same');
is($new->safe_psql('postgres', $marks), $kept, 'marks are the same');
cmp_ok($new->safe_psql('postgres', 'SELECT pg_current_xact_id()'), '>', $xid, 'transactions are counted on');
is($new->safe_psql('postgres', $undo), $undone, 'what would be undone is the same');

# It waits, and goes on.
my $after = $new->submit(q{'after'});
$new->wait_for('the task is in the queue', "SELECT count(*) FROM prometheus.queue WHERE task_id = $after", 1);
is($new->safe_psql('postgres', "SELECT status FROM prometheus.task WHERE task_id = $after"), 'queued', 'nothing runs');
$new->safe_psql('postgres', 'SELECT prometheus_resume()');
$new->wait_task($after, 'completed');
is($new->safe_psql('postgres', "SELECT why FROM prometheus.queue WHERE task_id = $later"), 'is not due yet', 'what was to come is to come');
is($new->safe_psql('postgres', $batch), $unread, 'a consumer is given what it has not acknowledged');
my $read = 3;
while (my $n = $new->safe_psql('postgres', q{SELECT count(*) FROM prometheus_poll('reader', 1000)}))
{
	$read += $n;
	$new->safe_psql('postgres', q{SELECT prometheus_ack('reader')});
}
is($read, $new->safe_psql('postgres', 'SELECT count(*) FROM prometheus.event'), '... and all that comes after it');

# Rows are recorded as before, and what was done then is undone now.
$new->safe_psql('postgres', q{UPDATE account SET owner = 'now' WHERE id = 4});
like($new->safe_psql('postgres', "SELECT string_agg(verdict, ' ') FROM prometheus_undo($task, false)"), qr/^(?:revert(?:ed)? ?){2}$/, 'it is undone');
is($new->safe_psql('postgres', q{SELECT string_agg(concat_ws(' ', id, sum, owner), ', ' ORDER BY id) FROM account WHERE id < 5}),
	'1 100 first, 2 200 first, 3 310 first, 4 400 now', '... and nothing else');
$new->safe_psql('postgres', q{SELECT prometheus_mark('after')});
is($new->safe_psql('postgres', q{SELECT count(*) FROM (SELECT * FROM prometheus_rows_at(NULL::account, (SELECT at FROM prometheus.mark WHERE name = 'after')) EXCEPT SELECT * FROM account) x}),
	0, 'AS OF now the rows are these');
is(answers($new, 'upgraded', tables => ['account']), $seen, 'AS OF still says the same');
$new->check_invariants('invariants');
$new->stop;
done_testing();
