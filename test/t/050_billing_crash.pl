# A billing run is killed in the middle, again and again, and run again: sums and numbers are exact.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $workspaces = 5000;
my $node = PostgreSQL::Test::Cluster->new('billing_crash');
$node->init;
$node->append_conf('postgresql.conf', "timezone = 'UTC'\nautovacuum = off\n");
$node->start;

# Workspace w has w % 4 keys, each active in January and February; every eleventh has no plan, every seventh a partner's.
$node->safe_psql('postgres', <<"S");
CREATE EXTENSION partner_portal;
SET search_path = partner_portal, public;
INSERT INTO workspace (kind, company_name, slug, created_at, anchor_date, billing_from) VALUES ('partner', 'P', 'p', '2026-01-01', '2026-01-01', '2026-01-01');
INSERT INTO partner (partner_id, registration_code) VALUES (1, 'code-of-p');
INSERT INTO workspace (partner_id, company_name, slug, created_at, anchor_date, billing_from)
	SELECT CASE WHEN w % 7 = 0 THEN 1 END, 'W' || w, 'w' || w, '2026-01-01', '2026-01-01', '2026-01-01' FROM generate_series(2, $workspaces + 1) w;
INSERT INTO security_key (workspace_id, kind, serial, status) SELECT w, 'smartphone', k, 'disabled' FROM generate_series(2, $workspaces + 1) w, generate_series(1, w % 4) k;
INSERT INTO key_history (workspace_id, key_id, active_from, active_until, kind, recorded_at, partner_key)
	SELECT workspace_id, key_id, '2026-01-05', '2026-02-15', kind, '2026-01-05', partner_key FROM security_key;
SELECT create_price_plan(NULL, 'Platform', 'CHF', 'per_unit', unit_price => 1.25);
SELECT create_price_plan(1, 'Partner', 'EUR', 'flat', unit_price => 3);
SELECT count(assign_price_plan(workspace_id, CASE partner_key WHEN 0 THEN 1 ELSE 2 END, '2026-01-01')) FROM workspace WHERE workspace_id > 1 AND workspace_id % 11 <> 0;
ANALYZE;
S

my $call = "CALL partner_portal.run_due_billing('2026-04-01 00:30+00', 200)";
my $done = "SELECT count(*) FROM partner_portal.billing_period WHERE billed_at IS NOT NULL";
my $before = 0;
# What the run stops at, each in the middle of a batch: closing a period, and giving numbers.
foreach my $stop (
	"FROM partner_portal.billing_period WHERE workspace_id = 1500 FOR UPDATE",
	"FROM partner_portal.billing_period WHERE workspace_id = 2900 FOR UPDATE",
	"FROM partner_portal.invoice_series WHERE issuer_key = 1 FOR UPDATE")
{
	my $holder = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "BEGIN; SELECT 1 $stop; SELECT pg_sleep(60)" ], '>', \my $held, '2>', \my $fault);
	$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')") or die 'nothing is held';
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $call ], '>', \my $out, '2>', \my $err);
	$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')") or die 'the run does not stop';
	# with the postmaster all of its processes, which would hold the shared memory a little longer
	my @processes = split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()');
	$node->kill9;
	kill 'KILL', @processes;
	$_->finish foreach $run, $holder;
	for (1 .. 50)
	{
		last unless grep { kill 0, $_ } @processes;
		select undef, undef, undef, 0.1;
	}
	$node->start;
	my $now = $node->safe_psql('postgres', $done);
	ok($now >= $before && $now < 3 * ($workspaces + 1), "killed in the middle: $now periods are billed");
	$before = $now;
	is($node->safe_psql('postgres', "SELECT count(*) FROM partner_portal.invoice i WHERE status = 'draft' AND period_end < '2026-03-01'"), 0, 'no batch is half done');
}
cmp_ok($before, '>', 6000, 'what was done before stays');

