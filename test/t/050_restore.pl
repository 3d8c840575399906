# A database survives pg_dump and restore without any further step: plain, custom, as INSERTs, data only into an installed
# extension; and in parallel by the recipe of the README. Every dumped table is equal to the row, and so are the counters,
# which are not dumped (src/restoring.c, sql/restoring.sql).

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $fixture = <<'S';
SET search_path = partner_portal, public;
SELECT create_workspace('Reseller AG', 'boss@reseller.example', 'reseller');
SELECT promote_to_partner(1);
INSERT INTO workspace (company_name, slug, partner_id, created_at, anchor_date, billing_from)
	SELECT c, lower(c), 1, '2026-01-01', '2026-01-31', '2026-01-01'
	FROM unnest('{Acme,Soft,Suspended,Deleted,Limited,Direct}'::text[]) WITH ORDINALITY c (c, n) ORDER BY n;
SELECT add_member(w.workspace_id, 'owner@' || w.slug || '.example', 'owner') FROM workspace w WHERE workspace_id > 1;
-- pending members: accounts that were there before
SELECT add_member(1, 'staff@reseller.example', 'member'), add_member(2, 'owner@soft.example', 'administrator'), add_member(3, 'boss@reseller.example', 'member');
SELECT assign_staff(2, (SELECT account_id FROM account WHERE email = 'staff@reseller.example'), 'account_owner');
INSERT INTO security_key (workspace_id, kind, serial, status)
	SELECT w.workspace_id, CASE WHEN i % 3 = 0 THEN 'contactless_card' ELSE 'smartphone' END, 'k' || i, CASE WHEN i % 4 = 0 THEN 'disabled' ELSE 'active' END
	FROM workspace w, generate_series(1, 12) i WHERE workspace_id > 1;
UPDATE security_key k SET account_id = (SELECT min(m.account_id) FROM member m WHERE m.workspace_id = k.workspace_id) WHERE serial IN ('k1', 'k5');
UPDATE security_key SET status = 'disabled' WHERE serial IN ('k2', 'k3');
UPDATE security_key SET status = 'active' WHERE serial = 'k2';
UPDATE security_key SET status = 'revoked' WHERE serial = 'k5' AND workspace_id = 2;
DELETE FROM security_key WHERE serial = 'k6';
SELECT import_key_activity(k.workspace_id, k.key_id, '[2026-01-05, 2026-03-10)', 'moved in') FROM security_key k WHERE serial IN ('k1', 'k2', 'k4');
SELECT create_price_plan(1, 'Standard', 'CHF', 'per_unit', unit_price => 4.5);
SELECT assign_price_plan(w, 1, '2026-01-01') FROM unnest('{2,3,5}'::bigint[]) w;
SELECT count(*) FROM run_billing('2026-05-15');
SELECT revise_price_plan(1, 'per_unit', unit_price => 5, in_force_from => now() + interval '1 year');
SELECT credit_invoice((SELECT min(invoice_id) FROM invoice WHERE status = 'final'), '[{"line":1,"amount_minor":5,"text":"sorry"}]', 'sorry');
SELECT void_invoice((SELECT max(invoice_id) FROM invoice WHERE status = 'final' AND document = 'invoice'), 'wrong');
SELECT import_key_activity(2, (SELECT key_id FROM security_key WHERE workspace_id = 2 AND serial = 'k7'), '[2026-02-05, 2026-02-10)', 'late');
-- over the limit, as a soft limit lets it be; at the limit; suspended; deleted; moved
UPDATE workspace SET limit_mode = 'soft', restrict_keys = true, key_limit = 4 WHERE slug = 'soft';
UPDATE security_key SET status = 'active' WHERE workspace_id = 3 AND status = 'disabled';
SELECT set_usage_limit(6, 5);
SELECT suspend_workspace(4, 'unpaid');
SELECT delete_workspace(5);
SELECT leave_partner(7);
SELECT link_identity(1, 'https://login.example', 'subject'), revoke_token('stolen', 'infinity'), map_role('regress_app', 1);
SELECT forget_activity(now());
SELECT log_activity(2, 'update_server', 'a line of the application');
-- a portal with its users, what is shared with them, products and who was let near them, a webhook, messages owed
SELECT create_portal(1, 'Reseller', 'reseller', '#0055aa', 'https://reseller.example/bye');
INSERT INTO folder (workspace_id, name) VALUES (1, 'Sales');
INSERT INTO folder (workspace_id, parent_id, name) SELECT workspace_id, folder_id, 'North' FROM folder;
INSERT INTO report (workspace_id, folder_id, title, definition) SELECT workspace_id, folder_id, name, '{}' FROM folder;
SELECT share_folder(1, (SELECT group_id FROM portal), true);
SELECT define_attribute(1, 'region', 'Region', 'string');
SELECT invite_portal_user(1, 'user@reseller.example', 'viewer', '{"region":"north"}');
INSERT INTO product (workspace_id, category, name) VALUES (7, 'server', 'web1'), (7, 'domain', 'direct.example');
SELECT offer_access(7, 1, 'limited', categories => '{server}');
SELECT offer_access(3, 1, 'complete', wallet => true);
SELECT invite_customer('new@customer.example', partner_id => 1);
-- rows that lie in another order than they came
UPDATE billing_period SET time_zone = time_zone WHERE period_start < '2026-03-01';
S

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
my @connect = ('-h', $node->host, '-p', $node->port);
my $dir = PostgreSQL::Test::Utils::tempdir();

