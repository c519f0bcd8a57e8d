# What a server says of the past: the same questions to one that has written it
# and to one that has it from a dump, a backup or a standby.  The answers must be
# the same text.
#
#	$node->safe_psql('postgres', q{SELECT prometheus_mark('dumped')});
#	my $answers = answers($node, 'dumped', tables => ['account']);
#	is(answers($other, 'dumped', tables => ['account']), $answers, ...);
#
# They are about the mark of that name and some before it, all relations that
# know AS OF, all versions of states of the user and what they differ in, and
# the rows of tracked tables.  What cannot be answered is an answer, too.
package PromAnswers;

use strict;
use warnings FATAL => 'all';

use Exporter qw(import);

our @EXPORT_OK = qw(answers);

# Marks besides that of the name.
use constant MARKS => 6;

# Other words of the same row: what the install script has inserted is inserted
# again by a restore, and has another time.
my $installed = qr/^(?:agent|model|tool|policy)$/;

sub answers
{
	my ($node, $name, %params) = @_;
	my $dbname = $params{dbname} // 'postgres';
	my $ask = sub { return $node->safe_psql($dbname, $_[0]) };
	my @relations = split /\n/, $ask->(
		q{SELECT substring(proname FROM '^(.*)_at$') FROM pg_proc WHERE pronamespace = 'prometheus'::regnamespace AND proname ~ '^[a-z]+_at$' ORDER BY 1});
	my @moments = map { [ split /\|/ ] } split /\n/, $ask->(
		sprintf q{SELECT mark_id, at FROM (SELECT mark_id, at, row_number() OVER (ORDER BY mark_id) AS n, count(*) OVER () AS all
			FROM prometheus.mark WHERE mark_id < (SELECT mark_id FROM prometheus.mark WHERE name = '%s')) m
			WHERE n %% greatest(m.all / %d, 1) = 0 ORDER BY mark_id}, $name, MARKS);
	my @sql;

	foreach my $moment (@moments, [ $name, "mark:$name" ])
	{
		push @sql, "SET prometheus.as_of = '$moment->[1]'", map {
			my $row = $_ =~ $installed ? q{to_jsonb(x) - 'set_at'} : 'x';
			"SELECT '$moment->[0]', '$_', count(*), md5(string_agg(($row)::text, ',' ORDER BY ($row)::text)) FROM prometheus.$_ x"
		} @relations;
	}
	push @sql, 'RESET prometheus.as_of',
	  q{SELECT s.agent, s.key, h.*, md5(prometheus_state(s.agent, s.key, version => h.version)::text), CASE WHEN h.version > 1 THEN prometheus_diff_state(s.agent, h.version - 1, h.version, s.key) END
		FROM prometheus.state s CROSS JOIN LATERAL prometheus_state_history(s.agent, s.key, 1000) h WHERE s.owner = current_user AND s.key <> 'last_task' ORDER BY 1, 2, 3};
	foreach my $table (@{ $params{tables} // [] })
	{
		push @sql, map { "SELECT '$_', '$table', x FROM prometheus_rows_at(NULL::$table, '$_') x ORDER BY x::text" }
		  map { $_->[1] } @moments;
	}
	my (undef, $out, $err) = $node->psql($dbname, join(";\n", @sql, ''), on_error_stop => 0);
	$err =~ s/^psql:\S+ //mg;
	return "$out\n$err";
}

1;
