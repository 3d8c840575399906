# pg_upgrade carries the extension over with rows of every kind: the guard against drops (src/drop_guard.c) does not stand in its
# way, every table, counter and sequence arrives as it was, and the catalog is that of a fresh installation.
#
# From the same version; or through the installations that PP_UPGRADE_FROM names, oldest first, and then to the one under test:
# PP_UPGRADE_FROM="/usr/lib/postgresql/15 /usr/lib/postgresql/17". Each must have this extension (test/matrix sees to it). If the
# oldest offers version 1.0 too, a database of that version goes the same way and is updated at its end.

use strict;
use warnings FATAL => 'all';

use FindBin;
use MIME::Base64;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $secrets = PostgreSQL::Test::Utils::tempdir() . '/secrets';
append_to_file($secrets, 'key 1 ' . encode_base64('k' x 32));
chmod 0600, $secrets or die;

# cluster(name, installation, checksums) makes a cluster; without an installation that of the version under test.
sub cluster
{
	my ($name, $installation, $checksums) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, defined $installation ? (install_path => $installation) : ());
	# 18 makes clusters with checksums, and pg_upgrade wants both sides alike
	$node->init(extra => $node->pg_version >= 18 && !$checksums ? ['--no-data-checksums'] : []);
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'partner_portal'\npartner_portal.secrets_file = '$secrets'\ntimezone = 'UTC'\n");
	return $node;
}

sub bindir { return $_[0]->config_data('--bindir') }

my $tables = "SELECT relname FROM pg_class WHERE relnamespace = 'partner_portal'::regnamespace AND relkind = 'r' ORDER BY 1";

# What a database holds: each table row by row, those of the application too, and where the sequences stand.
sub contents
{
	my ($node, $database) = @_;
	return join "\n", (map { "$_\n" . $node->safe_psql($database, "SELECT t::text FROM $_ t ORDER BY 1") }
		(map { "partner_portal.$_" } split /\n/, $node->safe_psql($database, $tables)), $database eq 'postgres' ? 'public.orders' : ()),
		$node->safe_psql($database, "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'partner_portal' ORDER BY 1");
}

# Who may do what, with what is on: privileges of all but owners, row level security, policies, triggers. The same in every version.
sub fences
{
	my ($node, $database) = @_;
	return $node->safe_psql($database, <<'S');
SELECT 'privilege', o.name, g.grantee::regrole::text, g.privilege_type, g.is_grantable FROM (
	SELECT c.oid::regclass::text, c.relowner, c.relacl FROM pg_class c WHERE c.relnamespace IN ('partner_portal'::regnamespace, 'public'::regnamespace)
	UNION ALL SELECT a.attrelid::regclass || '.' || a.attname, c.relowner, a.attacl FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace IN ('partner_portal'::regnamespace, 'public'::regnamespace)
	UNION ALL SELECT p.oid::regprocedure::text, p.proowner, p.proacl FROM pg_proc p WHERE p.pronamespace = 'partner_portal'::regnamespace
	UNION ALL SELECT 'schema ' || nspname, nspowner, nspacl FROM pg_namespace WHERE nspname = 'partner_portal'
	UNION ALL SELECT 'database ' || datname, datdba, datacl FROM pg_database WHERE datname = current_database()) o (name, owner, acl), aclexplode(o.acl) g
WHERE g.grantee <> o.owner ORDER BY 2, 3, 4;
SELECT c.oid::regclass, c.relrowsecurity, c.relforcerowsecurity, c.reloptions FROM pg_class c
WHERE c.relnamespace IN ('partner_portal'::regnamespace, 'public'::regnamespace) AND c.relkind IN ('r', 'v', 'S') ORDER BY c.oid::regclass::text;
SELECT tablename, policyname, permissive, roles, cmd, translate(qual, '()', ''), translate(with_check, '()', '') FROM pg_policies ORDER BY 1, 2;
SELECT tgrelid::regclass, tgname, tgenabled, translate(pg_get_triggerdef(oid), '()', '') FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgrelid::regclass::text, 2;
SELECT evtname, evtevent, evtenabled, evttags, evtfoid::regproc FROM pg_event_trigger ORDER BY 1;
SELECT p.oid::regprocedure, p.provolatile, p.proparallel, p.proleakproof, p.prosecdef, p.proconfig FROM pg_proc p WHERE p.pronamespace = 'partner_portal'::regnamespace ORDER BY p.oid::regprocedure::text;
SELECT c.oid::regclass, k.condition FROM pg_extension e, unnest(e.extconfig, e.extcondition) k (oid, condition) JOIN pg_class c ON c.oid = k.oid WHERE e.extname = 'partner_portal' ORDER BY c.oid::regclass::text;
SELECT rolname, rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname LIKE 'regress%' ORDER BY 1;
SELECT * FROM partner_portal.check_isolation();
S
}

# All that the extension is made of, as this version writes it: but for parentheses and the names that columns take from what
# they are, which appear when an expression is written and read once more.
sub members
{
	my ($node, $database) = @_;
	return $node->safe_psql($database, <<'S') =~ s/ AS "?\w+"?(?=[,)|]|$)//mgr =~ s/[() ]+/ /gr;
