# Runs every file of test/pgtap against one server without workers.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('pgtap');
$node->init(databases => [], conf => "autovacuum = off\n");
$node->start;
$node->safe_psql('postgres',
	'CREATE EXTENSION prometheus; CREATE EXTENSION pgtap');

foreach my $file (sort glob 'test/pgtap/*.sql')
{
	my ($rc, $out, $err) = $node->psql('postgres', slurp_file($file));
	my ($planned) = $out =~ /^1\.\.(\d+)$/m;
	my $ran = 0;

	# A result, and the comment that explains it.
	while ($out =~ /^(not )?ok \d+(?: - )?(.*)\n?((?:^#.*\n?)*)/mg)
	{
		my ($not, $name, $comment) = ($1, $2, $3);
		ok(!$not, "$file: $name") or diag($comment);
		$ran++;
	}
	is($rc, 0, "$file: psql exited with 0") or diag($err);
	is($ran, $planned, "$file: every planned test ran");
}

$node->stop;
done_testing();
