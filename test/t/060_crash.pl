# Crashes under mixed load: the server is stopped without a shutdown, or one of its backends is killed; afterwards verify()
# finds nothing and every key that was acknowledged is there. PP_ROUNDS says how often (3; 20 for a long run).

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $rounds = $ENV{PP_ROUNDS} // 3;
my $clients = 4;
my $dir = PostgreSQL::Test::Utils::tempdir();

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "restart_after_crash = on\nmax_prepared_transactions = 10\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION partner_portal;');
$node->safe_psql('postgres', <<'S');
SELECT partner_portal.create_workspace('Reseller AG', 'boss@reseller.example', 'reseller');
SELECT partner_portal.promote_to_partner(1);
INSERT INTO partner_portal.workspace (company_name, slug, partner_id, anchor_date, restrict_keys, key_limit)
	SELECT 'Customer ' || i, 'c' || i, 1, '2026-01-31', i > 2, 200 FROM generate_series(1, 6) i;
SELECT partner_portal.add_member(i, format('owner%s@customer.example', i), 'owner') FROM generate_series(2, 7) i;
SELECT partner_portal.create_price_plan(1, 'Standard', 'CHF', 'per_unit', unit_price => 4.5);
S

# What one client does, statement by statement; what is acknowledged it prints. Its own keys alone tell whether anything is
# lost: "kept" is never deleted, "gone" is inserted and deleted again.
sub script
{
	my ($round, $client) = @_;
	my $sql = "SET search_path = partner_portal;\n";
	foreach my $i (1 .. 4000)
	{
		my $w = 2 + int rand 6;
		my $name = "r${round}c${client}n$i";
		my $kind = rand() < 0.5 ? 'smartphone' : 'contactless_card';
		my $what = int rand 20;
		# of the hot ones, two have no limit
		if ($what < 6) { $w = 2 + $i % 2; $sql .= "INSERT INTO security_key (workspace_id, kind, serial) VALUES ($w, '$kind', 'kept $name') RETURNING serial;\n" }
		elsif ($what < 8) { $sql .= "WITH made AS (INSERT INTO security_key (workspace_id, kind, serial) SELECT w, '$kind', 'kept $name ' || w FROM generate_series(2, 7) w RETURNING serial) SELECT serial FROM made;\n" }
		elsif ($what < 11) { $sql .= "INSERT INTO security_key (workspace_id, kind, serial) VALUES ($w, '$kind', 'gone $name');\nDELETE FROM security_key WHERE workspace_id = $w AND serial = 'gone $name' RETURNING serial;\n" }
		elsif ($what < 14) { $sql .= "UPDATE security_key SET status = CASE status WHEN 'active' THEN 'disabled' ELSE 'active' END WHERE workspace_id = $w AND key_id % 7 = $i % 7 AND status <> 'revoked';\n" }
		elsif ($what < 15) { $sql .= sprintf "SELECT count(*) FROM set_usage_limit(%d, %d, restore => %s) \\g /dev/null\n", 4 + int rand 4, 5 + int rand 300, rand() < 0.5 ? 'true' : 'false' }
		elsif ($what < 16) { $sql .= "SELECT count(*) FROM disable_security_keys($w, 20) \\g /dev/null\n" }
		elsif ($what < 17) { $sql .= "BEGIN;\nINSERT INTO workspace (company_name, slug, partner_id, created_at, anchor_date) VALUES ('$name', '$name', 1, '2024-01-01', '2024-01-31') RETURNING workspace_id AS made \\gset\nSELECT add_member(:made, '$name\@customer.example', 'owner') \\g /dev/null\nCOMMIT;\n" }
		elsif ($what < 18) { $sql .= sprintf "SELECT count(*) FROM close_periods('2024-01-01'::timestamptz + '20 days'::interval * %d, 2) \\g /dev/null\n", $i % 40 }
		elsif ($what < 19) { $sql .= "SELECT count(*) FROM (SELECT suspend_workspace($w, 'unpaid')) s \\g /dev/null\nSELECT count(*) FROM (SELECT resume_workspace($w)) r \\g /dev/null\n" }
		else { $sql .= "BEGIN;\nSAVEPOINT s;\nINSERT INTO security_key (workspace_id, kind, serial) VALUES ($w, '$kind', 'never $name');\nROLLBACK TO s;\nINSERT INTO security_key (workspace_id, kind, serial) VALUES ($w, '$kind', 'some $name');\nCOMMIT;\n" }
	}
	append_to_file("$dir/$round.$client.sql", $sql);
	return "$dir/$round.$client.sql";
}

