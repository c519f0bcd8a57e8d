#!/usr/bin/perl
# Prints the lines of any text file that have trailing blanks, a carriage
# return or no newline; of C and SQL, those that are too long; and of C, those
# that are indented with blanks.  A tab is four columns wide.
#
# usage: lines.pl FILE...
use strict;
use warnings;

binmode(STDOUT, ':utf8');

sub width
{
	my ($line) = @_;
	1 while $line =~ s/^([^\t]*)\t/$1 . ' ' x (4 - length($1) % 4)/e;
	return length $line;
}

foreach my $file (@ARGV)
{
	my $c = $file =~ /\.[ch]$/;
	my $narrow = $c || $file =~ m{^sql/};
	my $comment = 0;

	open(my $fh, '<:utf8', $file) or die "$file: $!\n";
	while (my $line = <$fh>)
	{
		my $at = "$file:$.:";
		print "$at no newline at the end of the file\n" unless chomp $line;
		print "$at trailing blanks\n" if $line =~ /[ \t]$/;
		print "$at carriage return\n" if $line =~ /\r/;

		# A message stays on one line, so that who has read it finds it.
		(my $short = $line) =~ s/"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'//g;
		print "$at ", width($line), " columns, not at most 80\n"
		  if $narrow && width($line) > 80 && width($short) > 60;

		# Up to three blanks line up a continuation that tabs cannot.
		print "$at indented with blanks\n"
		  if $c && !$comment && $line =~ /^\t* {4}/;
		$comment = $1 eq '/*' while $line =~ m{(/\*|\*/)}g;
	}
	close($fh);
}
