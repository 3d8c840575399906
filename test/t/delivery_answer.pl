# delivery_answer.pl: peers that answer badly, slowly, too much or not at all.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use MIME::Base64;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my ($http, $requests) = start_peer('http_peer.py');
my ($inside, $intrusions) = start_peer('http_peer.py');
my $node = server('delivery_answer', 'partner_portal.delivery_timeout = 2s', "partner_portal.allow_cidr = '127.0.0.1:$http'");
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');

# Answers
my %peer;
$peer{$_} = owe($node, "http://127.0.0.1:$http/$_")
	foreach ('status/500', 'status/404', 'status/410', 'status/201', 'retry_after/120', 'reset/', 'close/', 'hang/', 'drip/', 'flood/200', 'flood/500', 'headers/', 'binary/',
	"redirect/127.0.0.1:$http/target", "redirect/127.0.0.1:$inside/target");
my $start = time();
deliver($node);
cmp_ok(time() - $start, '<', 6, 'the slowest peers take the timeout, all at once');
is(fate($node, $peer{'status/201'}), 'delivered|1|201|', 'any 2xx is delivered');
is(fate($node, $peer{'status/500'}), 'pending|1|500|HTTP status 500', '500 is tried again');
is(fate($node, $peer{'status/404'}), 'pending|1|404|HTTP status 404', '404 is tried again');
is(fate($node, $peer{'binary/'}), 'pending|1|500|HTTP status 500', 'an answer of any bytes is no harm');
is(fate($node, $peer{'status/410'}), 'pending|0|410|HTTP status 410', '410 waits');
is(sql($node, "SELECT state, state_reason FROM partner_portal.webhook_endpoint WHERE endpoint_id = $peer{'status/410'}"), 'disabled|it answered 410 Gone', 'its endpoint is disabled');
is(fate($node, $peer{'retry_after/120'}), 'pending|1|429|HTTP status 429', '429 is tried again');
is(sql($node, "SELECT hold_until - now() BETWEEN '100 s' AND '121 s', (SELECT next_attempt_at - now() > '100 s' FROM partner_portal.notification WHERE endpoint_id = $peer{'retry_after/120'})
	FROM partner_portal.delivery_destination WHERE destination = $peer{'retry_after/120'}"), 't|t', 'no earlier than it asked');
like(fate($node, $peer{'reset/'}), qr/^pending\|1\|0\|/, 'a reset is tried again');
like(fate($node, $peer{'close/'}), qr/^pending\|1\|0\|/, 'a close is tried again');
is(fate($node, $peer{'hang/'}), 'pending|1|0|Timeout was reached', 'a hang ends');
like(fate($node, $peer{'drip/'}), qr/^pending\|1\|(0|200)\|Timeout was reached/, 'a drip ends');
is(fate($node, $peer{'flood/200'}), 'delivered|1|200|', 'a flood after 200 is cut and delivered');
like(fate($node, $peer{'flood/500'}), qr/^pending\|1\|500\|/, 'a flood after 500 is cut and tried again');
like(fate($node, $peer{'headers/'}), qr/^(delivered|pending)\|1\|/, 'a flood of headers is cut');
is(fate($node, $peer{"redirect/127.0.0.1:$http/target"}), 'pending|1|302|HTTP status 302, redirects are not followed', 'a redirect is not followed');
is(fate($node, $peer{"redirect/127.0.0.1:$inside/target"}), 'pending|1|302|HTTP status 302, redirects are not followed', 'nor one inside');
is(scalar(grep { $_->{path} eq '/target' } lines_of($requests)), 0, 'nobody came to its target');
is(scalar(grep { $_->{path} eq '/status/500' } lines_of($requests)), 1, 'one attempt at a time');
is(sql($node, "SELECT next_attempt_at - finished BETWEEN '3.5 s' AND '6.5 s' FROM (SELECT n.next_attempt_at, a.at AS finished FROM partner_portal.notification n
	JOIN partner_portal.delivery_attempt a USING (workspace_id, notification_id) WHERE n.endpoint_id = $peer{'status/500'}) x"), 't', 'the second attempt is due after about 5 s');

# The same id in the next attempt
sql($node, "UPDATE partner_portal.delivery_queue SET next_attempt_at = now() WHERE destination = $peer{'status/500'}");
deliver($node);
my @same = grep { $_->{path} eq '/status/500' } lines_of($requests);
is(scalar @same, 2, 'a second attempt');
is($same[1]{headers}{'webhook-id'}, $same[0]{headers}{'webhook-id'}, 'has the same id');
is($same[1]{body}, $same[0]{body}, 'and the same body');

# Ten attempts, then a dead letter, then by hand again
sql($node, "UPDATE partner_portal.notification SET attempts = 9 WHERE endpoint_id = $peer{'status/404'};
	UPDATE partner_portal.delivery_queue SET next_attempt_at = now() WHERE destination = $peer{'status/404'}");
deliver($node);
is(fate($node, $peer{'status/404'}), 'dead|10|404|HTTP status 404', 'the tenth attempt is the last');
sql($node, "SELECT partner_portal.resend_notification(notification_id) FROM partner_portal.notification WHERE endpoint_id = $peer{'status/404'}");
deliver($node);
is(fate($node, $peer{'status/404'}), 'pending|1|404|HTTP status 404', 'a dead letter can be sent again');
is(sql($node, 'SELECT count(*) FROM partner_portal.delivery_queue WHERE lease_token IS NOT NULL'), '0', 'nothing is left leased');

# Five days of failing disable an endpoint
sql($node, "UPDATE partner_portal.delivery_destination SET failing_since = now() - interval '6 days', hold_until = NULL WHERE destination = $peer{'status/500'};
	UPDATE partner_portal.delivery_queue SET next_attempt_at = now() WHERE destination = $peer{'status/500'}");
deliver($node);
is(sql($node, "SELECT state FROM partner_portal.webhook_endpoint WHERE endpoint_id = $peer{'status/500'}"), 'disabled', 'five days of failing disable an endpoint');

unlike(slurp_file($node->logfile), qr/TRAP|PANIC|signal 11|crash/, 'nothing crashed');
$node->stop;
done_testing();