# Two runs share what is left.
my @runs = map { IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $call ], '>', \my $out, '2>', \my $err) } 1 .. 2;
$_->finish or die 'a run failed' foreach @runs;
$node->safe_psql('postgres', "CALL partner_portal.run_due_billing('2026-04-01 01:00+00', 200)");

is($node->safe_psql('postgres', $done), 3 * ($workspaces + 1), 'every period is billed');
is( $node->safe_psql('postgres', <<"S"), '', 'each workspace has exactly its invoices');
SELECT w.workspace_id, i.invoices, i.total FROM partner_portal.workspace w
LEFT JOIN LATERAL (SELECT count(*) FILTER (WHERE status = 'final') AS invoices, coalesce(sum(total_minor), 0) AS total FROM partner_portal.invoice i WHERE i.workspace_id = w.workspace_id) i ON true
WHERE (i.invoices, i.total) IS DISTINCT FROM (CASE WHEN w.workspace_id % 11 = 0 OR w.workspace_id = 1 THEN 0 WHEN w.workspace_id % 7 = 0 THEN 3 WHEN w.workspace_id % 4 = 0 THEN 0 ELSE 2 END::bigint,
	CASE WHEN w.workspace_id % 11 = 0 OR w.workspace_id = 1 THEN 0 WHEN w.workspace_id % 7 = 0 THEN 900 ELSE 2 * 125 * (w.workspace_id % 4) END::numeric)
S
is( $node->safe_psql('postgres', <<'S'), '', 'the numbers of each series are 1 to n');
SELECT issuer_key, count(*), min(number), max(number), count(DISTINCT number) FROM partner_portal.invoice i WHERE number IS NOT NULL GROUP BY issuer_key
HAVING (min(number), max(number), count(DISTINCT number)) IS DISTINCT FROM (1::bigint, count(*), count(*))
	OR max(number) IS DISTINCT FROM (SELECT last_number FROM partner_portal.invoice_series s WHERE s.issuer_key = i.issuer_key)
S
is($node->safe_psql('postgres', 'SELECT count(*) FROM partner_portal.invoice i WHERE subtotal_minor <> (SELECT sum(amount_minor) FROM partner_portal.invoice_line l WHERE l.workspace_id = i.workspace_id AND l.invoice_id = i.invoice_id)'),
	0, 'every total is the sum of its lines');
is($node->safe_psql('postgres', "SELECT count(*) FROM partner_portal.run_billing('2026-04-01 01:00+00')"), 0, 'another run does nothing');

# A plain dump restores the documents as they are, and still guards them.
my $documents = 'SELECT md5(string_agg(i::text, chr(10) ORDER BY invoice_id)) FROM partner_portal.invoice i';
my $lines = 'SELECT md5(string_agg(l::text, chr(10) ORDER BY workspace_id, invoice_id, line)) FROM partner_portal.invoice_line l';
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'the database is dumped');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $dump ], 'and restored');
is($node->safe_psql('copy', $documents), $node->safe_psql('postgres', $documents), 'with the same documents');
is($node->safe_psql('copy', $lines), $node->safe_psql('postgres', $lines), 'and lines');
is($node->safe_psql('copy', "SELECT count(*) FROM partner_portal.run_billing('2026-04-01 01:00+00')"), 0, 'there is nothing to bill there');
is($node->safe_psql('copy', "SELECT count(*) FROM partner_portal.run_billing('2026-05-02 00:00+00')"), $workspaces + 1, 'but for the next month there is');
is($node->safe_psql('copy', 'SELECT count(*) FROM partner_portal.currency'), $node->safe_psql('postgres', 'SELECT count(*) FROM partner_portal.currency'), 'currencies are not doubled');
my ($rc, $out, $err) = $node->psql('copy', "\\set VERBOSITY sqlstate\nUPDATE partner_portal.invoice SET total_minor = 1");
like($err, qr/PP003/, 'finished documents are guarded there');

$node->stop;
done_testing();
