# packages: chromium

# portal_page: the pages of a portal in a browser. Headless Chromium builds their tree, in which a hostile name is text and
# nothing else, and draws them at two widths without anything beyond the edge. Skipped where there is no Chromium.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($chromium) = grep { -x $_ } map { my $dir = $_; map { "$dir/$_" } qw(chromium chromium-browser google-chrome) } split /:/, $ENV{PATH};
plan skip_all => 'no Chromium' unless defined $chromium;

my $node = PostgreSQL::Test::Cluster->new('portal_page');
$node->init;
$node->start;
my $dir = $node->basedir;
$node->safe_psql('postgres', "CREATE DATABASE page TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'");

my $hostile = q{</title></style><script>document.body.id = "owned"</script><img src=x onerror="document.body.id='owned'">"'&amp;};
(my $literal = $hostile) =~ s/'/''/g;
$node->safe_psql('page', qq{
	CREATE EXTENSION partner_portal;
	SELECT partner_portal.create_workspace('P', 'p\@example.com');
	SELECT partner_portal.promote_to_partner(1);
	SELECT partner_portal.create_portal(1, '$literal', 'hostile', '#0055aa', 'https://example.com/?a=1&b=2');
	INSERT INTO partner_portal.folder (workspace_id, name) VALUES (1, '$literal'), (1, 'A folder with a long name that does not fit on one line of a telephone');
	INSERT INTO partner_portal.report (workspace_id, folder_id, title) VALUES (1, 1, '$literal'), (1, 2, repeat('unbroken', 20));
	SELECT partner_portal.share_folder(1, 1), partner_portal.share_folder(2, 1);
});
my %page = (
	login => "SELECT partner_portal.portal_login_page('hostile')",
	home => 'SELECT partner_portal.portal_home_page(1)',
	preview => "SELECT partner_portal.preview_portal('$literal', 'x', '#ffee00', 'https://example.com/')",
);

# what Chromium prints for a page
sub chromium
{
	my ($file, @arguments) = @_;
	my ($out, $err) = ('', '');
	local $ENV{HOME} = $dir;
	delete local $ENV{LD_PRELOAD};	# a sanitizer is the server's
	my @command = ($chromium, '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
		'--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', "--user-data-dir=$dir/chromium", @arguments, "file://$file");
	my $done = IPC::Run::run(\@command, '>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	BAIL_OUT("Chromium failed: $err") unless $done;
	return $out;
}

for my $name (sort keys %page)
{
	my $html = $node->safe_psql('page', $page{$name});
	my $file = "$dir/$name.html";
	append_to_file($file, $html);

	my $tree = chromium($file, '--dump-dom');
	like($tree, qr/<html lang="en">/, "$name: language");
	unlike($tree, qr/<script|<img [^>]*onerror|id="owned"/, "$name: a hostile name makes no element");
	like($tree, qr/&lt;script&gt;document\.body\.id/, "$name: and stays text");
	like($tree, qr/<title>[^<]*&lt;\/title&gt;/, "$name: in the title too");
	my @inputs = $tree =~ /<input [^>]*id="([a-z]+)"/g;
	ok($tree =~ /<label for="$_">/, "$name: input $_ has a label") for @inputs;
	is(scalar(@inputs), $name eq 'home' ? 0 : 2, "$name: inputs");
	unlike($tree, qr/<(?:img|link|iframe|object)\b|\@import|url\(/, "$name: nothing is loaded from elsewhere");

	# a probe of our own, in a copy without the policy that forbids scripts, says how wide the page is
	for my $width (360, 1280)
	{
		my $png = "$dir/$name-$width.png";
		chromium($file, "--window-size=$width,900", "--screenshot=$png");
		ok(-s $png > 2000, "$name: drawn $width wide");
	}
	my $inner = $html;
	$inner =~ s/<meta http-equiv="Content-Security-Policy"[^>]*>//;
	$inner =~ s{</body>}{<script>parent.document.title = 'width ' + document.documentElement.scrollWidth</script></body>};
	$inner =~ s/&/&amp;/g;
	$inner =~ s/"/&quot;/g;
	append_to_file("$dir/$name-probe.html", "<!DOCTYPE html><title>none</title><iframe style=\"width:360px;height:700px;border:0\" srcdoc=\"$inner\"></iframe>");
	my $measured = chromium("$dir/$name-probe.html", '--dump-dom', '--window-size=1280,900');
	my ($wide) = $measured =~ /<title>width (\d+)</;
	ok(defined $wide && $wide <= 360, "$name: nothing is wider than a telephone of 360 pixels") or diag $wide // 'not measured';
}

$node->stop;
done_testing();
