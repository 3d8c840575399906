# pg_upgrade carries the extension over with its data: the guard against drops (src/drop_guard.c) does not stand in its way,
# and what is derived comes along.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = PostgreSQL::Test::Cluster->new('old');
$old->init;
$old->start;
$old->safe_psql('postgres', 'CREATE EXTENSION partner_portal; CREATE ROLE regress_app;');
$old->safe_psql('postgres', <<'S');
SET search_path = partner_portal;
SELECT enroll_role('regress_app', 'application');
SELECT create_workspace('Reseller AG', 'boss@reseller.example', 'reseller', anchor_date => '2026-01-01');
SELECT promote_to_partner(1);
INSERT INTO workspace (company_name, slug, partner_id, created_at, anchor_date) VALUES ('Acme', 'acme', 1, '2026-01-01', '2026-01-01');
SELECT add_member(2, 'anna@acme.example', 'owner');
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'a'), (2, 'contactless_card', 'b'), (2, 'smartphone', 'c');
UPDATE security_key SET status = 'disabled' WHERE serial = 'a';
SELECT set_usage_limit(2, 2);
SELECT count(*) FROM close_periods('2026-06-01');
S

my $tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'partner_portal'::regnamespace AND relkind = 'r'";
my @tables = split / /, $old->safe_psql('postgres', $tables);

sub contents
{
	my ($node) = @_;
	return join "\n", map { "$_: " . $node->safe_psql('postgres', "SELECT t::text FROM partner_portal.$_ t ORDER BY 1") } @tables;
}

# Policies, triggers and grants, by name.
sub catalog
{
	my ($node) = @_;
	return $node->safe_psql('postgres', <<'S');
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relacl::text,
	(SELECT string_agg(tgname || tgenabled::text, ' ' ORDER BY tgname) FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT tgisinternal),
	(SELECT string_agg(polname, ' ' ORDER BY polname) FROM pg_policy p WHERE p.polrelid = c.oid)
FROM pg_class c WHERE c.relnamespace = 'partner_portal'::regnamespace AND c.relkind IN ('r', 'v', 'S') ORDER BY 1;
SELECT p.oid::regprocedure, p.proacl::text, p.provolatile, p.proleakproof FROM pg_proc p WHERE p.pronamespace = 'partner_portal'::regnamespace ORDER BY 1::text;
SELECT evtname, evtevent, evtenabled FROM pg_event_trigger ORDER BY 1;
SELECT array_length(extconfig, 1) FROM pg_extension WHERE extname = 'partner_portal';
S
}

my $contents = contents($old);
my $catalog = catalog($old);
my $bindir = $old->config_data('--bindir');
$old->stop;

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
# pg_upgrade writes into the current directory
chdir PostgreSQL::Test::Utils::tempdir() or die;
$new->command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bindir, '-B', $bindir,
		'-s', $new->host, '-p', $old->port, '-P', $new->port ], 'pg_upgrade');
$new->start;

is(contents($new), $contents, 'every table and counter is as it was');
is(catalog($new), $catalog, 'so are policies, triggers and grants');
is($new->safe_psql('postgres', 'SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing');
my (undef, undef, $error) = $new->psql('postgres', "\\set VERBOSITY sqlstate\nINSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'n')");
like($error, qr/PP001/, 'the limit holds');
(undef, undef, $error) = $new->psql('postgres', "\\set VERBOSITY sqlstate\nDROP EXTENSION partner_portal");
like($error, qr/2BP01/, 'the extension is guarded');
is($new->safe_psql('postgres', "SELECT count(*) > 0 FROM partner_portal.close_periods('2027-01-01')"), 't', 'periods are closed');
is($new->safe_psql('postgres', 'SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing then');

$new->stop;
done_testing();
