# A streaming standby answers and refuses to write; promoted, it goes on with the limit, the numbers and the periods.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION partner_portal; CREATE ROLE regress_app;');
$primary->safe_psql('postgres', "SELECT partner_portal.enroll_role('regress_app', 'application');");
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->safe_psql('postgres', <<'S');
SET search_path = partner_portal;
SELECT create_workspace('Reseller AG', 'boss@reseller.example', 'reseller');
SELECT promote_to_partner(1);
INSERT INTO workspace (company_name, slug, partner_id, created_at, anchor_date) VALUES ('Acme', 'acme', 1, '2026-01-01', '2026-01-01');
SELECT add_member(2, 'anna@acme.example', 'owner');
SELECT set_usage_limit(2, 3);
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'a'), (2, 'contactless_card', 'b'), (2, 'smartphone', 'c');
UPDATE security_key SET status = 'disabled' WHERE serial = 'b';
SELECT count(*) FROM close_periods('2026-06-01');
S
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

sub sqlstate
{
	my ($node, $statement) = @_;
	my (undef, undef, $error) = $node->psql('postgres', "\\set VERBOSITY sqlstate\n\\set ON_ERROR_STOP 1\n$statement");
	return $error =~ /ERROR:\s+(\w{5})/ ? $1 : $error eq '' ? '00000' : $error;
}

# who is signed in reads
my $as_partner = 'BEGIN; SELECT partner_portal.login_as(1) \g /dev/null' . "\nSET LOCAL ROLE regress_app;\n";
my $panel = "$as_partner SELECT company_name, total_keys, active_keys, key_limit FROM partner_portal.partner_panel; COMMIT;";
is($standby->safe_psql('postgres', $panel), 'Acme|3|2|3', 'the panel');
is($standby->safe_psql('postgres', "$as_partner SELECT distinct_keys FROM partner_portal.usage(2) WHERE kind IS NULL; COMMIT;"), '3', 'usage()');
is($standby->safe_psql('postgres', 'SELECT * FROM partner_portal.verify()'), '', 'verify()');
is($standby->safe_psql('postgres', "SELECT value FROM partner_portal.health() WHERE name = 'active_keys'"), '2', 'health()');

# and nobody writes
foreach my $statement (
	"INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'n')",
	"UPDATE partner_portal.security_key SET status = 'disabled'",
	'SELECT partner_portal.set_usage_limit(2, 1)',
	'SELECT partner_portal.disable_security_keys(2)',
	"SELECT partner_portal.create_workspace('B', 'b\@b.example')",
	'SELECT partner_portal.close_periods()',
	'SELECT partner_portal.repair()')
{
	is(sqlstate($standby, $statement), '25006', "refused: $statement");
}

$primary->safe_psql('postgres', "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'last')");
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$primary->stop('immediate');
$standby->promote;

is($standby->safe_psql('postgres', $panel), 'Acme|4|3|3', 'promoted, it has the last key');
is(sqlstate($standby, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'n')"), 'PP001', 'the limit holds');
is(sqlstate($standby, "UPDATE partner_portal.security_key SET status = 'disabled' WHERE serial = 'a'"), '00000', 'it writes');
is($standby->safe_psql('postgres', "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'n') RETURNING key_id > 4"), 't', 'numbers go on');
is($standby->safe_psql('postgres', "SELECT count(*) > 0 FROM partner_portal.close_periods('2027-01-01')"), 't', 'periods are closed');
is($standby->safe_psql('postgres', 'SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing');

$standby->stop;
done_testing();
