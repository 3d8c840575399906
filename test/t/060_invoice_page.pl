# What a browser makes of invoice_html(): the page is drawn, its values are text, nothing runs and nothing is loaded.
# packages: chromium

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($browser) = grep { -x } map { "$_/chromium" } split /:/, $ENV{PATH};
plan skip_all => 'there is no chromium' unless $browser;

my $node = PostgreSQL::Test::Cluster->new('invoice_page');
$node->init;
$node->append_conf('postgresql.conf', "timezone = 'UTC'\n");
$node->start;
$node->safe_psql('postgres', <<'S');
CREATE EXTENSION partner_portal;
SET search_path = partner_portal, public;
INSERT INTO workspace (company_name, slug, created_at, anchor_date, billing_from, address) VALUES
	('Zoë <script>document.title = "run"</script> & "Söhne"', 'z', '2025-01-01', '2025-01-01', '2025-01-01', E'Weg 1\n<img src=x onerror="document.title=1">');
INSERT INTO security_key (workspace_id, kind, serial, status) SELECT 1, 'smartphone', k, 'disabled' FROM generate_series(1, 12) k;
SELECT count(import_key_activity(1, key_id, tstzrange('2025-01-01', timestamptz '2025-01-31' + key_id * interval '30 days'), 'history')) FROM security_key;
SELECT create_price_plan(NULL, 'Falling', 'CHF', 'graduated', tiers => '[{"up_to":5,"unit_price":5.00,"flat":2},{"up_to":null,"unit_price":4.005}]');
SELECT count(assign_price_plan(1, 1, '2025-01-01'));
SELECT count(*) FROM run_billing('2026-02-02');
S
my $page = $node->basedir . '/page.html';
append_to_file($page, $node->safe_psql('postgres', "SELECT partner_portal.invoice_html(invoice_id) FROM partner_portal.invoice WHERE period_label LIKE '2025-06%'"));

# Runs the browser on the page and returns what it printed.
sub browse
{
	my @command = ($browser, qw(--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync),
		'--user-data-dir=' . $node->basedir . '/browser', '--window-size=820,1000', @_, "file://$page");
	local $ENV{HOME} = $node->basedir;
	delete local $ENV{LD_PRELOAD};	# a sanitizer is the server's
	my ($out, $err) = ('', '');
	IPC::Run::run(\@command, '>', \$out, '2>', \$err, IPC::Run::timeout(60)) or diag $err;
	return $out;
}

my $dom = browse('--dump-dom');
like($dom, qr/<title>Invoice 6, Platform<\/title>/, 'the title is the document, and no script has changed it');
like($dom, qr/Zoë &lt;script&gt;/, 'a name is text');
unlike($dom, qr/<(script|img|link|iframe)\b/i, 'there is no element that runs or loads');
like($dom, qr/<td class="number">39\.02<\/td>/, 'the amount: 5 at 5.00, 3 at 4.005 and a fee');
is(() = $dom =~ /<rect /g, 6, 'a bar for each period');
is(() = $dom =~ /<table/g, 1, 'one table');
unlike($dom, qr/<td class="number"><(td|tr)/, 'and its cells are closed');

my $picture = $node->basedir . '/page.png';
browse("--screenshot=$picture");
my $png = slurp_file($picture);
is(substr($png, 1, 3), 'PNG', 'it is drawn');
cmp_ok(length $png, '>', 20000, 'and not blank');

$node->stop;
done_testing();
