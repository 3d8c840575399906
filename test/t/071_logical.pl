# Logical replication by the recipe of doc/replication.md, whose commands are run here: what there was and what comes is at the
# subscriber as at the publisher, nothing is counted, logged or sent twice, and what is revoked is revoked there too.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($publish, $subscribe, $numbers, $switch) = slurp_file('doc/replication.md') =~ /^```psql\n(.*?)^```\n/msg;
ok(defined $switch, 'doc/replication.md has four steps');

my $publisher = PostgreSQL::Test::Cluster->new('publisher');
$publisher->init(allows_streaming => 'logical');
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init(allows_streaming => 'logical');
foreach my $node ($publisher, $subscriber)
{
	$node->append_conf('postgresql.conf', "max_sync_workers_per_subscription = 4\nmax_worker_processes = 16\nmax_logical_replication_workers = 8\n");
	$node->start;
	$node->safe_psql('postgres', 'CREATE ROLE portal_app; CREATE ROLE portal_server; CREATE ROLE regress_app; CREATE DATABASE portal;');
}

sub rows
{
	my ($node, $query) = @_;
	return split /\n/, $node->safe_psql('portal', $query);
}

my $arrives = q{relname NOT IN ('acl_signal', 'role_grant', 'enrolled_role', 'job_step', 'currency', 'delivery_home')};
my (@tables, $error);

# is_copy(text) waits until the subscriber has applied all, and demands that its tables are the publisher's.
sub is_copy
{
	my ($text) = @_;
	$publisher->wait_for_catchup('portal');
	my $problem = '';
	foreach my $table (@tables)
	{
		my $query = "SELECT t::text FROM partner_portal.$table t WHERE ('$table', to_jsonb(t) ->> 'destination') IS DISTINCT FROM ('delivery_destination', '0') ORDER BY 1";
		my ($here, $there) = map { $_->safe_psql('portal', $query) } $publisher, $subscriber;
		$problem .= "$table:\n$here\nand\n$there\n" if $here ne $there;
	}
	is($problem, '', "$text: every table is as at the publisher");
	is($_->safe_psql('portal', "SELECT * FROM partner_portal.verify() WHERE problem !~ 'has not been given out yet'"), '', "$text: verify() finds nothing")
		foreach $publisher, $subscriber;
	is($subscriber->safe_psql('postgres', 'SELECT apply_error_count, sync_error_count FROM pg_stat_subscription_stats'), '0|0', "$text: nothing collided");
	return;
}

sub sqlstate
{
	my ($node, $statement) = @_;
	my (undef, undef, $error) = $node->psql('portal', "\\set VERBOSITY sqlstate\nBEGIN;\n$statement;\nROLLBACK;");
	return $error =~ /ERROR:\s+(\w{5})/ ? $1 : $error eq '' ? '00000' : $error;
}

$publisher->safe_psql('portal', 'CREATE EXTENSION partner_portal');
$publisher->safe_psql('portal', slurp_file('test/upgrade/fill-1.0.sql'));
@tables = rows($publisher, "SELECT relname FROM pg_class WHERE relnamespace = 'partner_portal'::regnamespace AND relkind = 'r' AND $arrives ORDER BY 1");
my $connection = join ' ', 'host=' . $publisher->host, 'port=' . $publisher->port, 'dbname=portal';
$subscribe =~ s/host=publisher\S* dbname=portal user=\w+/$connection/;
$publisher->safe_psql('portal', $publish);
$subscriber->safe_psql('portal', $subscribe);
$subscriber->poll_query_until('portal', "SELECT count(*) = 0 FROM pg_subscription_rel WHERE srsubstate NOT IN ('r', 's')") or die 'tables do not arrive';
is_copy('what there was');
is($subscriber->safe_psql('portal', 'SELECT count(*) > 40 FROM pg_subscription_rel'), 't', 'every table is subscribed to');

