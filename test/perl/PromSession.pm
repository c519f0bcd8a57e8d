# A psql that stays: a new process and a new connection for each statement would
# take more of the machine than what is asked for.
#
#	my $session = PromSession->new($node, 'postgres');
#	my ($ok, $out) = $session->ask('SELECT 1');
#	my ($rc, $out, $err) = $session->run('SELECT 1; SELECT 2');
#
# ask() is for a query that is asked again and again: it returns what psql would
# print, or false and what went wrong: an error, or that the server is not
# there.
#
# run() does with statements what a psql of their own would do: it stops at the
# first error, and returns psql's exit status, output and messages.  Nothing is
# left for the statements that follow: an error or an open transaction ends the
# session, and what else it had is discarded.
#
# Whatever ended a session, the next ask() or run() connects again.
package PromSession;

use strict;
use warnings FATAL => 'all';

use Carp qw(croak);
use File::Temp ();
use IO::Select ();
use IPC::Open3 qw(open3);
use PostgreSQL::Test::Utils ();

sub new
{
	my ($class, $node, $dbname) = @_;
	return bless { connstr => $node->connstr($dbname), asked => 0 }, $class;
}

# More than a pipe takes would have to be written while psql's output is read.
sub can_run
{
	my ($sql) = @_;
	return length $sql < 30_000;
}

sub connect_again
{
	my ($self) = @_;

	# Messages go to a file, to its end: when psql says the mark, all are there.
	my $file = File::Temp->new;
	open(my $messages, '+>>', "$file") or croak "no file for messages: $!";
	@$self{qw(in out messages read)} = (undef, undef, $messages, 0);
	$self->{pid} = open3($self->{in}, $self->{out}, '>&' . fileno $messages,
		'psql', '-XAtq', '-d', $self->{connstr}, '-f', '-');
	return;
}

# What psql has said on its standard error since the last time.
sub messages
{
	my ($self) = @_;
	local $/;

	seek($self->{messages}, $self->{read}, 0);
	my $text = readline($self->{messages}) // '';
	$self->{read} += length $text;
	return $text;
}

# Send text, and read what psql prints for it; whether it is still there.
sub talk
{
	my ($self, $text) = @_;
	my $mark = 'asked ' . ++$self->{asked};
	my $readers = IO::Select->new($self->{out});
	my $end = time + 2 * $PostgreSQL::Test::Utils::timeout_default;
	my $failed;
	local $SIG{PIPE} = 'IGNORE';

	utf8::encode($text) if utf8::is_utf8($text);
	syswrite($self->{in}, "$text\n\\echo $mark :ERROR\n");
	$self->{said} = '';
	until ($self->{said} =~ s/^$mark (\S+)\n\z/$failed = $1; ''/em)
	{
		# A signal, of a child that has stopped or ended, ends a wait, too.
		croak "psql has no answer to: $text" if time > $end;
		next if !$readers->can_read(1);
		my $n = sysread($self->{out}, $self->{said}, 65_536, length $self->{said});
		next if $n || (!defined $n && $!{EINTR});
		$self->close;
		return 0;
	}
	$self->{failed} = $failed eq 'true';
	return 1;
}

# A psql with a server.  One that was there may have lost it meanwhile.
sub is_connected
{
	my ($self) = @_;

	return 1 if defined $self->{pid} && $self->talk('DISCARD PLANS;');
	$self->connect_again;
	return $self->talk('\set ON_ERROR_STOP 1');
}

sub ask
{
	my ($self, $query) = @_;
	my $there = $self->is_connected
	  && $self->talk("\\set ON_ERROR_STOP 0\n$query\n;");
	my $failed = !$there || $self->{failed};
	my $error = $self->messages;

	chomp(my $out = $self->{said});
	$self->talk('\set ON_ERROR_STOP 1') if $there;
	return $failed ? (0, $out . $error) : (1, $out);
}

sub run
{
	my ($self, $sql) = @_;
	my $there = $self->is_connected && $self->talk("$sql\n;");
	my ($out, $error) = ($self->{said}, $self->messages);

	$self->talk('DISCARD ALL;') if $there;
	chomp($out, $error);
	return ($there ? 0 : $self->{status}, $out, $error);
}

sub close
{
	my ($self) = @_;
	my $pid = delete $self->{pid};

	return if !defined $pid;
	close $self->{in};
	close $self->{out};
	waitpid($pid, 0);
	$self->{status} = $? >> 8 || 2; # it did not end by itself
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@, $!);
	$self->close;
	return;
}

1;