$node->safe_psql('postgres', 'CREATE ROLE regress_app; CREATE DATABASE original;');
$node->safe_psql('original', 'CREATE EXTENSION partner_portal;');
$node->safe_psql('original', "SELECT partner_portal.enroll_role('regress_app', 'application');");
$node->safe_psql('original', $fixture);

# What a database holds: each table of the extension, and where its sequences stand. A copy knows that it is one, and says so
# in delivery_home.
sub contents
{
	my ($database) = @_;
	my @tables = split /\n/, $node->safe_psql($database,
		"SELECT relname FROM pg_class WHERE relnamespace = 'partner_portal'::regnamespace AND relkind = 'r' AND relname <> 'delivery_home' ORDER BY 1");
	my $contents = '';
	$contents .= "$_\n" . $node->safe_psql($database, "SELECT t::text FROM partner_portal.$_ t ORDER BY 1") . "\n" foreach (@tables);
	return $contents . "sequences\n" . $node->safe_psql($database,
		"SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'partner_portal' ORDER BY 1");
}

# Runs a statement in a restored database and returns its SQLSTATE, 00000 if it went well; it is rolled back.
sub sqlstate
{
	my ($database, $statement) = @_;
	my (undef, undef, $error) = $node->psql($database, "\\set VERBOSITY sqlstate\nBEGIN;\n$statement;\nROLLBACK;");
	return $error =~ /ERROR:\s+(\w{5})/ ? $1 : $error eq '' ? '00000' : $error;
}

my $original = contents('original');
like($original, qr/^Reseller|Reseller AG/m, 'there is something to restore');

