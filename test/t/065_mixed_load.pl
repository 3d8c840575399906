# 065_mixed_load.pl: crashes while keys, access, invitations, billing runs and delivery are under way at once.
# In turn the server is stopped without a shutdown, a session killed, the worker killed, the postmaster killed. Afterwards
# verify() finds nothing, whatever was acknowledged is there, every message arrives, and those that arrive again are no more
# than were under way, with the ids they had. PP_ROUNDS says how often (3; 20 for a long run).
# packages: python3-aiosmtpd

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use IPC::Run;
use JSON::PP;
use MIME::Base64;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $rounds = $ENV{PP_ROUNDS} // 3;
my $clients = 4;
my $under_way = 64;
my $dir = PostgreSQL::Test::Utils::tempdir();
my ($http, $requests) = start_peer('http_peer.py');
my ($smtp, $mails) = start_peer('smtp_peer.py');
my $node = server('mixed', "shared_preload_libraries = 'partner_portal'", "partner_portal.databases = 'postgres'",
	"partner_portal.allow_cidr = '127.0.0.1:$http, 127.0.0.1:$smtp'", "partner_portal.smtp_url = 'smtp://127.0.0.1:$smtp'",
	'partner_portal.invitations_per_hour = 1000000', 'restart_after_crash = on', 'fsync = on');
sql($node, 'CREATE EXTENSION partner_portal');

# partners 1 and 2, each with its plan; customers 3 to 8 of 1, whose owners grant 2 access and take it back
sql($node, <<'S');
SELECT partner_portal.create_workspace('Partner ' || i, 'partner' || i || '@example.com', 'p' || i) FROM generate_series(1, 2) i;
SELECT partner_portal.promote_to_partner(i) FROM generate_series(1, 2) i;
INSERT INTO partner_portal.workspace (company_name, slug, partner_id, created_at, billing_from, anchor_date, restrict_keys, key_limit, notify_billing)
	SELECT 'Customer ' || i, 'c' || i, 1, '2024-01-31', '2024-01-31', '2024-01-31', i > 4, 500, true FROM generate_series(3, 8) i;
