# The publisher dies, or fails, around the transaction that raises or clears an
# alert: each is told once.
use strict;
use warnings FATAL => 'all';

use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $round = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->init(restart_after_crash => 1);
$node->start;
$node->create_extension;
plan skip_all => 'the library was built without FAULTS=1'
  unless $node->has_faults;

foreach my $fault (qw(alert-before-commit:die alert-before-commit:error alert-after-commit:die))
{
	my ($point) = split /:/, $fault;

	$round++;
	foreach ([ 'raised', '10 %', 1 ], [ 'cleared', '100 %', 0 ])
	{
		my ($type, $threshold, $rows) = @$_;

		# The note says that the publisher has read the setting.
		$node->set_fault("$fault:1, before-notify:note");
		$node->wait_for("$fault: it is to be met",
			"SELECT count(*) > 0 OR prometheus_emit('x') = 0 FROM pg_ls_dir('.') f WHERE f = 'prometheus.note.before-notify'");
		$node->wait_for("$fault: it was met, and the alert is $type",
			"SELECT (SELECT count(*) > 0 FROM pg_ls_dir('.') f WHERE f = 'prometheus.fault.$point')
				AND (SELECT count(*) >= $round FROM prometheus.event WHERE type = 'alert.$type')
				OR prometheus_set_alert('worker_processes', '$threshold') = 0");
		is( sql("SELECT format('%s %s', (SELECT count(*) FROM prometheus.event WHERE type = 'alert.$type'), (SELECT count(*) FROM prometheus._alert))"),
			"$round $rows", "$fault: it was $type once");
	}
}
is( sql(q{SELECT count(DISTINCT c.caused_by) FROM prometheus.event c JOIN prometheus.event r ON r.event_id = c.caused_by AND r.type = 'alert.raised' WHERE c.type = 'alert.cleared'}),
	$round, 'each was cleared that was raised');

$node->stop;
done_testing();
