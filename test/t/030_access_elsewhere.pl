# What has changed in who may do what arrives where it was not done: on a standby, and on a logical subscriber, in a
# transaction that is open there (src/acl_cache.c).

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $fixture = <<'S';
INSERT INTO partner_portal.account (email) VALUES ('owner@example.com'), ('admin@example.com'), ('staff@example.com'), ('customer@example.com'), ('granted@example.com');
INSERT INTO partner_portal.partner (partner_id, registration_code) VALUES (1, 'code-of-p'), (3, 'code-of-g');
INSERT INTO partner_portal.workspace (kind, partner_id, company_name, slug, anchor_date) VALUES
	('partner', NULL, 'P', 'p', '2026-01-01'), ('business', 1, 'C', 'c', '2026-01-01'),
	('partner', NULL, 'G', 'g', '2026-01-01');
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at) VALUES
	(1, 1, 0, 'owner', now()), (1, 2, 0, 'administrator', now()), (1, 3, 0, 'member', now()), (2, 4, 1, 'owner', now()),
	(3, 5, 0, 'owner', now());
INSERT INTO partner_portal.staff (workspace_id, account_id, partner_key, role) VALUES (2, 3, 1, 'account_owner');
INSERT INTO partner_portal.access_grant (workspace_id, partner_id, scope, wallet, state, accepted_at) VALUES (2, 3, 'complete', false, 'active', now());
S

# Begins a transaction in a session of its own that signs in an account, tells by an advisory lock what it sees, and waits
# until it sees something else, for a minute at most. Returns the session and the place of its answer.
sub look
{
	my ($node, $isolation, $account, $lock) = @_;
	my $answer = '';
	my $session = IPC::Run::start(
		[
			'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', <<"S"
BEGIN ISOLATION LEVEL $isolation;
SELECT partner_portal.login_as($account);
SET LOCAL ROLE regress_app;
DO \$\$
DECLARE
	before bigint[];
	after bigint[];
	until timestamptz := clock_timestamp() + interval '1 minute';
BEGIN
	SELECT array_agg(workspace_id ORDER BY workspace_id) INTO before FROM partner_portal.workspace;
	PERFORM pg_advisory_lock($lock);
	LOOP
		SELECT array_agg(workspace_id ORDER BY workspace_id) INTO after FROM partner_portal.workspace;
		EXIT WHEN after IS DISTINCT FROM before OR clock_timestamp() > until;
		PERFORM pg_sleep(0.01);
	END LOOP;
	RAISE EXCEPTION USING ERRCODE = 'raise_exception', MESSAGE = format('%s then %s', before, after);
END
\$\$;
S
		],
		'>', \my $out, '2>', \$answer);
	$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = $lock)")
	  or die "the session did not begin: $answer";
	return ($session, \$answer);
}

# Waits for a session's answer.
sub says
{
	my ($session, $answer) = @_;
	IPC::Run::finish($session);
	my ($said) = $$answer =~ /ERROR:\s+(.*? then .*)/;
	return $said // $$answer;
}

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 'logical');
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION partner_portal; CREATE ROLE regress_app;');
$primary->safe_psql('postgres', "SELECT partner_portal.enroll_role('regress_app', 'application');");
$primary->safe_psql('postgres', $fixture);

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->start;
$subscriber->safe_psql('postgres', 'CREATE EXTENSION partner_portal; CREATE ROLE regress_app;');
$subscriber->safe_psql('postgres', "SELECT partner_portal.enroll_role('regress_app', 'application');");
$primary->safe_psql('postgres',
	'CREATE PUBLICATION access FOR TABLE partner_portal.account, partner_portal.partner, partner_portal.workspace, partner_portal.member, partner_portal.staff, partner_portal.access_grant');
$subscriber->safe_psql('postgres', sprintf "CREATE SUBSCRIPTION access CONNECTION '%s' PUBLICATION access", $primary->connstr . ' dbname=postgres');
$subscriber->wait_for_subscription_sync($primary, 'access');

my @standby = look($standby, 'REPEATABLE READ', 2, 1);
my @subscriber = look($subscriber, 'REPEATABLE READ', 2, 1);
$primary->safe_psql('postgres', 'DELETE FROM partner_portal.member WHERE account_id = 2');
is(says(@standby), '{1,2} then ', 'a membership that ends is over on a standby');
is(says(@subscriber), '{1,2} then ', 'and on a logical subscriber');

@standby = look($standby, 'READ COMMITTED', 3, 2);
@subscriber = look($subscriber, 'READ COMMITTED', 3, 2);
$primary->safe_psql('postgres', 'DELETE FROM partner_portal.staff WHERE account_id = 3');
is(says(@standby), '{1,2} then {1}', 'an assignment that ends is over on a standby');
is(says(@subscriber), '{1,2} then {1}', 'and on a logical subscriber');

@standby = look($standby, 'REPEATABLE READ', 4, 3);
@subscriber = look($subscriber, 'REPEATABLE READ', 4, 3);
$primary->safe_psql('postgres', 'UPDATE partner_portal.account SET disabled_at = now() WHERE account_id = 4');
is(says(@standby), '{2} then ', 'an account that is disabled is nobody on a standby');
is(says(@subscriber), '{2} then ', 'and on a logical subscriber');

@standby = look($standby, 'REPEATABLE READ', 5, 4);
@subscriber = look($subscriber, 'REPEATABLE READ', 5, 4);
$primary->safe_psql('postgres', 'SELECT partner_portal.end_access(1)');
is(says(@standby), '{2,3} then {3}', 'access that was granted and ends is over on a standby');
is(says(@subscriber), '{2,3} then {3}', 'and on a logical subscriber');

$subscriber->stop;
$standby->stop;
$primary->stop;
done_testing();