# Everything that writes: the meter, the limit, a transfer, people, grants, documents, messages.
my $write = <<'S';
SET search_path = partner_portal, public;
INSERT INTO security_key (workspace_id, kind, serial) SELECT 2, 'smartphone', 'r' || i FROM generate_series(1, 20) i;
UPDATE security_key SET status = 'disabled' WHERE workspace_id = 2 AND serial IN ('r1', 'r2', 'r3');
UPDATE security_key SET status = 'active' WHERE workspace_id = 2 AND serial = 'r1';
DELETE FROM security_key WHERE workspace_id = 2 AND serial = 'r4';
SELECT count(*) FROM set_usage_limit(2, 9);
UPDATE workspace SET key_limit = 12 WHERE workspace_id = 2;
BEGIN;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'contactless_card', 'undone');
SAVEPOINT s;
UPDATE security_key SET status = 'disabled' WHERE workspace_id = 2 AND status = 'active';
ROLLBACK TO s;
COMMIT;
BEGIN;
DELETE FROM security_key WHERE workspace_id = 2;
ROLLBACK;
SELECT create_workspace('Second', 'second@reseller.example', 'second');
SELECT promote_to_partner((SELECT workspace_id FROM workspace WHERE slug = 'second'));
SELECT transfer_workspace(3, registration_code) FROM partner WHERE partner_id = 2;
SELECT add_member(2, 'later@acme.example', 'member');
SELECT restore_workspace(5);
SELECT count(*) FROM run_billing(now());
SELECT import_key_activity(2, (SELECT key_id FROM security_key WHERE workspace_id = 2 AND serial = 'k7'), '[2026-03-05, 2026-03-10)', 'late');
SELECT log_activity(2, 'update_server', 'another line of the application');
S
is($publisher->psql('portal', $write, on_error_stop => 1, stderr => \$error), 0, 'the publisher goes on') or diag($error);
is_copy('what came');

# A session at the subscriber that has asked what it may do, and goes on in the same transaction.
$publisher->safe_psql('portal', "SELECT partner_portal.assign_staff(6, (SELECT account_id FROM partner_portal.account WHERE email = 'staff\@reseller.example'), 'account_owner')");
$publisher->wait_for_catchup('portal');
my $count = "SELECT count(*) FROM partner_portal.workspace WHERE workspace_id = 6;\n";
my $revoke = sprintf q{psql -X -q -At -d "%s" -c "DELETE FROM partner_portal.staff WHERE workspace_id = 6"}, $publisher->connstr('portal');
my $wait = sprintf q{psql -X -q -At -d "%s" -c "DO 'BEGIN WHILE EXISTS (SELECT FROM partner_portal.staff WHERE workspace_id = 6) LOOP COMMIT; PERFORM pg_sleep(0.05); END LOOP; END'"}, $subscriber->connstr('portal');
is($subscriber->safe_psql('portal', <<"S"), "1\n0", 'what is revoked at the publisher is revoked at the subscriber, within a transaction');
BEGIN;
SELECT partner_portal.login_as((SELECT account_id FROM partner_portal.account WHERE email = 'staff\@reseller.example')) \\g /dev/null
SET LOCAL ROLE portal_app;
$count
\\! $revoke
\\! $wait
$count
COMMIT;
S

# The switch.
is($subscriber->safe_psql('portal', 'SELECT partner_portal.delivery_home_problem() IS NOT NULL'), 't', 'the subscriber sends nothing');
$publisher->wait_for_catchup('portal');
$subscriber->safe_psql('portal', $publisher->safe_psql('portal', $numbers));
is($subscriber->safe_psql('portal', $switch), '', 'after the switch verify() finds nothing');
is(join("\n", rows($subscriber, $numbers)), join("\n", rows($publisher, $numbers)), 'numbers are those of the publisher');
is($subscriber->safe_psql('portal', 'SELECT partner_portal.delivery_home_problem()'), '', 'now it does');
$publisher->stop;
is($subscriber->safe_psql('portal', 'SELECT partner_portal.repair()'), '0', 'there is nothing to repair');
is(sqlstate($subscriber, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT 2, 'smartphone', 'n' || i FROM generate_series(1, 5) i"), 'PP001', 'the limit holds');
is(sqlstate($subscriber, "UPDATE partner_portal.invoice SET total_minor = 0, subtotal_minor = 0 WHERE status = 'final'"), 'PP003', 'documents are final');
is(sqlstate($subscriber, 'DELETE FROM partner_portal.member WHERE workspace_id = 6'), 'PP004', 'the last owner stays');
is($subscriber->psql('portal', <<'S', on_error_stop => 1, stderr => \$error), 0, 'it goes on by itself') or diag($error);
SET search_path = partner_portal, public;
SELECT count(*) FROM set_usage_limit(2, 40);
INSERT INTO security_key (workspace_id, kind, serial) SELECT 2, 'smartphone', 's' || i FROM generate_series(1, 20) i;
UPDATE security_key SET status = 'disabled' WHERE workspace_id = 2 AND serial IN ('s1', 's2');
SELECT workspace_id FROM create_workspace('Third', 'third@reseller.example', 'third');
SELECT add_member(2, 'latest@acme.example', 'member');
SELECT count(*) FROM run_billing(now() + interval '3 months');
S
is($subscriber->safe_psql('portal', 'SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing then');

$subscriber->stop;
done_testing();
