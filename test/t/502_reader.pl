# The examples: readers that listen for hints, and are ended in the middle.  That
# in Python needs psycopg2, which test/deps.sh installs, that in JavaScript the
# module pg, and is passed over where that is not.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PromCluster;
use Test::More;

my $node = PromCluster->new('reader');
$node->init;
$node->start;
$node->create_extension;
$node->safe_psql('postgres',
	'CREATE TABLE handled (event_id bigint, type text)');
$ENV{PGDATABASE} = 'postgres';
$ENV{PGHOST} = $node->host;
$ENV{PGPORT} = $node->port;

sub emit
{
	$node->safe_psql('postgres', q{SELECT prometheus_emit('shop.order')})
	  foreach 1 .. $_[0];
	return;
}

my %examples = (
	py => [ [ 'python3', '-c', 'import psycopg2' ],
		[ 'python3', 'test/examples/consumer.py', 'dbname=postgres' ] ],
	js => [ [ 'node', '-e', q{require('pg')} ],
		[ 'node', 'test/examples/consumer.js' ] ]);

foreach my $name (sort keys %examples)
{
	my ($driver, $command) = @{ $examples{$name} };

  SKIP:
	{
		my ($in, $out) = ('', '');
		skip "no driver for the example in $name", 2
		  if !eval { IPC::Run::run($driver, '>&', \my $nothing) };
		$node->safe_psql('postgres', "TRUNCATE handled; SELECT prometheus_create_consumer('$name', '{shop.*}')");
		emit(3);
		foreach my $so_far (6, 12)
		{
			my $reader = IPC::Run::start([ @$command, $name ], '<', \$in, '>&', \$out);
			$node->wait_for("$name has read what was there",
				'SELECT count(*) >= 3 FROM handled');
			emit(3);
			$node->wait_for("$name is told of more: $out",
				'SELECT count(*) FROM handled', $so_far);
			IPC::Run::kill_kill($reader, grace => 0);
			emit(3);
		}
		is($node->safe_psql('postgres', 'SELECT count(*) - count(DISTINCT event_id) FROM handled'),
			0, "$name: none twice");
		is( $node->safe_psql('postgres', "SELECT count(*) FROM prometheus_poll('$name')"),
			3, "$name: and what came after its end waits");
	}
}

$node->stop;
done_testing();