SET search_path = '';
CREATE TEMP VIEW relation AS SELECT c.oid, c.relname, c.relkind, c.reloptions FROM pg_catalog.pg_class c WHERE c.relnamespace = 'partner_portal'::pg_catalog.regnamespace;
SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e' AND e.extname = 'partner_portal' ORDER BY 1;
SELECT p.oid::pg_catalog.regprocedure, pg_catalog.pg_get_functiondef(p.oid), pg_catalog.obj_description(p.oid, 'pg_proc')
FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'partner_portal'::pg_catalog.regnamespace AND p.prokind <> 'a' ORDER BY p.oid::pg_catalog.regprocedure::text;
SELECT r.relname, r.relkind, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
	a.attcollation::pg_catalog.regcollation, a.attstorage, a.attcompression, pg_catalog.pg_get_expr(d.adbin, d.adrelid), pg_catalog.col_description(r.oid, a.attnum)
FROM pg_temp.relation r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum ORDER BY r.relname, a.attnum;
SELECT r.relname, r.reloptions, pg_catalog.obj_description(r.oid, 'pg_class'), pg_catalog.pg_get_viewdef(r.oid) FROM pg_temp.relation r WHERE r.relkind IN ('r', 'v') ORDER BY 1;
SELECT k.conrelid::pg_catalog.regclass, k.conname, k.convalidated, pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k
WHERE k.connamespace = 'partner_portal'::pg_catalog.regnamespace ORDER BY k.conrelid::pg_catalog.regclass::text, 2;
SELECT pg_catalog.pg_get_indexdef(i.indexrelid), i.indisvalid FROM pg_catalog.pg_index i JOIN pg_temp.relation r ON r.oid = i.indrelid ORDER BY 1;
SELECT * FROM pg_catalog.pg_policies WHERE schemaname = 'partner_portal' ORDER BY 2, 3;
SELECT pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled FROM pg_catalog.pg_trigger t JOIN pg_temp.relation r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal ORDER BY 1;
SELECT sequencename, data_type, start_value, increment_by, cycle, cache_size FROM pg_catalog.pg_sequences WHERE schemaname = 'partner_portal' ORDER BY 1;
SELECT extversion, extrelocatable FROM pg_catalog.pg_extension WHERE extname = 'partner_portal';
S
}

# same(got, expected, what): is() of long texts, of which only the lines that differ are shown.
sub same
{
	my ($got, $expected, $what) = @_;
	return if ok($got eq $expected, $what);
	my (%got, %expected);
	$got{$_}++ foreach split /\n/, $got;
	$expected{$_}++ foreach split /\n/, $expected;
	diag("unexpected: $_") foreach grep { !$expected{$_} } sort keys %got;
	diag("missing: $_") foreach grep { !$got{$_} } sort keys %expected;
	return;
}

# Runs a statement and returns its SQLSTATE, 00000 if it went well; it is rolled back.
sub sqlstate
{
	my ($node, $statement) = @_;
	my (undef, undef, $error) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nBEGIN;\n$statement;\nROLLBACK;");
	return $error =~ /ERROR:\s+(\w{5})/ ? $1 : $error eq '' ? '00000' : $error;
}

my @from = split ' ', $ENV{PP_UPGRADE_FROM} // '';
my $old = cluster('first', $from[0], !@from);
$old->start;
$old->safe_psql('postgres', "CREATE ROLE $_ LOGIN") foreach qw(regress_app regress_trusted regress_report regress_ops);
$old->safe_psql('postgres', 'CREATE EXTENSION partner_portal; REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC;');
$old->safe_psql('postgres', slurp_file("$FindBin::Bin/every_kind.sql"));
$old->safe_psql('postgres', <<'S');
CREATE TABLE orders (order_id bigint PRIMARY KEY, workspace_id bigint NOT NULL, region text);
CREATE INDEX ON orders (workspace_id, region);
INSERT INTO orders SELECT i, i % 9 + 1, CASE WHEN i % 2 = 0 THEN 'north' ELSE 'south' END FROM generate_series(1, 90) i;
SELECT partner_portal.isolate('orders', 'workspace_id', '{"region": "region"}');
CREATE VIEW order_count WITH (security_invoker) AS SELECT w.company_name, count(*) FROM orders JOIN partner_portal.workspace w USING (workspace_id) GROUP BY 1;
GRANT SELECT, INSERT ON orders TO regress_app;
GRANT SELECT ON order_count TO regress_app;
S
is($old->safe_psql('postgres', join ' UNION ALL ', map { "SELECT '$_' WHERE NOT EXISTS (SELECT FROM partner_portal.$_)" } split /\n/, $old->safe_psql('postgres', $tables)),
	'acl_signal', 'there are rows in every table that is to have any');
