# The page of a task in a browser, on a phone and on a desk: nothing that is
# written in it runs, its own style sheet does, and nothing is wider than the
# screen.  The browser is Debian's package chromium; without it this is passed
# over.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my ($browser) = grep { -x } map { my $dir = $_; map { "$dir/$_" } qw(chromium chromium-browser google-chrome) } split /:/, $ENV{PATH};
plan skip_all => 'there is no browser: Debian\'s package is chromium' unless $browser;

my $directory = PostgreSQL::Test::Utils::tempdir;
my $home = PostgreSQL::Test::Utils::tempdir;
my $runs = 0;

# Let the browser do something with a page; what it printed.
sub browse
{
	my ($page, @options) = @_;
	my ($out, $log) = ('', '');
	my $file = "$directory/page" . ++$runs . '.html';

	append_to_file($file, $page);
	local $ENV{HOME} = $home;
	IPC::Run::run([ $browser, qw(--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --no-first-run), "--user-data-dir=$home/$runs", @options, "file://$file" ],
		'<', \'', '>', \$out, '2>', \$log, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default))
	  or diag $log;
	return $out;
}

plan skip_all => 'the browser does not run here' unless browse('<title>here</title>', '--dump-dom') =~ /here/;

my $node = PromCluster->new('report');
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->init(conf => "prometheus.capture_content = full\n");
$node->start;
$node->create_extension;
sql(sprintf q{SELECT prometheus_set_model('m', 'openai', '%s', 'fake-tools', options => '{"price_in": 1}')}, $llm->url('/v1'));
sql(q{CREATE FUNCTION look(up text) RETURNS text LANGUAGE sql AS 'SELECT up';
      CREATE FUNCTION fail(why text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION '%', why; END$$;
      SELECT prometheus_set_tool('look(text)'); SELECT prometheus_set_tool('fail(text)');
      SELECT prometheus_set_agent('a', 'm', tools => '{look,fail,delegate}')});

# Ten turns, whose texts want to run and to be wide.
my $evil = q{</pre></title></style><script>document.title='ran'</script><img src=x onerror="document.title='ran'"><svg onload="document.title='ran'">};
my $wide = 'w' x 3000;
my $task = $node->run_script('a', [
	[ 'I look', [ look => { up => $evil } ] ], [ [ fail => { why => $evil } ] ], [ [ look => { up => $wide } ] ], [ [ fail => { why => $wide } ] ],
	[ [ delegate => { agent => 'a', request => '["child"]' } ] ], (map { [ [ look => { up => "turn $_" } ] ] } 6 .. 9), "$evil $wide" ]);
is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $task AND kind = 'chat'"), '10', 'a task of ten turns');
my $page = sql("SELECT prometheus_report($task)");
my $dom = browse($page, '--dump-dom');
like($dom, qr{<title>Task $task}, 'nothing of it runs');
unlike($dom, qr{<(script|img|svg onload)}, 'nor becomes an element');

# The same page with a script of ours, which says what there is to see.  Its
# policy must not forbid that, so there is none.
(my $free = $page) =~ s/<meta http-equiv[^>]*>//;
$free =~ s{</body>}{<script>document.title = [document.documentElement.scrollWidth - innerWidth, document.querySelectorAll('rect').length,
	getComputedStyle(document.body).margin, getComputedStyle(document.querySelector('section')).borderRadius].join(' ')</script></body>};
unlike(browse($page =~ s{</body>}{<script>document.title='ran'</script></body>}r, '--dump-dom'), qr{<title>ran}, 'its policy forbids every script');
my $bars = () = $page =~ /<rect /g;
foreach my $screen ([ 390, 844 ], [ 1280, 900 ])
{
	my ($width, $height) = @$screen;
	my $picture = "$directory/$width.png";
	my ($seen) = browse($free, '--dump-dom', "--window-size=$width,$height") =~ m{<title>([^<]*)};

	is($seen, "0 $bars 0px 12px", "at a width of $width nothing is wider, every bar is there, and the style sheet counts");
	browse($page, "--screenshot=$picture", "--window-size=$width,$height");
	my $png = slurp_file($picture);
	is(join(' ', unpack('x16 NN', $png)), "$width $height", 'there is a picture of it');
	cmp_ok(length $png, '>', 10_000, 'which is not empty');
}

$node->stop;
done_testing();
