# pgBackRest: a full and an incremental backup while tasks run, and a recovery to
# the restore point that a mark has made.  The restored server answers as the
# original did then, and goes on when it is told to.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PromAnswers;
use PromCluster;
use Test::More;

my $version = eval { (run_command([ 'pgbackrest', 'version' ]))[0] };
plan skip_all => 'pgbackrest is not installed' unless $version;

my $node = PromCluster->new('main');
my $restored = PromCluster->new('restored');
my $dir = PostgreSQL::Test::Utils::tempdir();
my @views = qw(task attempt step event verdict usage agent model memory);

sub backrest { return [ 'pgbackrest', "--config=$dir/pgbackrest.conf", '--stanza=main', @_ ]; }

# What a server says, now or as of a mark.
sub answers
{
	my ($server, $as_of) = @_;
	return $server->safe_psql('postgres', join ';',
		defined $as_of ? "SET prometheus.as_of = '$as_of'" : (),
		map { "SELECT '$_', count(*), md5(string_agg(x::text, ',' ORDER BY x::text)) FROM prometheus.$_ x" } @views);
}

sub submit_tasks
{
	my ($n) = @_;
	$node->safe_psql('postgres', "SELECT count(prometheus_submit('task ' || n)) FROM generate_series(1, $n) n");
	return;
}

sub wait_tasks
{
	$node->wait_for('they have ended', q{SELECT count(*) FROM prometheus.task WHERE ended_at IS NULL AND request <> 'later'}, 0);
	return;
}

$node->init(
	allows_streaming => 1,
	conf => "archive_mode = on\narchive_command = 'pgbackrest --config=$dir/pgbackrest.conf --stanza=main archive-push %p'\n");
append_to_file("$dir/pgbackrest.conf", <<"EOCONF");
[global]
repo1-path=$dir/repository
log-path=$dir
lock-path=$dir/lock
spool-path=$dir/spool
log-level-console=warn
log-level-file=off
start-fast=y
archive-timeout=$PostgreSQL::Test::Utils::timeout_default
[main]
pg1-path=@{[ $node->data_dir ]}
pg1-port=@{[ $node->port ]}
pg1-socket-path=@{[ $node->host ]}
EOCONF
$node->start;
$node->create_extension;
like($node->health('backup'), qr/^ok\|unknown\|No base backup of this server left a trace/, 'no backup is known of yet');
$node->command_ok(backrest('stanza-create'), 'stanza-create');
submit_tasks(500);
my $later = $node->submit(q{'later', run_at => now() + interval '1 year'});
$node->command_ok(backrest('--type=full', 'backup'), 'a full backup');
submit_tasks(500);
$node->safe_psql('postgres', q{SELECT prometheus_remember('default', 'of before')});
$node->command_ok(backrest('--type=incr', 'backup'), 'an incremental one');
like((run_command(backrest('info')))[0], qr/incr backup/, '... is listed');
like($node->health('backup'), qr/^ok\|the last base backup ended at /, 'health knows of it');
$node->wait_for('what is archived is known', q{SELECT value ~ '^on, the last one at ' FROM prometheus_health() WHERE check_name = 'archiving'});

wait_tasks();

# The moment that is restored; paused first, as is said of copies.
$node->safe_psql('postgres', 'SELECT prometheus_pause()');
$node->safe_psql('postgres', q{SELECT prometheus_mark('release 2')});
my $answers = answers($node);
my $needed = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_lsn())');
$node->safe_psql('postgres', 'SELECT prometheus_resume()');

# What comes after it is not to be there.
submit_tasks(20);
wait_tasks();
$node->safe_psql('postgres', q{SELECT prometheus_set_agent('default', instructions => 'of after'), prometheus_cancel(} . "$later)");
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
is(answers($node, 'mark:release 2'), $answers, 'the original says what it said then');
my $past = PromAnswers::answers($node, 'release 2');
$node->wait_for('what is needed is archived',
	'SELECT last_archived_wal >= ' . "'$needed'" . ' FROM pg_stat_archiver');

mkdir $restored->data_dir;
mkdir $restored->basedir unless -d $restored->basedir;
$node->command_ok(
	[ @{ backrest('--type=name', '--target=release 2', '--target-action=promote') }, '--pg1-path=' . $restored->data_dir, 'restore' ],
	'restored to a restore point');
chmod 0700, $restored->data_dir;
$restored->append_conf('postgresql.conf',
	"port = @{[ $restored->port ]}\nunix_socket_directories = '@{[ $restored->host ]}'\narchive_mode = off\n");
$restored->start;
$restored->wait_for('it has been recovered', 'SELECT pg_is_in_recovery()', 'f');
is(answers($restored), $answers, 'restored: it says what the original said then');
is(answers($restored, 'mark:release 2'), $answers, 'restored: AS OF, too');
is(PromAnswers::answers($restored, 'release 2'), $past, 'restored: AS OF marks of before, as well');

# It has the identity of the original, so the guard of copies does not know it:
# it waits because all was paused.
like($restored->health('era'), qr/^ok\|1\|/, 'restored: it is not known to be a copy');
is($restored->safe_psql('postgres', q{SELECT state FROM prometheus.gate WHERE target = 'all'}), 'paused', 'restored: it waits, as the original did');
my $task = $restored->submit(q{'restored'});
$restored->wait_for('restored: the task is in the queue', "SELECT count(*) FROM prometheus.queue WHERE task_id = $task", 1);
is($restored->safe_psql('postgres', "SELECT status FROM prometheus.task WHERE task_id = $task"), 'queued', 'restored: nothing runs');
$restored->safe_psql('postgres', 'SELECT prometheus_resume()');
$restored->wait_task($task, 'completed');
is($restored->safe_psql('postgres', "SELECT why FROM prometheus.queue WHERE task_id = $later"), 'is not due yet', 'restored: what was to come is to come');
$restored->check_invariants('restored: invariants');
$restored->stop;

# An archive that fails, and a backup that is old, are said.
my $week_ago = time - 9 * 86400;
cmp_ok(utime($week_ago, $week_ago, glob $node->data_dir . '/pg_wal/*.backup'), '>', 0, 'a backup becomes older');
like($node->health('backup'), qr/^warning\|.*\|That is more than a week ago/, 'an old backup is warned of');
$node->safe_psql('postgres', q{ALTER SYSTEM SET archive_command = 'false'});
$node->safe_psql('postgres', 'SELECT pg_reload_conf(), pg_logical_emit_message(false, $$x$$, $$y$$)');
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$node->wait_for('an archive that fails is warned of', q{SELECT status || (value ~ '^fails: [0-9A-F]{24}, at ') FROM prometheus_health() WHERE check_name = 'archiving'}, 'warningtrue');
$node->stop;
done_testing();