# What a client has printed, but for a line that is not complete.
sub acknowledged
{
	my ($file) = @_;
	return grep { /^(kept|gone) / } split /\n/, slurp_file($file) =~ s/[^\n]*\z//r;
}

foreach my $round (1 .. $rounds)
{
	my @outs = map { "$dir/out.$round.$_" } 1 .. $clients;
	my @sessions = map {
		IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', script($round, $_) ],
			'<', \undef, '>', "$dir/out.$round.$_", '2>', "$dir/err.$round.$_")
	} 1 .. $clients;
	my $enough = 150 + int rand 400;
	foreach my $try (1 .. 6000)
	{
		my $count = 0;
		$count += acknowledged($_) foreach (grep { -e } @outs);
		last if $count >= $enough;
		usleep(10_000);
	}
	my $how;
	if ($round % 2)
	{
		$how = 'immediate stop';
		$node->stop('immediate');
	}
	else
	{
		$how = 'a backend killed';
		my ($victim) = split /\n/, $node->safe_psql('postgres',
			"SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY query_start DESC LIMIT 1");
		kill 'KILL', $victim;
	}
	# each ends by losing its connection
	IPC::Run::finish($_) foreach (@sessions);
	$node->start if $round % 2;
	$node->poll_query_until('postgres', 'SELECT true') or die 'the server did not come back';

	my @kept = map { grep { /^kept/ } acknowledged($_) } @outs;
	my @gone = map { grep { /^gone/ } acknowledged($_) } @outs;
	append_to_file("$dir/kept.$round", join("\n", @kept, ''));
	append_to_file("$dir/gone.$round", join("\n", @gone, ''));
	my @lost = map { my ($last) = reverse split /\n/, slurp_file("$dir/err.$round.$_"); $last // '' } 1 .. $clients;
	is(scalar(grep { /connection to server was lost|server closed the connection|terminating connection/ } @lost), $clients, "round $round: every client was cut off") or diag(@lost);
	cmp_ok(scalar @kept, '>', 50, "round $round, $how: there was load (" . @kept . ' keys)');
	is($node->safe_psql('postgres', 'SELECT * FROM partner_portal.verify()'), '', "round $round: verify() finds nothing");
	is($node->safe_psql('postgres', <<"S"), '0|0|0', "round $round: every acknowledged key is there, none that was deleted or rolled back");
CREATE TEMP TABLE kept (serial text);
CREATE TEMP TABLE gone (serial text);
COPY kept FROM '$dir/kept.$round';
COPY gone FROM '$dir/gone.$round';
SELECT (SELECT count(*) FROM kept WHERE serial NOT IN (SELECT serial FROM partner_portal.security_key)),
	(SELECT count(*) FROM gone WHERE serial IN (SELECT serial FROM partner_portal.security_key)),
	(SELECT count(*) FROM partner_portal.security_key WHERE serial LIKE 'never%');
S
}

# It goes on, and nothing on disk is damaged.
is($node->safe_psql('postgres', 'SELECT partner_portal.repair()'), '0', 'there is nothing to repair');
SKIP:
{
	skip 'amcheck is not there', 1
	  if $node->safe_psql('postgres', "SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'") eq '0';
	$node->command_ok([ 'pg_amcheck', '--install-missing', '--heapallindexed', '-s', 'partner_portal', '-d', 'postgres' ], 'pg_amcheck finds nothing');
}
$node->stop;
done_testing();