my @databases = ('postgres');
if (@from && -e $old->config_data('--sharedir') . '/extension/partner_portal--1.0.sql')
{
	push @databases, 'earlier';
	$old->safe_psql('postgres', 'CREATE DATABASE earlier');
	$old->safe_psql('earlier', "CREATE EXTENSION partner_portal VERSION '1.0'");
	$old->safe_psql('earlier', slurp_file("$FindBin::Bin/every_kind.sql"));
}
is($old->safe_psql($_, 'SELECT * FROM partner_portal.verify()'), '', "verify() finds nothing to begin with in database $_") foreach @databases;

my $hop = 0;
foreach my $to (@from > 1 ? @from[ 1 .. $#from ] : (), undef)
{
	my %contents = map { $_ => contents($old, $_) } @databases;
	my %fences = map { $_ => fences($old, $_) } @databases;
	my $new = cluster('next' . ++$hop, $to, !@from);
	my $what = $old->pg_version->major . ' to ' . $new->pg_version->major;
	$old->stop;

	# pg_upgrade writes into the current directory
	chdir PostgreSQL::Test::Utils::tempdir() or die;
	my $said = '';
	ok(IPC::Run::run([ bindir($new) . '/pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', bindir($old), '-B', bindir($new),
			'-s', $new->host, '-p', $old->port, '-P', $new->port ], '>', \$said, '2>&1'), "$what: pg_upgrade") or BAIL_OUT($said);
	$new->start;
	foreach my $database (@databases)
	{
		my $of = $database eq 'postgres' ? $what : "$what, version 1.0";
		same(contents($new, $database), $contents{$database}, "$of: every table, counter and sequence is as it was");
		same(fences($new, $database), $fences{$database}, "$of: so are privileges, policies and triggers");
		is($new->safe_psql($database, 'SELECT * FROM partner_portal.verify()'), '', "$of: verify() finds nothing");
	}
	$new->safe_psql('postgres', 'CREATE DATABASE fresh');
	$new->safe_psql('fresh', 'CREATE EXTENSION partner_portal');
	same(members($new, 'postgres'), members($new, 'fresh'), "$what: the extension is what a fresh one is");
	$new->safe_psql('postgres', 'DROP DATABASE fresh WITH (FORCE)');

	is(sqlstate($new, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (6, 'smartphone', 'n')"), 'PP001', "$what: the limit holds");
	is(sqlstate($new, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'n')"), 'PP005', "$what: what is suspended stays so");
	is(sqlstate($new, "UPDATE partner_portal.invoice SET total_minor = 0, subtotal_minor = 0 WHERE status = 'final'"), 'PP003', "$what: documents are final");
	is(sqlstate($new, 'DELETE FROM partner_portal.member WHERE workspace_id = 6'), 'PP004', "$what: the last owner stays");
	is(sqlstate($new, 'DROP EXTENSION partner_portal'), '2BP01', "$what: the extension is guarded");
	is($new->safe_psql('postgres', 'BEGIN; SELECT partner_portal.login_as(3) \g /dev/null' . "\nSET LOCAL ROLE regress_app;\n" .
			"SELECT (SELECT string_agg(workspace_id::text, ' ' ORDER BY 1) FROM partner_portal.workspace), (SELECT string_agg(DISTINCT workspace_id::text, ' ') FROM orders); COMMIT"),
		'3|3', "$what: a customer sees its own, in our tables and the application's");
	is($new->safe_psql('postgres', "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'of $what') RETURNING key_id > (SELECT max(key_id) FROM partner_portal.security_key)"),
		't', "$what: numbers go on");
	is($new->safe_psql('postgres', "SELECT count(*) > 0 FROM partner_portal.run_billing('2026-05-15'::timestamptz + interval '1 month' * $hop) WHERE problem IS NULL"), 't', "$what: billing goes on");
	is($new->safe_psql('postgres', 'SELECT * FROM partner_portal.verify()'), '', "$what: verify() finds nothing then");
	$old = $new;
}

# the old cluster may still be there: the new one sends nothing until it is told that the messages are its own
like($old->safe_psql('postgres', 'SELECT partner_portal.delivery_home_problem()'), qr/copy/, 'the upgraded database takes itself for a copy');
$old->safe_psql('postgres', 'SELECT partner_portal.adopt_deliveries()');
is($old->safe_psql('postgres', 'SELECT partner_portal.delivery_home_problem()'), '', 'until it adopts what is to be sent');
# the version of the extension came along, and is raised where it lies now
foreach my $database (grep { $_ ne 'postgres' } @databases)
{
	is($old->safe_psql($database, "SELECT extversion FROM pg_extension WHERE extname = 'partner_portal'"), '1.0', 'a database of version 1.0 is still of that');
	$old->safe_psql($database, 'ALTER EXTENSION partner_portal UPDATE');
	same(members($old, $database), members($old, 'postgres'), 'updated, it is what the other one is');
	is($old->safe_psql($database, 'SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing in it');
	is($old->safe_psql($database, "SELECT count(*) > 0 FROM partner_portal.run_billing('2026-06-15') WHERE problem IS NULL"), 't', 'billing goes on in it');
	is($old->safe_psql($database, 'SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing then');
}
$old->stop;
done_testing();