SELECT partner_portal.add_member(i, format('owner%s@example.com', i), 'owner') FROM generate_series(3, 8) i;
SELECT partner_portal.create_price_plan(1, 'Standard', 'CHF', 'per_unit', unit_price => 4.5, minimum_minor => 100);
SELECT partner_portal.assign_price_plan(i, 1, '2024-01-31') FROM generate_series(3, 8) i;
CREATE TABLE owner AS SELECT m.workspace_id, m.account_id FROM partner_portal.member m WHERE m.role = 'owner';
CREATE SEQUENCE month;
CREATE FUNCTION grant_access(w bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	given bigint;
BEGIN
	PERFORM partner_portal.login_as(account_id) FROM owner WHERE workspace_id = w;
	SELECT g.grant_id INTO given FROM partner_portal.grants g WHERE g.partner_id = 2 AND g.state IN ('active', 'offered') LIMIT 1;
	IF FOUND THEN
		PERFORM partner_portal.end_access(given, 'enough');
		RETURN 'ended ' || given;
	END IF;
	SELECT g.grant_id INTO given FROM partner_portal.offer_access(w, 2, 'complete', wallet => false) g;
	PERFORM partner_portal.login_as(account_id) FROM owner WHERE workspace_id = 2;
	PERFORM partner_portal.accept_access(given);
	RETURN 'granted ' || given;
END
$$;
CREATE FUNCTION join_workspace(w bigint, email text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	made partner_portal.invitation;
BEGIN
	made := partner_portal.invite_member(w, email, 'member');
	IF made.invitation_id % 3 > 0 THEN
		RETURN 'invited ' || made.invitation_id;
	END IF;
	PERFORM partner_portal.accept_invitation(made.token);
	RETURN 'joined ' || made.invitation_id;
END
$$;
S
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/slow/0.05', '{load}')");

# What one client does, statement by statement; each prints what was done once it is committed.
sub script
{
	my ($round, $client) = @_;
	my $sql = "SET search_path = partner_portal, public;\n";
	foreach my $i (1 .. 3000)
	{
		my $w = 3 + int rand 6;
		my $name = "r${round}c${client}n$i";
		my $what = int rand 20;
		if ($what < 5) { $sql .= "INSERT INTO security_key (workspace_id, kind, serial) VALUES ($w, 'smartphone', '$name') RETURNING 'key ' || serial;\n" }
		elsif ($what < 7) { $sql .= "UPDATE security_key SET status = CASE status WHEN 'active' THEN 'disabled' ELSE 'active' END WHERE workspace_id = $w AND key_id % 5 = $i % 5;\n" }
		elsif ($what < 8) { $sql .= sprintf "SELECT count(*) FROM set_usage_limit(%d, %d, restore => true) \\g /dev/null\n", 5 + int rand 4, 5 + int rand 300 }
		elsif ($what < 11) { $sql .= "SELECT grant_access($w);\n" }
		elsif ($what < 13) { $sql .= "SELECT join_workspace($w, '$name\@example.com');\n" }
		elsif ($what < 15) { $sql .= "SELECT 'invoice ' || invoice_id FROM run_billing('2024-03-02'::timestamptz + nextval('month') * '10 hours'::interval, 2) WHERE invoice_id IS NOT NULL AND problem IS NULL;\n" }
		elsif ($what < 19) { $sql .= "SELECT 'event $name' FROM enqueue_webhook_event(1, 'load', '{\"name\": \"$name\"}', '$name');\n" }
		else { $sql .= "BEGIN;\nSELECT enqueue_webhook_event(1, 'load', '{\"name\": \"never $name\"}', 'never $name') \\g /dev/null\nINSERT INTO security_key (workspace_id, kind, serial) VALUES ($w, 'smartphone', 'never $name');\nROLLBACK;\n" }
	}
	append_to_file("$dir/$round.$client.sql", $sql);
	return "$dir/$round.$client.sql";
}

# What a client has printed, but for a line that is not complete.
sub acknowledged
{
	my ($file) = @_;
	return grep { /^(key|granted|ended|invited|joined|invoice|event) / } split /\n/, slurp_file($file) =~ s/[^\n]*\z//r;
}

# answer(statement) is what a server that may be starting says, or undef.
sub answer
{
	my ($rc, $out) = eval { $node->psql('postgres', $_[0]) };
	return defined $rc && $rc == 0 ? $out : undef;
}

sub pid_of { my ($pid) = split /\n/, sql($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = '$_[0]' AND pid <> pg_backend_pid() ORDER BY query_start DESC NULLS LAST"); return $pid }

my @ways = ('the postmaster killed', 'immediate stop', 'a session killed', 'the worker killed');
foreach my $round (1 .. $rounds)
{
	my $how = $ways[ $round % 4 ];
	wait_for(sub { defined answer('SELECT 1') && pid_of('partner_portal webhooks') }, 'a worker');
	my @outs = map { "$dir/out.$round.$_" } 1 .. $clients;
	my @sessions = map {
		IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', script($round, $_) ],
			'<', \undef, '>', "$dir/out.$round.$_", '2>', "$dir/err.$round.$_")
	} 1 .. $clients;
	my $enough = 150 + int rand 300;
	foreach my $try (1 .. 6000)
	{
		my $count = 0;
		$count += acknowledged($_) foreach (grep { -e } @outs);
		last if $count >= $enough;
		usleep(10_000);
	}
	if ($how eq 'immediate stop') { $node->stop('immediate') }
	elsif ($how eq 'the postmaster killed') { $node->kill9 }
	else { kill 'KILL', pid_of($how eq 'a session killed' ? 'client backend' : 'partner_portal webhooks') }
	IPC::Run::finish($_) foreach (@sessions);
	if ($how eq 'immediate stop') { $node->start }
	# until its children have left, a new one refuses to start
	elsif ($how eq 'the postmaster killed') { wait_for(sub { $node->{_pid} = undef; $node->start(fail_ok => 1) }, 'a new postmaster') }
	wait_for(sub { defined answer('SELECT 1') }, 'the server to be back') or BAIL_OUT('the server did not come back');

	my @done = map { acknowledged($_) } @outs;
	my %of;
	foreach my $line (@done) { my ($kind, $id) = split / /, $line, 2; push @{ $of{$kind} }, $id }
	my $kinds = join(', ', map { scalar(@{ $of{$_} }) . " $_" } sort keys %of);
	cmp_ok(scalar(keys %of), '>=', 6, "round $round, $how: there was load ($kinds)");
	is(sql($node, 'SELECT * FROM partner_portal.verify()'), '', "round $round: verify() finds nothing");

	append_to_file("$dir/done.$round", join('', map { my $line = $_; $line =~ s/ /\t/; "$line\n" } @done));
	is(sql($node, <<"S"), '0|0|0|0|0|0', "round $round: every acknowledged key, grant, end, invitation, invoice and message is there");
CREATE TEMP TABLE done (kind text, id text);
COPY done FROM '$dir/done.$round';
SELECT count(*) FILTER (WHERE kind = 'key' AND NOT EXISTS (SELECT FROM partner_portal.security_key k WHERE k.serial = id)),
	count(*) FILTER (WHERE kind = 'granted' AND NOT EXISTS (SELECT FROM partner_portal.access_grant g WHERE g.grant_id::text = id AND g.accepted_at IS NOT NULL)),
	count(*) FILTER (WHERE kind = 'ended' AND NOT EXISTS (SELECT FROM partner_portal.access_grant g WHERE g.grant_id::text = id AND g.state = 'ended')),
	count(*) FILTER (WHERE kind IN ('invited', 'joined') AND NOT EXISTS (SELECT FROM partner_portal.invitation i WHERE i.invitation_id::text = id
		AND i.state = CASE done.kind WHEN 'joined' THEN 'accepted' ELSE 'pending' END)),
	count(*) FILTER (WHERE kind = 'invoice' AND NOT EXISTS (SELECT FROM partner_portal.invoice v WHERE v.invoice_id::text = id)),
	count(*) FILTER (WHERE kind = 'event' AND NOT EXISTS (SELECT FROM partner_portal.notification n WHERE n.dedupe_key LIKE '%' || id || ':%'))
FROM done;
S
	is(sql($node, <<'S'), 't|t|0', "round $round: numbers of invoices have no gap, at most one access is active, and nothing that was rolled back is there");
SELECT coalesce((SELECT bool_and(c = m) FROM (SELECT count(*) AS c, max(number) AS m FROM partner_portal.invoice WHERE number IS NOT NULL GROUP BY issuer_key, document, series_year) s), true),
	coalesce((SELECT max(c) <= 1 FROM (SELECT count(*) AS c FROM partner_portal.access_grant WHERE state IN ('active', 'offered') GROUP BY workspace_id, partner_id) g), true),
	(SELECT count(*) FROM partner_portal.security_key WHERE serial LIKE 'never%') + (SELECT count(*) FROM partner_portal.notification WHERE dedupe_key LIKE '%never%')
S
	ok(wait_for(sub { (answer('SELECT count(*) FROM partner_portal.delivery_queue') // '') eq '0' }, "round $round to be delivered", 180), "round $round: all is delivered in the end")
	  or diag(sql($node, 'SELECT n.kind, n.state, n.attempts, n.last_error, q.* FROM partner_portal.delivery_queue q JOIN partner_portal.notification n USING (workspace_id, notification_id) LIMIT 5'));
	is(sql($node, q{SELECT state, kind, count(*) FROM partner_portal.notification WHERE state NOT IN ('delivered', 'cancelled') GROUP BY 1, 2}), '', "round $round: and recorded");

	# what the peers have
	my (%events, %sent, %told);
	foreach my $request (lines_of($requests))
	{
		my $body = decode_json(decode_base64($request->{body}));
		$events{ $body->{data}->{name} }->{ $request->{headers}->{'webhook-id'} }++;
	}
	is(join(' ', grep { !$events{$_} } @{ $of{event} // [] }), '', "round $round: every acknowledged event came");
	is(join(' ', grep { keys %{ $events{$_} } > 1 || /never/ } keys %events), '', "round $round: each with one id");
	my $repeated = 0;
	foreach my $event (values %events) { $repeated += $_ - 1 foreach values %$event }
	foreach my $mail (lines_of($mails))
	{
		my ($id) = decode_base64($mail->{mail}) =~ /^Message-ID: (\S+)/mi;
		$sent{ $id // 'none' }++;
	}
	my $owed = sql($node, q{SELECT count(*) FROM partner_portal.notification WHERE endpoint_id IS NULL AND state = 'delivered'});
	is(scalar(keys %sent), $owed, "round $round: every mail came ($owed)");
	my $repeated_mails = 0;
	$repeated_mails += $_ - 1 foreach values %sent;
	# of all rounds up to here
	cmp_ok($repeated + $repeated_mails, '<=', $round * ($under_way + 1), "round $round: no more came again than was under way ($repeated events, $repeated_mails mails since the beginning)");
}

is(sql($node, 'SELECT partner_portal.repair()'), '0', 'there is nothing to repair');
$node->stop;
done_testing();
