#!/usr/bin/perl
# Prints what the install script must not say.  With OR REPLACE or IF NOT EXISTS
# someone can plant an object before CREATE EXTENSION and keep it; an object
# without a schema goes wherever search_path says.
#
# usage: sqllint.pl FILE...
use strict;
use warnings;

my $object = qr/(?:UNLOGGED\s+TABLE|TABLE|MATERIALIZED\s+VIEW|VIEW|FUNCTION|
	PROCEDURE|AGGREGATE|TYPE|DOMAIN|SEQUENCE|STATISTICS|COLLATION|CONVERSION|
	OPERATOR\s+CLASS|OPERATOR\s+FAMILY|OPERATOR|
	TEXT\s+SEARCH\s+(?:CONFIGURATION|DICTIONARY|PARSER|TEMPLATE))/xi;
my $attached = qr/(?:UNIQUE\s+)?INDEX|(?:CONSTRAINT\s+)?TRIGGER|POLICY|RULE/i;
my $schema = qr/(?:prometheus|\@extschema\@)\./;

# Blank out comments, strings and quoted bodies; lines stay where they are.
sub code
{
	my ($text) = @_;
	$text =~ s{(--[^\n]*|/\*.*?\*/|(\$\w*\$).*?\2|'(?:[^']|'')*')}
			  {(my $t = $1) =~ s/[^\n]/ /g; $t}gse;
	return $text;
}

foreach my $file (@ARGV)
{
	open(my $fh, '<', $file) or die "$file: $!\n";
	my $text = code(do { local $/; <$fh> });
	close($fh);

	my $say = sub {
		my ($offset, $what) = @_;
		my $line = 1 + (substr($text, 0, $offset) =~ tr/\n//);
		print "$file:$line: $what\n";
	};

	$say->($-[0], uc $1)
	  while $text =~ /\b(OR\s+REPLACE|IF\s+NOT\s+EXISTS)\b/gi;
	$say->($-[0], "CREATE $1 without a schema: $2")
	  while $text =~ /\bCREATE\s+(?:OR\s+REPLACE\s+)?($object)\s+(?!$schema)(\S+)/gi;
	$say->($-[0], "CREATE $1 on a table without a schema: $2")
	  while $text =~ /\bCREATE\s+($attached)\b[^;]*?\sON\s+(?:ONLY\s+)?(?!ONLY\b|$schema)(\w\S*)/gi;
	$say->($-[0], 'a temporary object outlives the script')
	  while $text =~ /\bCREATE\s+TEMP(?:ORARY)?\b/gi;
}
