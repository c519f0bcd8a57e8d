# A psql that stays, for a query that is asked again and again: a new process
# and a new connection for each would take more of the machine than what is
# waited for.
#
#	my $session = PromSession->new($node, 'postgres');
#	my ($ok, $out) = $session->ask('SELECT 1');
#
# ask() returns what psql would print, or false and what went wrong: an error,
# or that the server is not there; the next ask() connects again then.
package PromSession;

use strict;
use warnings FATAL => 'all';

use IPC::Run ();

sub new
{
	my ($class, $node, $dbname) = @_;
	return bless { connstr => $node->connstr($dbname), asked => 0 }, $class;
}

sub connect_again
{
	my ($self) = @_;

	@$self{qw(in out err)} = ('', '', '');
	$self->{psql} = IPC::Run::start(
		[ 'psql', '-X', '-A', '-t', '-q', '-d', $self->{connstr}, '-f', '-' ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err});
	return;
}

sub ask
{
	my ($self, $query) = @_;
	my $mark = 'asked ' . ++$self->{asked};
	my ($out, $failed);

	my $done = eval {
		local $SIG{PIPE} = 'IGNORE';
		$self->connect_again if !defined $self->{psql};
		@$self{qw(out err)} = ('', '');
		$self->{in} .= "$query\n;\n\\echo $mark :ERROR\n";
		$self->{psql}->pump
		  until ($out, $failed) = $self->{out} =~ /\A(.*?)\n?^$mark (\w+)\n/ms;
		1;
	};

	if (!$done)
	{
		my $error = $self->{err} . $@;
		$self->close;
		return (0, $error);
	}
	return $failed eq 'true' ? (0, "$out$self->{err}") : (1, $out);
}

sub close
{
	my ($self) = @_;
	my $psql = delete $self->{psql};

	return if !defined $psql;
	eval {
		local $SIG{PIPE} = 'IGNORE';
		$psql->finish;
	} or eval { $psql->kill_kill };
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@);
	$self->close;
	return;
}

1;
