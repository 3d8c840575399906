# Copyright (c) 2026, the partner_portal authors

# What is refused is one line of the server log: parseable, by number only, without the statement (src/refusal.c).

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('refusal');
$node->init;
$node->append_conf('postgresql.conf', "log_min_messages = warning\nlog_statement = none\nlog_min_error_statement = panic\n");
$node->start;
$node->safe_psql('postgres', <<'S');
CREATE EXTENSION partner_portal;
CREATE ROLE "app "" role" LOGIN;
SELECT partner_portal.enroll_role('"app "" role"', 'trusted_application');
SELECT partner_portal.create_workspace('P', 'p@example.com'), partner_portal.create_workspace('D', 'secret-d@example.com');
SELECT partner_portal.promote_to_partner(1);
INSERT INTO partner_portal.account (email) VALUES ('gone@example.com');
SELECT partner_portal.disable_account(3);
SELECT count(*) FROM partner_portal.set_usage_limit(2, 1);
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'a');
S

# Runs a statement that must fail with that SQLSTATE, as the role, and returns what the server log was told of it.
sub refused
{
	my ($account, $sql, $state) = @_;
	my $from = -s $node->logfile;
	my $login = $account ? "SELECT partner_portal.login_as($account);" : '';
	my ($code, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nBEGIN; SET LOCAL ROLE \"app \"\" role\"; $login\n$sql;\nROLLBACK;");
	like($err, qr/ERROR:  $state/, "$sql is refused");
	my @lines = slurp_file($node->logfile, $from) =~ /partner_portal refused (\{.*\})$/mg;
	is(scalar(@lines), 1, 'in one line of the server log');
	unlike($lines[0] // '', qr/example|SELECT|INSERT|eyJ/, 'without addresses, statements and tokens');
	return decode_json($lines[0] // '{}');
}

my %app = (role => 'app " role', acting => undef, account => 2, workspace => 2);
is_deeply(refused(2, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'b'), (2, 'smartphone', 'c')", 'PP001'),
	{ %app, sqlstate => 'PP001', what => 'activate', limit => 1, active => 1, requested => 2 }, 'the limit');
is_deeply(refused(0, "SELECT partner_portal.login('eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.')", '28000'),
	{ %app, sqlstate => '28000', what => 'login', account => undef, workspace => undef }, 'a token');
is_deeply(refused(0, 'SELECT partner_portal.login_as(3)', '28000'),
	{ %app, sqlstate => '28000', what => 'login_as', account => undef, workspace => undef, asked => 3 }, 'a disabled account');
is_deeply(refused(0, 'SELECT partner_portal.login_role()', '28000'),
	{ %app, sqlstate => '28000', what => 'login_role', account => undef, workspace => undef }, 'a role that is not mapped');
is_deeply(refused(2, 'SELECT * FROM partner_portal.set_usage_limit(2, 5)', '42501'),
	{ %app, sqlstate => '42501', what => 'set_limit' }, 'a permission that one lacks');
is_deeply(refused(2, 'SELECT * FROM partner_portal.usage(1)', 'P0002'),
	{ %app, sqlstate => 'P0002', what => 'read', workspace => 1 }, 'a workspace that is somebody else\'s');
is_deeply(refused(2, 'SELECT partner_portal.act_in(1)', 'P0002'),
	{ %app, sqlstate => 'P0002', what => 'act_in', workspace => 1 }, 'acting elsewhere');
is_deeply(refused(0, 'SELECT * FROM partner_portal.usage(1)', '42501'),
	{ %app, sqlstate => '42501', what => 'access', account => undef, workspace => undef }, 'nobody signed in');
is_deeply(refused(2, 'UPDATE partner_portal.workspace SET key_limit = 9 WHERE workspace_id = 2', '42501'),
	{ %app, sqlstate => '42501', what => 'set_limit', column => 'key_limit' }, 'a column that one may not change');
is_deeply(refused(2, 'SELECT partner_portal.forget_activity(now())', '42501'),
	{ %app, sqlstate => '42501', what => 'operate', workspace => undef }, 'what is the operator\'s');
is_deeply(refused(2, "SELECT partner_portal.decline_invitation('x')", 'PP002'),
	{ %app, sqlstate => 'PP002', what => 'invitation', workspace => undef }, 'an invitation');

# a key that the platform disabled, and a workspace that is suspended
$node->safe_psql('postgres', q{SELECT partner_portal.disable_security_keys(2)});
is_deeply(refused(2, "UPDATE partner_portal.security_key SET status = 'active'", '42501'),
	{ %app, sqlstate => '42501', what => 'activate', key => 1 }, 'a key that the platform disabled');
$node->safe_psql('postgres', q{SELECT partner_portal.suspend_workspace(2, 'unpaid')});
is_deeply(refused(2, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'd')", 'PP005'),
	{ %app, sqlstate => 'PP005', what => 'activate' }, 'a suspended workspace');

# it can be switched off, by a superuser
my $from = -s $node->logfile;
$node->psql('postgres', 'SET partner_portal.log_refusals = off; SET ROLE "app "" role"; SELECT partner_portal.act_in(1);');
unlike(slurp_file($node->logfile, $from), qr/partner_portal refused/, 'nothing when it is off');
my ($code, $out, $err) = $node->psql('postgres', 'SELECT partner_portal.is_operator(); SET SESSION AUTHORIZATION "app "" role"; SET partner_portal.log_refusals = off;');
like($err, qr/permission denied to set parameter/, 'which not everybody may do');

$node->stop;
done_testing();
