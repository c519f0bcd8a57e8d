# The picture of a task in databases of other encodings: ASCII signs only, but
# what the encoding itself has.
use strict;
use warnings FATAL => 'all';

use PromCluster;
use Test::More;

my $node = PromCluster->new('trace');
my %encodings = (latin => 'LATIN1', ascii => 'SQL_ASCII', japan => 'EUC_JP');
my @databases = sort keys %encodings;

$node->init(databases => ['postgres', @databases]);
$node->start;
$node->safe_psql('postgres',
	"CREATE DATABASE $_ TEMPLATE template0 ENCODING '$encodings{$_}' LOCALE 'C'")
  foreach @databases;

foreach my $name ('postgres', @databases)
{
	my $what = $encodings{$name} // 'UTF8';

	$node->create_extension($name);
	my $task = $node->submit(q{'hello'}, dbname => $name);
	$node->wait_task($task, 'completed', dbname => $name);
	my $trace = $node->safe_psql($name, "SELECT prometheus_trace($task)");
	my $sign = $name eq 'postgres' ? qr/[^ -~\n]/ : qr/#/;

	like($trace, qr/^task $task\b.*default.*completed in/, "$what: what and where it is");
	like($trace, qr/^attempt 1: completed .*$sign.*s$/m, "$what: an attempt");
	like($trace, qr/^  chat echo .*$sign.* 0 +0$/m, "$what: its step");
	like($trace, qr/^[ -~\n]*$/, "$what: no other signs than those of ASCII")
	  if $name ne 'postgres';
}

$node->stop;
done_testing();
