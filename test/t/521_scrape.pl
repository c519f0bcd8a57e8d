# What a monitoring system makes of prometheus_metrics(): its own checker, its
# strictest parser, and the system itself, which scrapes it and is asked for it.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils qw(slurp_file append_to_file);
use PromCluster;
use PromMetrics;
use Test::More;
use Time::HiRes qw(usleep);

my %missing = map { system("command -v $_ >/dev/null 2>&1") == 0 ? () : ($_ => 1) } qw(prometheus promtool);
plan skip_all => 'Debian\'s package prometheus is not installed' if %missing;
plan skip_all => 'python3 has no psycopg2' if system('python3 -c "import psycopg2" 2>/dev/null') != 0;

my $http = HTTP::Tiny->new(timeout => 30, proxy => undef, http_proxy => undef);
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->keep_sessions;
$node->init(conf => "prometheus.allow_private_endpoints = on\n");
$node->start;
$node->create_extension;

sub sql { return $node->safe_psql('postgres', $_[0]); }

my @running;

# Wait for a line of a program; what it matches.
sub wait_line
{
	my ($what, $text, $pattern) = @_;
	foreach (1 .. 600)
	{
		return $1 if $$text =~ $pattern;
		usleep(100_000);
		IPC::Run::pump_nb($_) foreach grep { $_->pumpable } @running;
	}
	die "$what: $$text\n";
}

sub run_program
{
	my ($text, @command) = @_;
	my $program = IPC::Run::start(\@command, '<', \undef, '>&', $text);
	push @running, $program;
	return $program;
}

# Something of everything.
$node->fake_agent($llm, 'fake-echo', options => '{"price_in": 3, "price_out": 15}');
$node->fake_agent($llm, 'fake-400');
sql(q{SELECT prometheus_set_agent(E'a "quoted\\\\ n\u00e4me\\u2028', 'echo')});
sql(q{SELECT count(prometheus_submit('t' || i)) FROM generate_series(1, 20) i;
	SELECT prometheus_submit('x', name) FROM prometheus.agent WHERE name LIKE 'a "%';
	SELECT count(prometheus_submit('e' || i, 'fake-echo')) FROM generate_series(1, 5) i;
	SELECT prometheus_submit('b', 'fake-400')});
my $metrics;
foreach (1 .. 200)
{
	$metrics = PromMetrics->new($node);
	last if $metrics->total('prom_agent_tasks_ended_total') == 27;
	usleep(50_000);
}
$metrics->check('the text is right');
is($metrics->total('prom_agent_tasks_ended_total'), 27, 'all have ended');

# The checker reads the older format.
my $said;
my $older = sql(q{SELECT prometheus_metrics('text')});
ok(IPC::Run::run([qw(promtool check metrics)], '<', \"$older\n", '>&', \$said), 'promtool has no objection')
  or diag($said);
is($said, '', 'not one');

# The reference parser reads the newer one.
SKIP:
{
	skip 'Debian\'s package python3-prometheus-client is not installed', 1
	  if system('python3 -c "import prometheus_client" 2>/dev/null') != 0;
	my $parse = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n"
	  . "print(sum(len(f.samples) for f in parse(sys.stdin.read())))\n";
	IPC::Run::run([ 'python3', '-c', $parse ], '<', \$metrics->{text}, '>', \my $parsed, '2>', \my $error);
	my $samples = () = $metrics->{text} =~ /^[a-z]/mg;
	is($parsed, "$samples\n", 'it finds every sample') or diag($error);
}

