# Starts and stops test/fake_llm.py, the model server of the tests, and asks it
# what it saw.  The server listens on a free port of the loopback address and
# ends when its standard input is closed, so also when the test dies.
#
#	my $llm = FakeLLM->new;
#	... $llm->url ...
#	is(scalar @{ $llm->requests }, 1, 'one request');
package FakeLLM;

use strict;
use warnings FATAL => 'all';

use Carp qw(croak);
use HTTP::Tiny;
use IPC::Open2 qw(open2);
use JSON::PP qw(decode_json);
use POSIX qw(WNOHANG);
use Time::HiRes qw(time usleep);

use constant TIMEOUT => $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

sub program { return 'test/fake_llm.py'; }

# Start a server; arguments go to the program.
sub new
{
	my ($class, @args) = @_;
	my ($out, $in);
	my $pid = open2($out, $in, $ENV{PYTHON} // 'python3', $class->program, @args);
	my $line = do {
		local $SIG{ALRM} = sub { die $class->program . " did not start\n" };
		alarm TIMEOUT;
		my $read = readline($out);
		alarm 0;
		$read;
	};

	my ($port) = ($line // '') =~ /(\d+)\s*$/
	  or croak $class->program . " printed no port: " . ($line // 'nothing');
	# No proxy of the environment may come between.
	my $http = HTTP::Tiny->new(
		timeout => TIMEOUT,
		proxy => undef,
		http_proxy => undef,
		https_proxy => undef);
	return bless { pid => $pid, in => $in, out => $out, port => $port,
		http => $http }, $class;
}

sub port { return $_[0]{port}; }

sub pid { return $_[0]{pid}; }

sub url
{
	my ($self, $path) = @_;
	return "http://127.0.0.1:$self->{port}" . ($path // '');
}

# Read a path as JSON.
sub get
{
	my ($self, $path) = @_;
	my $reply = $self->{http}->get($self->url($path));

	croak "$path: $reply->{status} $reply->{content}" unless $reply->{success};
	return decode_json($reply->{content});
}

# All requests seen so far, in order.
sub requests { return $_[0]->get('/requests'); }

sub stats { return $_[0]->get('/stats'); }

# Wait until so many requests have come in, and return them.
sub wait_requests
{
	my ($self, $count) = @_;
	my $end = time + TIMEOUT;

	for (;;)
	{
		my $requests = $self->requests;
		return $requests if @$requests >= $count;
		croak "waited in vain for $count requests, got " . scalar @$requests
		  if time >= $end;
		usleep(10_000);
	}
}

# Wait until so many requests were dropped, and return their number.
sub wait_dropped
{
	my ($self, $count) = @_;
	my $end = time + TIMEOUT;
	my $dropped;

	usleep(10_000) until ($dropped = $self->stats->{dropped}) >= $count || time >= $end;
	return $dropped;
}

# Stop the server; it gets a moment to end by itself.
sub stop
{
	my ($self) = @_;
	my $pid = delete $self->{pid} or return;
	my $end = time + 5;

	close($self->{in});
	while (waitpid($pid, WNOHANG) == 0)
	{
		kill('KILL', $pid) if time >= $end;
		usleep(5_000);
	}
	return;
}

# The test's exit status is not the server's.
sub DESTROY
{
	my ($self) = @_;
	local ($?, $!, $@);
	$self->stop;
	return;
}

1;
