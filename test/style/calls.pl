#!/usr/bin/perl
# Prints what C files must not say: banned calls, an ereport(ERROR) without an
# SQLSTATE, and version switches outside of compat.h.
#
# usage: calls.pl banned|errcode|version FILE...
use strict;
use warnings;

my %banned = (
	sprintf => 'snprintf',
	vsprintf => 'vsnprintf',
	strcpy => 'strlcpy',
	strcat => 'strlcat',
	gets => 'fgets',
	sleep => 'WaitLatch',
	usleep => 'WaitLatch',
	pg_usleep => 'WaitLatch',
	curl_easy_perform => 'the multi interface',
	curl_global_init_mem => 'curl_global_init');
my $banned = join('|', keys %banned);

# Blank out comments and the contents of strings; lines stay where they are.
sub code
{
	my ($text) = @_;
	$text =~ s{(/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')}
			  {my $t = $1; my $q = substr($t, 0, 1);
			   $t =~ s/[^\n]/ /g; $q eq '/' ? $t : $q . substr($t, 2) . $q}gse;
	return $text;
}

my $check = shift;
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

	if ($check eq 'banned')
	{
		$say->($-[0], "$1() is banned: use $banned{$1}")
		  while $text =~ /\b($banned)\s*\(/g;
		$say->($-[0], "$1($2) has no reader in a worker")
		  while $text =~ /\b(elog|ereport)\s*\(\s*(INFO|NOTICE)\b/g;
	}
	elsif ($check eq 'errcode')
	{
		my $parens = qr/(\((?:[^()]++|(?1))*\))/;
		while ($text =~ /\bereport(?:_domain)?\s*$parens/g)
		{
			my ($offset, $call) = ($-[0], $1);
			next unless $call =~ /^\(\s*(ERROR|FATAL|PANIC)\b/;
			$say->($offset, "ereport($1) without errcode")
			  unless $call =~ /\berrcode(_for_(file|socket)_access)?\s*\(/;
		}
	}
	elsif ($check eq 'version')
	{
		next if $file eq 'src/compat.h';
		$say->($-[0], "$1 belongs in src/compat.h")
		  while $text =~ /^[ \t]*#.*\b(PG_VERSION_NUM|PG_MAJORVERSION_NUM)\b/mg;
	}
	else
	{
		die "unknown check: $check\n";
	}
}
