# The checker of histories (481) is good for something: it notices each mistake
# of src/mutant.c, and two that a session can make.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PromCluster;
use PromHistory;
use Test::More;

# What a mistake is noticed by.
my %by = (
	'mark-before-snapshot' => qr/not faithful|snapshot of this transaction is older/,
	'mark-not-closed' => qr/not repeatable/,
	'seen-unless-later' => qr/not repeatable/,
	'seen-if-older' => qr/without what was there before/,
	'fact-of-subxact' => qr/torn/,
	'version-ahead' => qr/torn/,
	'snapshot-unchecked' => qr/not repeatable/);

# A mistake that is seldom has so many chances.  Most are noticed at the first;
# that of who was running then takes up to twenty on a busy machine.
use constant CHANCES => 100;

my $node = PromCluster->new('mutant');
# Commits take a while, so that some moments fall between a mark's time and its
# commit.
$node->init(fsync => 1, conf => "prometheus.mark_interval = '50ms'\nmax_prepared_transactions = 4\nmax_connections = 30\nstatement_timeout = 0\ncommit_delay = 20000\ncommit_siblings = 0\n");
$node->start;
$node->create_extension;
plan skip_all => 'the library was built without FAULTS=1'
  unless $node->has_faults;
my $history = PromHistory->new($node, writers => 4, seed => $ENV{PROM_HISTORY_SEED} // time % 1_000_000);

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Write for a while; what was wrong with what was read.
sub found
{
	my ($session) = @_;
	my $end = sql(q{SELECT clock_timestamp() + interval '1 s'});

	my $wrong = $history->work("SELECT clock_timestamp() > '$end'", $session) . $history->wrong;
	return $wrong if $wrong ne '';
	$history->settle;
	my (undef, $also) = $history->ask($node, 200, 1);
	return $also;
}

# Let all make a mistake, or none.
sub make
{
	my ($mutant) = @_;
	sql("ALTER SYSTEM SET prometheus.mutant = '$mutant'");
	$node->reload;
	$node->wait_for("$mutant is made", 'SHOW prometheus.mutant', $mutant);
	return;
}

sub is_noticed
{
	my ($mutant, $session) = @_;
	my $by = $by{$mutant} // qr/./;
	my $wrong = '';

	foreach (1 .. CHANCES)
	{
		$wrong = found($session);
		last if $wrong =~ $by;
	}
	return like($wrong, $by, "$mutant: is noticed");
}

my ($list) = slurp_file('src/mutant.c') =~ /mutants\[\] = \{(.*?)\};/s;
my @mutants = $list =~ /"([a-z-]+)"/g;
is("@{[ sort @mutants ]}", "@{[ sort keys %by ]}", 'the mistakes are known');
is(found(), '', 'without a mistake there is nothing to notice');
foreach my $mutant (@mutants)
{
	make($mutant);
	is_noticed($mutant);
}
make('');

# A second process that writes marks, and commits late.
is_noticed('two write marks', <<'EOSQL');
DO $$ BEGIN FOR n IN 1 .. 1000 LOOP
	INSERT INTO prometheus._mark (mark_id, xid, snapshot, at)
	SELECT min(mark_id) - 1, prometheus._xid(), prometheus._snapshot(), clock_timestamp() FROM prometheus._mark;
	PERFORM pg_sleep(0.03);
	COMMIT;
	EXIT WHEN EXISTS (SELECT FROM stop);
END LOOP; END $$;
EOSQL
$node->stop;
done_testing();
