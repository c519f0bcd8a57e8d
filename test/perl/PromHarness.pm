# A TAP::Harness for prove(1) that shows the end of the logs of each test file
# that failed, and closes with the sum of all tests.
package PromHarness;

use strict;
use warnings;
use parent 'TAP::Harness';

use File::Basename qw(basename);

# Print the last lines of a file.
sub print_end
{
	my ($file, $count) = @_;
	open(my $fh, '<', $file) or return;
	my @lines = <$fh>;
	splice(@lines, 0, -$count) if @lines > $count;
	print "--- $file\n", @lines;
	return;
}

sub summary
{
	my ($self, $aggregate) = @_;
	$self->SUPER::summary($aggregate);

	my ($passed, $failed) = (scalar $aggregate->passed, 0);
	foreach my $file ($aggregate->descriptions)
	{
		my ($parser) = $aggregate->parsers($file);
		next unless $parser->has_problems;

		# A file that dies or ends early has failed, even if none of its
		# tests has.
		$failed += scalar($parser->failed) || 1;
		my $test = basename($file, '.pl');
		print_end($_, 40) foreach glob "tmp_check/log/*${test}*";
	}
	print "$passed passed, $failed failed\n";
	return;
}

1;