# The restored database is the original, and goes on as it would have.
sub is_restored
{
	my ($database, $how) = @_;
	is(contents($database), $original, "$how: every table, counter and sequence is as it was");
	is($node->safe_psql($database, 'SELECT * FROM partner_portal.verify()'), '', "$how: verify() finds nothing");
	is(sqlstate($database, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (6, 'smartphone', 'n')"),
		'PP001', "$how: the limit is enforced");
	is(sqlstate($database, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'n')"),
		'PP005', "$how: what is suspended stays so");
	is(sqlstate($database, "UPDATE partner_portal.invoice SET total_minor = 0, subtotal_minor = 0 WHERE status = 'final'"),
		'PP003', "$how: documents are final");
	is(sqlstate($database, "DELETE FROM partner_portal.member WHERE workspace_id = 6"), 'PP004', "$how: the last owner stays");
	is(sqlstate($database, "SELECT partner_portal.restore_workspace(5)"), '00000', "$how: what was deleted can be restored");
	is($node->safe_psql($database,
			"INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'n') RETURNING key_id > (SELECT max(key_id) FROM partner_portal.security_key)"),
		't', "$how: numbers go on");
	is($node->safe_psql($database, "SELECT count(*) > 0 FROM partner_portal.run_billing('2027-01-15') WHERE problem IS NULL"), 't', "$how: billing goes on");
	is($node->safe_psql($database, 'SELECT * FROM partner_portal.verify()'), '', "$how: verify() finds nothing then");
}

sub run_ok
{
	my ($what, @command) = @_;
	my ($out, $error) = ('', '');
	ok(IPC::Run::run(\@command, '>', \$out, '2>', \$error), $what) or diag($error);
	return;
}

foreach my $form (['plain'], ['inserts', '--inserts'], ['column inserts', '--column-inserts'])
{
	my ($how, @options) = @$form;
	(my $database = "restored_$how") =~ s/ /_/g;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	run_ok("$how: dumped", 'pg_dump', @connect, @options, '-f', "$dir/$database.sql", 'original');
	run_ok("$how: restored", 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', @connect, '-d', $database, '-f', "$dir/$database.sql");
	is_restored($database, $how);
}

run_ok('custom: dumped', 'pg_dump', @connect, '-Fc', '-f', "$dir/custom", 'original');
$node->safe_psql('postgres', 'CREATE DATABASE restored_custom');
run_ok('custom: restored', 'pg_restore', '--exit-on-error', @connect, '-d', 'restored_custom', "$dir/custom");
is_restored('restored_custom', 'custom');
$node->safe_psql('postgres', 'CREATE DATABASE restored_once');
run_ok('one transaction: restored', 'pg_restore', '--single-transaction', @connect, '-d', 'restored_once', "$dir/custom");
is_restored('restored_once', 'one transaction');

run_ok('data only: dumped', 'pg_dump', @connect, '--data-only', '-f', "$dir/data.sql", 'original');
$node->safe_psql('postgres', 'CREATE DATABASE restored_data');
$node->safe_psql('restored_data', 'CREATE EXTENSION partner_portal;');
run_ok('data only: restored', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', @connect, '-d', 'restored_data', '-f', "$dir/data.sql");
is_restored('restored_data', 'data only');

# In parallel an extension's tables come in any order: without their triggers, and repair() counts afterwards.
$node->safe_psql('postgres', 'CREATE DATABASE restored_parallel');
{
	local $ENV{PGOPTIONS} = '-c session_replication_role=replica';
	run_ok('parallel: restored', 'pg_restore', '--exit-on-error', '-j', '4', @connect, '-d', 'restored_parallel', "$dir/custom");
}
isnt($node->safe_psql('restored_parallel', 'SELECT count(*) FROM partner_portal.verify()'), '0', 'parallel: verify() misses the counters');
$node->safe_psql('restored_parallel', 'SELECT partner_portal.repair()');
is_restored('restored_parallel', 'parallel');

# A dump of a dump is the same dump.
run_ok('again: dumped', 'pg_dump', @connect, '-Fc', '-f', "$dir/again", 'restored_once');
$node->safe_psql('postgres', 'CREATE DATABASE restored_again');
run_ok('again: restored', 'pg_restore', '--exit-on-error', @connect, '-d', 'restored_again', "$dir/again");
is(contents('restored_again'), contents('restored_once'), 'again: every table, counter and sequence is as it was');

# A session that is left as a dump's script leaves it restores rows, and refuses what it always did.
my $left = "SET row_security = off; SET check_function_bodies = off";
is(sqlstate('original', "$left; UPDATE partner_portal.security_key SET status = 'active' WHERE workspace_id = 6"),
	'PP001', 'after \i of a dump the limit holds');
is(sqlstate('original', "$left; DELETE FROM partner_portal.member WHERE workspace_id = 6"), 'PP004', 'and the last owner stays');

$node->stop;
done_testing();
