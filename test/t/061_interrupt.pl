# Interrupted anywhere, a function leaves nothing behind: each one that goes over many rows is stopped by statement_timeout
# at ever later instants until it gets through, and by a cancel; what it did is undone as a whole and verify() finds nothing.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION partner_portal;');
$node->safe_psql('postgres', <<'S');
SET search_path = partner_portal;
SELECT create_workspace('Reseller AG', 'boss@reseller.example', 'reseller', anchor_date => '2026-01-01');
SELECT promote_to_partner(1);
INSERT INTO workspace (company_name, slug, partner_id, created_at, anchor_date, billing_from)
	SELECT 'Customer ' || i, 'c' || i, 1, '2024-01-01', '2024-01-31', '2024-01-01' FROM generate_series(1, 40) i;
SELECT count(add_member(w.workspace_id, w.slug || '@customer.example', 'owner')) FROM workspace w WHERE partner_id = 1;
INSERT INTO security_key (workspace_id, kind, serial) SELECT 2, 'smartphone', 'k' || i FROM generate_series(1, 5000) i;
INSERT INTO security_key (workspace_id, kind, serial) SELECT w, 'contactless_card', 'c' || i FROM generate_series(3, 41) w, generate_series(1, 20) i;
SELECT count(*) FROM create_price_plan(1, 'Standard', 'CHF', 'per_unit', unit_price => 4.5);
SELECT count(assign_price_plan(w.workspace_id, 1, '2024-01-01')) FROM workspace w WHERE partner_id = 1;
SELECT count(import_key_activity(k.workspace_id, k.key_id, '[2024-03-01, 2025-04-01)', 'moved in')) FROM security_key k WHERE workspace_id > 2 AND key_id % 5 = 0;
-- what repair() has to do
SET session_replication_role = replica;
UPDATE workspace_usage SET active_keys = 0 WHERE workspace_id > 20;
SELECT 1;
S
$node->safe_psql('postgres', 'SELECT partner_portal.repair()');

sub verify
{
	return $node->safe_psql('postgres', 'SELECT * FROM partner_portal.verify()');
}

# Everything that a statement might have changed.
sub state_of_all
{
	return $node->safe_psql('postgres', <<'S');
SELECT (SELECT md5(string_agg(k::text, '|' ORDER BY workspace_id, key_id)) FROM partner_portal.security_key k), (SELECT count(*) FROM partner_portal.key_history),
	(SELECT md5(string_agg(u::text, '|' ORDER BY workspace_id)) FROM partner_portal.workspace_usage u),
	(SELECT count(*) FROM partner_portal.billing_period WHERE closed_at IS NOT NULL), (SELECT count(*) FROM partner_portal.usage_period),
	(SELECT count(*) FROM partner_portal.invoice), (SELECT coalesce(sum(last_number), 0) FROM partner_portal.invoice_series)
S
}

# Runs a statement under a growing statement_timeout until it gets through, in a transaction that is then rolled back. Every
# time it was stopped, nothing may have changed.
sub interrupt
{
	my ($what, $statement, $prepare) = @_;
	my $before = state_of_all();
	my $stopped = 0;
	my $late = 0;
	my $other = '';
	$prepare //= '';
	for (my $ms = 1; ; $ms = int($ms * 2.3) + 1)
	{
		my $start = time();
		my (undef, undef, $error) = $node->psql('postgres',
			"\\set VERBOSITY sqlstate\n\\set ON_ERROR_STOP 1\nSET search_path = partner_portal;\nBEGIN;\n$prepare\nSET LOCAL statement_timeout = $ms;\n$statement;\nROLLBACK;");
		last if $error eq '';
		if ($error !~ /ERROR:\s+57014/) { $other = $error; last }
		# the preparation takes its time too
		$late = time() - $start - $ms / 1000 if $prepare eq '' && time() - $start - $ms / 1000 > $late;
		$stopped++;
	}
	is($other, '', "$what: nothing but the timeout stops it");
	cmp_ok($stopped, '>', 0, "$what: stopped $stopped times before it got through");
	cmp_ok($late, '<', 10, "$what: it stops when it is told to");
	is(state_of_all(), $before, "$what: stopped, it leaves nothing behind");
}

