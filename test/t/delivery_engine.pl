# delivery_engine.pl (with delivery_queue, outbox): kill -9 of worker and postmaster, two engines at once, rows that cannot be built,
# leases of engines that died. DELIVERY_ROUNDS says how many kills there are (5).

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $rounds = $ENV{DELIVERY_ROUNDS} // 5;
my ($http, $requests) = start_peer('http_peer.py');
my $node = server('delivery_engine', "shared_preload_libraries = 'partner_portal'", "partner_portal.allow_cidr = '127.0.0.1:$http'",
	'restart_after_crash = on', 'fsync = on', 'partner_portal.enabled = off', "partner_portal.databases = 'postgres'");
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/' || i, ARRAY['test']) FROM generate_series(1, 16) i");

sub pending { return sql($node, 'SELECT count(*) FROM partner_portal.delivery_queue') }

# Two engines (and two more) at once: nothing is sent twice
sql($node, q{SELECT count(partner_portal.enqueue_webhook_event(1, 'test', '{}', 'both' || i)) FROM generate_series(1, 100) i});
configure($node, 'partner_portal.enabled = on', "partner_portal.databases = ''");
my @engines = map { $node->background_psql('postgres', on_error_die => 0) } 1 .. 4;
$_->{stdin} .= "CALL partner_portal.deliver_notifications(2000);\n" foreach @engines;
$_->{run}->pump_nb foreach @engines;
ok(wait_for(sub { pending() == 0 }, 'the queue to be empty'), 'four engines at once empty the queue');
$_->quit foreach @engines;
my %seen;
$seen{ $_->{headers}{'webhook-id'} }++ foreach lines_of($requests);
is(scalar(keys %seen), 1600, 'all came');
is(scalar(grep { $_ > 1 } values %seen), 0, 'none twice');

# kill -9 of the worker and of the postmaster, in turn, at random moments
configure($node, "partner_portal.databases = 'postgres'");
my ($lost, $most, $kills, $midway) = (0, 0, 0, 0);
foreach my $round (1 .. $rounds)
{
	my $postmaster = $round % 2 == 0;
	my $before = scalar lines_of($requests);
	sql($node, "SELECT count(partner_portal.enqueue_webhook_event(1, 'test', '{}', 'round$round-' || i)) FROM generate_series(1, 60) i");
	my $wanted = 100 + int(rand(2000));
	wait_for(sub { scalar(lines_of($requests)) - $before >= $wanted || pending() == 0 }, "$wanted of round $round");
	if ($postmaster)
	{
		$node->kill9;
		# until its children have left, a new one refuses to start
		wait_for(sub { $node->{_pid} = undef; $node->start(fail_ok => 1) }, 'a new postmaster');
	}
	else
	{
		my ($pid) = split(/\n/, sql($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'partner_portal webhooks'}));
		kill 'KILL', $pid if $pid;
		wait_for(sub { my ($rc) = $node->psql('postgres', 'SELECT 1'); $rc == 0 }, 'the server to be back');
	}
	$kills++;
	my (undef, $left) = $node->psql('postgres', 'SELECT count(*) FROM partner_portal.delivery_queue WHERE lease_token IS NOT NULL');
	wait_for(sub { my ($rc, $out) = $node->psql('postgres', 'SELECT count(*) FROM partner_portal.delivery_queue'); $rc == 0 && $out eq '0' },
		"round $round to be delivered", 120) or $lost++;
	$midway++ if $left;
	my %ids;
	my @came = lines_of($requests);
	$ids{ $_->{headers}{'webhook-id'} }++ foreach @came[ $before .. $#came ];
	my $repeated = 0;
	$repeated += $_ - 1 foreach values %ids;
	$most = $repeated if $repeated > $most;
	$lost += 3200 - scalar keys %ids;
	note("round $round: killed " . ($postmaster ? 'postmaster' : 'worker') . " after $wanted, repeated $repeated");
}
is($lost, 0, "nothing is lost in $kills kills");
cmp_ok($kills, '>=', $rounds, "kills at random moments, leases found after $midway of them");
cmp_ok($most, '<=', 64, "no more is repeated than was under way (at most $most), with the same ids");
is(sql($node, q{SELECT count(*) FROM partner_portal.notification WHERE state <> 'delivered'}), '0', 'and all is recorded');

