# Two-phase commit: what is prepared survives a crash, holds its counters until it is decided, and counts from then on.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', 'max_prepared_transactions = 10');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION partner_portal;');
$node->safe_psql('postgres', <<'S');
INSERT INTO partner_portal.account (email) VALUES ('operator@example.com');
SELECT partner_portal.create_workspace('Acme', 'anna@acme.example');
SELECT partner_portal.create_workspace('Other', 'otto@other.example');
SELECT partner_portal.set_usage_limit(1, 3);
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'first'), (2, 'smartphone', 'first');
S

sub counters
{
	return $node->safe_psql('postgres', 'SELECT workspace_id, total_keys, active_keys, key_limit, owners FROM partner_portal.workspace_usage ORDER BY 1');
}

sub sqlstate
{
	my ($statement) = @_;
	my (undef, undef, $error) = $node->psql('postgres', "\\set VERBOSITY sqlstate\n\\set ON_ERROR_STOP 1\nSET lock_timeout = '100ms';\n$statement");
	return $error =~ /ERROR:\s+(\w{5})/ ? $1 : $error eq '' ? '00000' : $error;
}

my $before = counters();
$node->safe_psql('postgres', <<'S');
BEGIN;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'contactless_card', 'prepared'), (1, 'smartphone', 'prepared 2');
PREPARE TRANSACTION 'add';
BEGIN;
SELECT partner_portal.login_as(3);
SELECT count(*) FROM partner_portal.disable_security_keys(2);
PREPARE TRANSACTION 'disable';
S
is(counters(), $before, 'what is prepared does not count yet');
is(sqlstate("INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'waits')"), '55P03', 'others wait for its counter');
like($node->safe_psql('postgres', "SELECT detail FROM partner_portal.health() WHERE name = 'oldest_transaction'"),
	qr/^prepared transaction add/, 'health() tells of it');

$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', "SELECT string_agg(gid, ' ' ORDER BY gid) FROM pg_prepared_xacts"), 'add disable', 'it survives a crash');
is(counters(), $before, 'and does not count yet');
is($node->safe_psql('postgres', 'SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing');
is(sqlstate("INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'waits')"), '55P03', 'others still wait for its counter');

$node->safe_psql('postgres', "COMMIT PREPARED 'add'");
$node->safe_psql('postgres', "COMMIT PREPARED 'disable'");
is(counters(), "1|3|3|3|1\n2|1|0||1", 'committed, it counts');
is($node->safe_psql('postgres', 'SELECT workspace_id, key_id FROM partner_portal.key_history'), '2|2', 'a stretch that ended is in the history');
is(sqlstate("INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'beyond')"), 'PP001', 'the limit holds');
is($node->safe_psql('postgres', 'SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing');

$before = counters();
$node->safe_psql('postgres', <<'S');
BEGIN;
SELECT count(*) FROM partner_portal.set_usage_limit(1, 1);
DELETE FROM partner_portal.security_key WHERE workspace_id = 2;
PREPARE TRANSACTION 'drop';
S
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres', "ROLLBACK PREPARED 'drop'");
is(counters(), $before, 'rolled back, it never was');
is(sqlstate("BEGIN; DELETE FROM partner_portal.security_key WHERE workspace_id = 2; ROLLBACK"), '00000', 'and nobody waits');
is($node->safe_psql('postgres', 'SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing');

$node->stop;
done_testing();
