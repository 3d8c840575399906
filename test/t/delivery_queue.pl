# delivery_queue.pl: rows that cannot be built, leases of engines that died, late results, clones.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($http, $requests) = start_peer('http_peer.py');
my $node = server('delivery_queue', "partner_portal.allow_cidr = '127.0.0.1:$http'");
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/' || i, ARRAY['test']) FROM generate_series(1, 16) i");

# rows that cannot be built are dead by themselves
sql($node, q{SELECT count(partner_portal.enqueue_webhook_event(1, 'test', '{}', 'good'))});
sql($node, q{SET session_replication_role = replica;
	ALTER TABLE partner_portal.webhook_endpoint DROP CONSTRAINT webhook_endpoint_url;
	UPDATE partner_portal.webhook_endpoint SET url = E'http://127.0.0.1/\nX: y' WHERE endpoint_id = 1;
	UPDATE partner_portal.notification SET text_body = repeat('x', 70000) WHERE endpoint_id = 2 AND state = 'pending';
	UPDATE partner_portal.webhook_endpoint SET url = repeat('http://', 3) WHERE endpoint_id = 3;
	UPDATE partner_portal.webhook_endpoint SET key_version = 9 WHERE endpoint_id = 4});
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

# of what an engine had claimed that ended while the server was up, the claim does not count, but the tenth time
sql($node, q{DELETE FROM partner_portal.notification WHERE state <> 'delivered';
	SELECT partner_portal.enqueue_webhook_event(1, 'test', '{}', 'ended');
	UPDATE partner_portal.delivery_queue SET claims = 3, lease_token = 2000000001, lease_until = now() + interval '2 hours';
	INSERT INTO partner_portal.delivery_attempt (workspace_id, notification_id, partner_key, outcome)
	SELECT workspace_id, notification_id, 0, 'lost' FROM partner_portal.delivery_queue, generate_series(1, 9) WHERE destination = 6});
sql($node, 'CALL partner_portal.deliver_notifications(1000)');
is(sql($node, q{SELECT state, last_error FROM partner_portal.notification WHERE dedupe_key = 'ended:6'}), 'dead|claimed ten times and never recorded', 'lost ten times, it is dead');
is(sql($node, q{SELECT count(*) FROM partner_portal.notification WHERE dedupe_key LIKE 'ended:%' AND state = 'delivered' AND endpoint_id > 4}), '11', 'lost for another reason than themselves, the others are delivered');

# a call that is cancelled, or whose session is ended, while peers ponder, gives back what it had under way
sql($node, qq{DELETE FROM partner_portal.notification WHERE state <> 'delivered';
	SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/slow/5', ARRAY['slow']), partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/quick', ARRAY['slow'])});
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'slow', '{}', 'slow')});
sub slow { return sql($node, q{SELECT e.url ~ 'quick', n.state, n.attempts, q.claims, q.lease_token, (SELECT string_agg(a.outcome, ' ') FROM partner_portal.delivery_attempt a
	WHERE a.notification_id = n.notification_id) FROM partner_portal.notification n JOIN partner_portal.webhook_endpoint e USING (endpoint_id)
	LEFT JOIN partner_portal.delivery_queue q USING (notification_id) WHERE n.dedupe_key LIKE 'slow:%' ORDER BY 1}) }
my (undef, undef, $cancelled) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nSET statement_timeout = '1s';\nCALL partner_portal.deliver_notifications()");
like($cancelled, qr/57014/, 'a call is cancelled while a peer ponders');
is(slow(), "f|pending|0|0||aborted\nt|delivered|1|||", 'what has come back is recorded, the rest is given back');
sql($node, 'UPDATE partner_portal.delivery_queue SET next_attempt_at = now()');
my $session = $node->background_psql('postgres', on_error_die => 0, on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
my $before = grep { $_->{path} eq '/slow/5' } lines_of($requests);
$session->{stdin} .= "CALL partner_portal.deliver_notifications();\n";
$session->{run}->pump_nb;
ok(wait_for(sub { $before < grep { $_->{path} eq '/slow/5' } lines_of($requests) }, 'the slow one to be under way'), 'it is sent again');
sql($node, "SELECT pg_terminate_backend($pid)");
ok(wait_for(sub { sql($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") == 0 }, 'the end of the session', 4), 'a session is ended at once');
is(slow(), "f|pending|0|0||aborted aborted\nt|delivered|1|||", 'and gives it back as well');
$session->{run}->kill_kill;

# a result of an engine that lost its lease changes nothing
sql($node, q{DELETE FROM partner_portal.notification WHERE state <> 'delivered';
	SELECT partner_portal.enqueue_webhook_event(1, 'test', '{}', 'fenced');
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

# indexes of another kind, which somebody has added, get the entries that are theirs, and the others none of a row that stays on its page
sql($node, q{CREATE INDEX ON partner_portal.delivery_queue USING brin (lease_until);
	CREATE INDEX ON partner_portal.notification USING brin (finished_at);
	SELECT partner_portal.enqueue_webhook_event(1, 'test', '{}', 'brin')});
sql($node, 'CALL partner_portal.deliver_notifications(1000)');
is(sql($node, q{SELECT count(*) FROM partner_portal.notification WHERE dedupe_key LIKE 'brin:%' AND state = 'delivered' AND endpoint_id > 5}), '11', 'with indexes of another kind');
is(sql($node, q{CREATE EXTENSION amcheck;
	SELECT count(*) > 4 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree',
		LATERAL bt_index_check(c.oid, true) b WHERE i.indrelid IN ('partner_portal.notification'::regclass, 'partner_portal.delivery_queue'::regclass)}), 't', 'the indexes are sound');
unlike(slurp_file($node->logfile), qr/resource was not closed|refcount leak/, 'and nothing is left open');

$node->stop;
done_testing();