# The exporter, as a role that may do nothing but this.
sql(q{CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor});
my $listening = '';
run_program(\$listening, 'python3', 'test/examples/exporter.py', $node->connstr('postgres') . ' user=monitor', '0');
my $port = wait_line('the exporter', \$listening, qr/port (\d+)/);
my $page = $http->get("http://127.0.0.1:$port/metrics", { headers => { Accept => 'application/openmetrics-text' } });
is($page->{headers}{'content-type'}, 'application/openmetrics-text; version=1.0.0; charset=utf-8', 'the newer format by name');
like($page->{content}, qr/\n# EOF\n\z/, 'to its end');
$page = $http->get("http://127.0.0.1:$port/metrics");
is($page->{headers}{'content-type'}, 'text/plain; version=0.0.4; charset=utf-8', 'the older one for others');
is($http->get("http://127.0.0.1:$port/")->{status}, 404, 'nothing else is there');

# The system itself.
append_to_file("$dir/prometheus.yml", <<"EOYAML");
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- job_name: agents
  static_configs:
  - targets: ['127.0.0.1:$port']
EOYAML
my $log = '';
run_program(\$log, 'prometheus', "--config.file=$dir/prometheus.yml", "--storage.tsdb.path=$dir/data",
	'--web.listen-address=127.0.0.1:0', '--enable-feature=exemplar-storage');
my $web = wait_line('prometheus', \$log, qr/msg="Listening on" address=127\.0\.0\.1:(\d+)/);

sub query
{
	my ($path, %arguments) = @_;
	my $reply = $http->get("http://127.0.0.1:$web/api/v1/$path?" . $http->www_form_urlencode(\%arguments));
	my $answer = eval { decode_json($reply->{content}) } // {};

	return $answer->{status} && $answer->{status} eq 'success' ? $answer->{data} : { error => $reply->{content} };
}

# The value of an expression that is one number, when it is what it should be.
sub wait_value
{
	my ($expr, $expected) = @_;
	my $value;

	foreach (1 .. 300)
	{
		my $result = query('query', query => $expr)->{result};
		$value = $result->[0]{value}[1] if $result && @$result == 1;
		last if defined $value && $value == $expected;
		usleep(100_000);
	}
	is($value, $expected, $expr) or diag($log);
	return;
}

wait_value('up{job="agents"}', 1);
wait_value('prom_agent_tasks_ended_total{agent="default",outcome="completed"}', 20);
wait_value('gen_ai_client_operation_duration_seconds_count{gen_ai_request_model="fake-echo"}', 5);
wait_value('gen_ai_client_operation_duration_seconds_bucket{gen_ai_request_model="fake-echo",le="+Inf"}', 5);
wait_value('count(prom_agent_tasks_submitted_total)', 4);
wait_value('histogram_quantile(1, prom_agent_task_duration_seconds_bucket{agent="default"}) <= bool 604800', 1);
is(query('targets')->{activeTargets}[0]{lastError}, '', 'the scrape had no error');
my $exemplars = query('query_exemplars', query => 'gen_ai_client_operation_duration_seconds_bucket{gen_ai_request_model="fake-echo"}',
	start => time - 600, end => time + 60);
my @traces = ref $exemplars eq 'ARRAY' && @$exemplars ? map { $_->{labels}{trace_id} } map { @{ $_->{exemplars} } } @$exemplars : ();
my $theirs = sql(q{SELECT string_agg(DISTINCT replace(trace_id::text, '-', ''), ' ') FROM prometheus._task WHERE agent = 'fake-echo'});
cmp_ok(scalar @traces, '>', 0, 'exemplars are there');
is(join(' ', grep { $theirs !~ /$_/ } @traces), '', 'and lead to traces of that model');

# A database that is gone for a while is a scrape that fails, and no more.
$node->stop;
is($http->get("http://127.0.0.1:$port/metrics")->{status}, 503, 'without a database');
wait_value('up{job="agents"}', 0);
$node->start;
wait_value('up{job="agents"}', 1);
wait_value('prom_agent_database_served', 1);

# The dashboard: every expression can be read, and names what there is.
my $dashboard = decode_json(slurp_file('dashboard/grafana.json'));
my %names = map { $_ => 1 } $metrics->names;
my @expressions = map { map { $_->{expr} } @{ $_->{targets} // [] } } @{ $dashboard->{panels} };
my @variables = map { $_->{query}{query} } grep { $_->{type} eq 'query' } @{ $dashboard->{templating}{list} };
my @unknown = grep { !$names{$_} } map { /\b((?:prom_agent|gen_ai)_\w+)(?=[\{\[), ])/g } map { s/\b(?:by|ignoring) \([^)]*\)//gr } @expressions, @variables;
cmp_ok(scalar @expressions, '>', 30, 'the dashboard shows something');
is(join(' ', @unknown), '', 'of metrics that there are');
my @bad = grep { query('query', query => $_)->{error} }
  map { s/\$__rate_interval/1m/gr } map { s/"\$(?:job|instance|agent)"/".*"/gr } @expressions;
is(join("\n", @bad), '', 'by expressions that can be read');
my %used = map { $_ => 1 } map { /\b((?:prom_agent|gen_ai)_\w+)/g } @expressions, @variables;
my %ids; $ids{ $_->{id} }++ foreach @{ $dashboard->{panels} };
is(join(' ', grep { $ids{$_} > 1 } keys %ids), '', 'no panel twice');

foreach my $program (@running)
{
	$program->signal('TERM');
	eval { $program->finish };
}
$node->stop;
done_testing();