interrupt('set_usage_limit', 'SELECT count(*) FROM set_usage_limit(2, 10)');
interrupt('set_usage_limit restoring', 'SELECT count(*) FROM set_usage_limit(2, 4500, restore => true)', 'SELECT count(*) FROM set_usage_limit(2, 100);');
interrupt('UPDATE of a limit', 'UPDATE workspace SET restrict_keys = true, key_limit = 0 WHERE workspace_id = 2');
interrupt('disable_security_keys', 'SELECT count(*) FROM disable_security_keys(2)');
interrupt('enable_security_keys', 'SELECT count(*) FROM enable_security_keys(2, (SELECT array_agg(key_id) FROM security_key WHERE workspace_id = 2))', 'SELECT count(*) FROM disable_security_keys(2);');
interrupt('INSERT', q{INSERT INTO security_key (workspace_id, kind, serial) SELECT 2 + i % 40, 'smartphone', 'n' || i FROM generate_series(1, 10000) i});
interrupt('DELETE', 'DELETE FROM security_key');
interrupt('suspend_workspace', q{SELECT suspend_workspace(2, 'unpaid')});
interrupt('resume_workspace', 'SELECT resume_workspace(2)', q{SELECT suspend_workspace(2, 'unpaid') \g /dev/null});
interrupt('delete_workspace', 'SELECT delete_workspace(2)');
interrupt('restore_workspace', 'SELECT restore_workspace(2)', 'SELECT delete_workspace(2) \g /dev/null');
interrupt('purge_workspace', 'SELECT purge_workspace(2)',
	"SELECT delete_workspace(2) \\g /dev/null\nSELECT count(*) FROM run_billing(now() + interval '1 day');");
interrupt('leave_partner', 'SELECT leave_partner(2)');
interrupt('close_periods', q{SELECT count(*) FROM close_periods('2026-06-01')});
interrupt('refresh_usage', 'SELECT refresh_usage()', q{SELECT count(*) FROM close_periods(now());});
interrupt('run_billing', q{SELECT count(*) FROM run_billing('2026-06-01')});
interrupt('usage', 'SELECT count(*) FROM usage(2)');
interrupt('verify', 'SELECT count(*) FROM verify()');
interrupt('repair', 'SELECT repair()', 'SET LOCAL session_replication_role = replica; UPDATE workspace_usage SET active_keys = 0, total_keys = 0; SET LOCAL session_replication_role = origin;');

# Stopped outside a transaction block, a session goes on with its next statement.
foreach my $statement ('partner_portal.disable_security_keys(2)', 'partner_portal.set_usage_limit(2, 1)', "partner_portal.suspend_workspace(2, 'unpaid')")
{
	my $holder = $node->background_psql('postgres', on_error_stop => 0);
	$holder->query_safe('BEGIN');
	$holder->query_safe("UPDATE partner_portal.security_key SET label = 'held' WHERE workspace_id = 2 AND serial = 'k4999'");
	my ($status, $out, $error) = $node->psql('postgres',
		"\\set VERBOSITY sqlstate\nSET lock_timeout = '100ms';\nSELECT count(*) FROM (SELECT $statement) s;\nBEGIN; SELECT 'goes on'; COMMIT;", on_error_stop => 0);
	like($error, qr/\A.*ERROR:\s+55P03\s*\z/, "$statement waits for a key and is stopped");
	is($out, 'goes on', 'and the session goes on');
	$holder->query_safe('ROLLBACK');
	$holder->quit;
}

# run_due_billing() commits in batches: stopped, it leaves what is done, and the next call does the rest.
my $batches = 0;
for (my $ms = 50; ; $ms = int($ms * 2))
{
	my (undef, undef, $error) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nSET statement_timeout = $ms;\nCALL partner_portal.run_due_billing('2026-06-01');");
	last if $error !~ /ERROR:\s+57014/;
	$batches++;
	is(verify(), '', "run_due_billing stopped after $ms ms: verify() finds nothing");
	last if $ms > 60_000;
}
cmp_ok($batches, '>', 0, 'run_due_billing was stopped');
$node->safe_psql('postgres', "CALL partner_portal.run_due_billing('2026-06-01')");
is(verify(), '', 'and got through');
is($node->safe_psql('postgres', "SELECT count(*) FROM partner_portal.run_billing('2026-06-01')"), '0', 'nothing is left to do');

# A cancel reaches who waits for the counter of another, and who waited goes on as if it had never been there.
my $holder = $node->background_psql('postgres', on_error_stop => 0);
$holder->query_safe('BEGIN');
$holder->query_safe("INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'held')");
my $error = '';
my $waiter = IPC::Run::start([ 'psql', '-Xq', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('postgres'), '-c',
		"INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'waits')" ], '>', \my $out, '2>', \$error);
$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%waits%')") or die;
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%waits%'");
IPC::Run::finish($waiter);
like($error, qr/ERROR:\s+57014/, 'a cancel reaches who waits for a counter');
my (undef, undef, $timeout) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nSET lock_timeout = '50ms';\nSELECT partner_portal.set_usage_limit(3, 1)");
like($timeout, qr/ERROR:\s+55P03/, 'so does lock_timeout');
$holder->query_safe('COMMIT');
$holder->quit;
is($node->safe_psql('postgres', "SELECT count(*) FROM partner_portal.security_key WHERE workspace_id = 3 AND serial IN ('held', 'waits')"), '1', 'who had it goes on');
is(verify(), '', 'verify() finds nothing');

$node->stop;
done_testing();