# rows that cannot be built are dead by themselves
configure($node, 'partner_portal.enabled = off');
ok(wait_for(sub { sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'partner_portal webhooks'}) == 0 }, 'the worker leaves'), 'the worker leaves');
sql($node, q{SELECT count(partner_portal.enqueue_webhook_event(1, 'test', '{}', 'good'))});
sql($node, q{SET session_replication_role = replica;
	ALTER TABLE partner_portal.webhook_endpoint DROP CONSTRAINT webhook_endpoint_url;
	UPDATE partner_portal.webhook_endpoint SET url = E'http://127.0.0.1/\nX: y' WHERE endpoint_id = 1;
	UPDATE partner_portal.notification SET text_body = repeat('x', 70000) WHERE endpoint_id = 2 AND state = 'pending';
	UPDATE partner_portal.webhook_endpoint SET url = repeat('http://', 3) WHERE endpoint_id = 3;
	UPDATE partner_portal.webhook_endpoint SET key_version = 9 WHERE endpoint_id = 4});
configure($node, 'partner_portal.enabled = on', "partner_portal.databases = ''");
sql($node, 'CALL partner_portal.deliver_notifications(1000)');
is(sql($node, q{SELECT string_agg(endpoint_id || ' ' || state, ', ' ORDER BY endpoint_id) FROM partner_portal.notification
	WHERE dedupe_key LIKE 'good:%' AND endpoint_id IN (1, 2)}), '1 dead, 2 dead', 'rows that cannot be built are dead');
is(sql($node, q{SELECT state, attempts FROM partner_portal.notification WHERE dedupe_key LIKE 'good:%' AND endpoint_id = 4}), 'pending|0', 'a missing key is no fault of the row');
is(sql($node, q{SELECT count(*) FROM partner_portal.notification WHERE dedupe_key LIKE 'good:%' AND state = 'delivered'}), '12', 'the others are delivered');

# what an engine that died had claimed is free at once; claimed three times and never recorded, it is dead
sql($node, q{DELETE FROM partner_portal.notification WHERE state <> 'delivered';
	UPDATE partner_portal.webhook_endpoint SET state = 'active', key_version = 1, url = replace(url, '/nowhere', '/5');
	SELECT partner_portal.enqueue_webhook_event(1, 'test', '{}', 'stale');
	UPDATE partner_portal.delivery_queue SET claims = CASE WHEN destination = 5 THEN 3 ELSE 2 END, lease_token = 2000000000, lease_until = now() + '1 hour'});
sql($node, 'CALL partner_portal.deliver_notifications(1000)');
is(sql($node, q{SELECT state, last_error FROM partner_portal.notification WHERE dedupe_key = 'stale:5'}), 'dead|claimed three times and never recorded', 'a row that kills engines is dead');
is(sql($node, q{SELECT count(*) FROM partner_portal.notification WHERE dedupe_key LIKE 'stale:%' AND state = 'delivered' AND endpoint_id > 5}), '11', 'the others are delivered');

# a result of an engine that lost its lease changes nothing
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'test', '{}', 'fenced');
	UPDATE partner_portal.delivery_queue SET lease_token = 7, lease_until = now() + '1 hour' WHERE destination = 6;
	SELECT partner_portal.record_failure(1, notification_id, 8, 'refused', 500, 'late', 0) FROM partner_portal.delivery_queue WHERE destination = 6});
is(sql($node, q{SELECT state FROM partner_portal.notification WHERE dedupe_key = 'fenced:6'}), 'pending', 'a late result is fenced off');

# a clone sends nothing until it is told to
sql($node, 'UPDATE partner_portal.delivery_home SET system_identifier = 1');
my ($rc, $out, $err) = $node->psql('postgres', 'CALL partner_portal.deliver_notifications()');
like($err, qr/this database sends no notifications/, 'a restored clone sends nothing');
sql($node, 'SELECT partner_portal.adopt_deliveries()');
sql($node, 'CALL partner_portal.deliver_notifications(1000)');
is(sql($node, q{SELECT count(*) FROM partner_portal.notification WHERE dedupe_key LIKE 'fenced:%' AND state = 'delivered' AND endpoint_id > 5}), '11', 'until it is told to');

$node->stop;
done_testing();
