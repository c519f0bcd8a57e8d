# What prometheus_metrics() says, read strictly: OpenMetrics as the standard has
# it, and what must be true of any of it.
#
#	my $metrics = PromMetrics->new($node);
#	is($metrics->value('prom_agent_marks_total'), 1, 'one mark');
#	$metrics->check('after one task');
package PromMetrics;

use strict;
use warnings FATAL => 'all';

use Carp qw(croak);
use Test::More;

my $NAME = qr/[a-zA-Z_:][a-zA-Z0-9_:]*/;
my $LABEL = qr/[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"/;
my $NUMBER = qr/-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?/;

# Ask a server; or read a text.
sub new
{
	my ($class, $node, %options) = @_;
	my $text = ref $node
	  ? $node->safe_psql($options{dbname} // 'postgres', 'SELECT prometheus_metrics()')
	  : $node;
	my $self = bless { values => {}, types => {}, errors => [], order => [] }, $class;

	$self->{text} = $text;
	$self->read_line($_) foreach split /\n/, $text, -1;
	return $self;
}

sub complain { my ($self, $what) = @_; push @{ $self->{errors} }, $what; return; }

# Of a sample: the metric that it belongs to, and what of it.
sub family_of
{
	my ($self, $name) = @_;
	return ($name, '') if exists $self->{types}{$name} && $self->{types}{$name} eq 'gauge';
	my ($family, $part) = $name =~ /^(.*)_(total|created|bucket|count|sum)$/ or return;
	my %parts = (
		counter => { map { $_ => 1 } qw(total created) },
		histogram => { map { $_ => 1 } qw(bucket count sum created) });
	return if !$parts{ $self->{types}{$family} // '' }{$part};
	return ($family, $part);
}

sub read_line
{
	my ($self, $line) = @_;

	return $self->complain("after the end: $line") if $self->{ended} && $line ne '';
	return if $self->{ended} || $line eq '';
	if ($line eq '# EOF') { $self->{ended} = 1; return; }
	if ($line =~ /^# HELP ($NAME) (.+)$/)
	{
		$self->complain("HELP twice: $1") if $self->{help}{$1}++;
		return;
	}
	if ($line =~ /^# TYPE ($NAME) (counter|gauge|histogram)$/)
	{
		$self->complain("TYPE twice: $1") if $self->{types}{$1};
		$self->{types}{$1} = $2;
		$self->{now} = $1;
		push @{ $self->{order} }, $1;
		return;
	}
	if ($line =~ /^# UNIT ($NAME) ($NAME)$/)
	{
		$self->complain("UNIT $2 of $1") if $1 !~ /_\Q$2\E$/;
		return;
	}
	my ($name, $labels, $value, $exemplar) =
	  $line =~ /^($NAME)(?:\{($LABEL(?:,$LABEL)*)\})? ($NUMBER)( # \{.*)?$/
	  or return $self->complain("not a line: $line");
	$labels //= '';
	my ($family, $part) = $self->family_of($name)
	  or return $self->complain("a sample without a metric: $line");
	$self->complain("not with its metric: $line") if $family ne $self->{now};
	$self->complain("twice: $line") if exists $self->{values}{$name}{$labels};
	$self->{values}{$name}{$labels} = $value;
	$self->read_exemplar($part, $labels, $exemplar) if $exemplar;
	push @{ $self->{buckets}{$family}{$1} }, [ $2, $value ]
	  if $part eq 'bucket' && $labels =~ /^(?:(.*),)?le="([^"]*)"$/ && defined($1 //= '');
	return;
}

sub read_exemplar
{
	my ($self, $part, $labels, $exemplar) = @_;
	my ($trace, $value) =
	  $exemplar =~ /^ # \{trace_id="([0-9a-f]{32})"(?:,span_id="[0-9a-f]{16}")?\} ($NUMBER) [0-9]+\.[0-9]{6}$/
	  or return $self->complain("not an exemplar:$exemplar");
	my ($bound) = $labels =~ /le="([^"]*)"/;

	$self->complain("an exemplar of no bucket:$exemplar") if $part ne 'bucket';
	$self->complain("an exemplar of another bucket:$exemplar") if $bound ne '+Inf' && $value > $bound;
	$self->{exemplars}{$trace}++;
	return;
}

# A sample's value: by its name and labels, in the order of the text.
sub value
{
	my ($self, $name, $labels) = @_;
	return $self->{values}{$name}{ $labels // '' };
}

# The sum of all samples of a name whose labels match.
sub total
{
	my ($self, $name, $match) = @_;
	my $sum = 0;

	$sum += $self->{values}{$name}{$_}
	  foreach grep { !defined $match || /$match/ } keys %{ $self->{values}{$name} };
	return $sum;
}

sub series
{
	my ($self, $name) = @_;
	my @labels = sort keys %{ $self->{values}{$name} };
	return @labels;
}

# All names that a sample of these metrics can have.
sub names
{
	my ($self) = @_;
	my %parts = (
		counter => [qw(_total _created)],
		gauge => [''],
		histogram => [qw(_bucket _count _sum _created)]);
	my @names = map {
		my $family = $_;
		map { $family . $_ } @{ $parts{ $self->{types}{$family} } }
	} @{ $self->{order} };

	return @names;
}

# One test: the text is right, and so are its histograms.
sub check
{
	my ($self, $what) = @_;

	$self->complain('no end') if !$self->{ended};
	foreach my $family (keys %{ $self->{types} })
	{
		$self->complain("no HELP: $family") if !$self->{help}{$family};
		$self->check_histogram($family) if $self->{types}{$family} eq 'histogram';
		next if $self->{types}{$family} ne 'counter';
		foreach my $labels ($self->series("${family}_total"))
		{
			$self->complain("no begin: $family $labels") if !$self->value("${family}_created", $labels);
		}
	}
	is(join("\n", @{ $self->{errors} }), '', $what);
	return;
}

sub check_histogram
{
	my ($self, $family) = @_;

	foreach my $labels ($self->series("${family}_count"))
	{
		my $buckets = $self->{buckets}{$family}{$labels} // [];
		my ($bound, $before) = (-1, 0);
		my ($count, $sum) = map { $self->value("${family}_$_", $labels) } qw(count sum);

		foreach my $bucket (@$buckets)
		{
			$self->complain("fewer in $bucket->[0]: $family $labels") if $bucket->[1] < $before;
			$self->complain("bounds: $family $labels")
			  if $bucket->[0] ne '+Inf' && $bucket->[0] <= $bound;
			($bound, $before) = @$bucket;
		}
		$self->complain("no last bucket: $family $labels") if $bound ne '+Inf';
		$self->complain("$before in buckets, $count in all: $family $labels") if $before != $count;
		$self->complain("a sum of nothing: $family $labels") if $count == 0 && $sum != 0;
		$self->complain("no begin: $family $labels") if !$self->value("${family}_created", $labels);
	}
	return;
}

# One test: what was counted before is not less now, unless it began later than
# that was asked.
sub check_after
{
	my ($self, $before, $what) = @_;
	my @errors;

	foreach my $name (grep { !/_created$/ } keys %{ $before->{values} })
	{
		my ($family) = $before->family_of($name);
		next if $before->{types}{$family} eq 'gauge';
		foreach my $labels ($before->series($name))
		{
			(my $whose = $labels) =~ s/(?:^|,)le="[^"]*"$//;
			my ($was, $is) = map { $_->value($name, $labels) } $before, $self;
			my ($began, $begins) = map { $_->value("${family}_created", $whose) } $before, $self;

			next if defined $is && $is >= $was && $begins == $began;
			next if !defined $is && $self->{begun};
			next if defined $is && $begins > $before->{asked};
			push @errors, "$name $labels: $was, then " . ($is // 'nothing');
		}
	}
	is(join("\n", @errors), '', $what);
	return;
}

1;
