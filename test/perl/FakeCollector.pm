# Starts and stops test/fake_collector.py, as FakeLLM does its server, and tells
# it how to behave.
#
#	my $collector = FakeCollector->new;
#	$collector->behave({ status => 503 }, { how => 'close' });
#	is(scalar $collector->spans, 3, 'three spans were taken');
package FakeCollector;

use strict;
use warnings FATAL => 'all';
use parent 'FakeLLM';

use Carp qw(croak);
use JSON::PP qw(encode_json);

sub program { return 'test/fake_collector.py'; }

# How it answers the next requests; without any, all that were asked for are
# forgotten.
sub behave
{
	my ($self, @behaviours) = @_;
	my $reply = $self->{http}->post($self->url('/behave'), { content => encode_json(\@behaviours) });

	croak "behave: $reply->{status} $reply->{content}" unless $reply->{success};
	return;
}

# The spans of a request.
sub spans_of
{
	my ($request) = @_;
	return map { @{ $_->{spans} } } map { @{ $_->{scopeSpans} } } @{ $request->{json}{resourceSpans} };
}

# The spans that it has taken, those that came twice once.
sub spans
{
	my ($self) = @_;
	my %spans;

	foreach my $request (grep { $_->{status} == 200 } @{ $self->requests })
	{
		$spans{"$_->{traceId} $_->{spanId}"} = $_ foreach spans_of($request);
	}
	return values %spans;
}

1;
