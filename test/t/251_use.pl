# Which memories were recalled, and when: noted in shared memory, written in
# batches, lost only when the server stops at once.
use strict;
use warnings FATAL => 'all';

use PromCluster;
use Test::More;

my $node = PromCluster->new('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub wait_uses
{
	my ($what, $expected) = @_;
	$node->wait_for($what, q{SELECT coalesce(string_agg(content || ' ' || uses, ', ' ORDER BY content), '') FROM prometheus.memory WHERE agent = 'a' AND last_used_at IS NOT NULL}, $expected);
	return;
}

$node->init(restart_after_crash => 1);
$node->start;
$node->create_extension;

sql(q{SELECT prometheus_remember('a', c) FROM unnest('{red fox,blue sea,green tea}'::text[]) c});
is(sql(q{SELECT count(*) FROM prometheus._memory_use}), 0, 'nothing was recalled');

# In a transaction that cannot write, and one that does not commit.
sql(q{BEGIN READ ONLY; SELECT prometheus_recall('a', 'fox'); ROLLBACK});
wait_uses('what was recalled is known', 'red fox 1');
is(sql(q{SELECT last_used_at BETWEEN created_at AND now() FROM prometheus.memory WHERE content = 'red fox'}), 't', '... and when');

# Of one that was written, the next are kept for an hour; of others they are written.
sql(q{SELECT prometheus_recall('a', 'fox'), prometheus_recall('a', 'fox')});
sql(q{SELECT prometheus_recall('a', 'sea') FROM generate_series(1, 3)});
wait_uses('others are written', 'blue sea 3, red fox 1');
is(sql(q{SELECT count(*) FROM prometheus._memory_use}), 2, 'one row each');

# What was recalled at a moment of the past is not used now.
sql(q{SELECT prometheus_mark('then')});
is(sql(q{SET prometheus.as_of = 'mark:then'; SELECT count(*) FROM prometheus_recall('a', 'tea')}), 1, 'AS OF it is there');
sql(q{SELECT prometheus_recall('b', 'x'), prometheus_remember('b', 'x')});

# A stop writes the rest.
$node->restart;
wait_uses('a stop writes the rest, and no more', 'blue sea 3, red fox 3');
is(sql(q{SELECT string_agg(u.uses::text, ',' ORDER BY u.used_at) FROM prometheus._memory_use u JOIN prometheus.memory m USING (memory_id) WHERE content = 'red fox'}),
	'1,3', 'each row has the sum');
is(sql(q{SET prometheus.as_of = 'mark:then'; SELECT string_agg(content || ' ' || uses, ', ' ORDER BY content) FROM prometheus.memory WHERE agent = 'a'}),
	'blue sea 3, green tea 0, red fox 1', 'AS OF: as it was known then');

# More than there is room for: none is in the way of the others for ever.
sql(q{SELECT prometheus_remember('many', format('thing %s of shelf %s', n, n % 6)) FROM generate_series(1, 6000) n});
sql("SELECT count(*) FROM prometheus_recall('many', 'shelf $_', k => 1000)") foreach 0 .. 5;
$node->wait_for('thousands', q{SELECT count(*) > 3000 FROM prometheus.memory WHERE agent = 'many' AND uses > 0});
sql(q{SELECT prometheus_recall('a', 'tea')});
wait_uses('and one more', 'blue sea 3, green tea 1, red fox 3');

# A publisher that ends at once loses what it has not written, and nothing else.
# It does not wait for the disk; a commit that does takes along what was before.
sql(q{CREATE TABLE flushed ()});
sql(q{SELECT prometheus_recall('a', 'fox')});
$node->signal_worker('KILL', 'publisher');
wait_uses('what was written is there', 'blue sea 3, green tea 1, red fox 3');
sql(q{SELECT prometheus_recall('a', 'fox')});
wait_uses('and goes on', 'blue sea 3, green tea 1, red fox 4');

# A write that fails, or in which the server dies: it loses what it was about.
if ($node->has_faults)
{
	foreach my $action ('error', 'die')
	{
		$node->set_fault("use-before-commit:$action:1, before-notify:note");
		$node->wait_for("$action: it is to be met",
			"SELECT count(*) > 0 OR prometheus_emit('x') = 0 FROM pg_ls_dir('.') f WHERE f = 'prometheus.note.before-notify'");
		sql(qq{SELECT prometheus_recall('f', '$action') FROM prometheus_remember('f', '$action')});
		sql(qq{SELECT prometheus_recall('f', '$action')});
		$node->wait_for("$action: it was met", "SELECT count(*) > 0 FROM pg_ls_dir('.') f WHERE f = 'prometheus.fault.use-before-commit'");
		sql(qq{SELECT prometheus_remember('f', '$action again')});
		sql(qq{SELECT prometheus_recall('f', 'again', k => 1)});
		$node->wait_for("$action: the next is written", "SELECT uses FROM prometheus.memory WHERE agent = 'f' AND content = '$action again'", 1);
		is(sql("SELECT uses FROM prometheus.memory WHERE agent = 'f' AND content = '$action'"), 0, "$action: what was to be written is lost");
		sql(qq{SELECT prometheus_forget(memory_id) FROM prometheus.memory WHERE agent = 'f'});
	}
	is($node->log_count(qr/LOG:  the publisher can write which memories were recalled again/), 1, 'the log says that it goes on');
	$node->set_fault('');
}

# Another extension, another table: ids begin anew.
sql(q{SELECT prometheus_recall('a', 'fox')});
sql(q{DROP EXTENSION prometheus});
$node->create_extension;
sql(q{SELECT prometheus_remember('a', 'fox ' || n) FROM generate_series(1, 200) n});
sql(q{SELECT prometheus_recall('a', '7', k => 1)});
wait_uses('uses of the extension before do not count', 'fox 7 1');

$node->stop;
done_testing();
