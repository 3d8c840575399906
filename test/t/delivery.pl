# delivery.pl: one mail and one webhook by CALL deliver_notifications(), and what receivers see.
# About src/delivery_build.c, src/delivery_queue.c, src/outbox.c, src/secrets.c and src/webhook.c.
# packages: python3-aiosmtpd

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Digest::SHA qw(hmac_sha256);
use MIME::Base64;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = server('delivery');
sql($node, 'CREATE EXTENSION partner_portal');
my $workspace = make_workspace($node, 'one');
my ($smtp, $mails) = start_peer('smtp_peer.py');
my ($http, $requests) = start_peer('http_peer.py');
configure($node, "partner_portal.smtp_url = 'smtp://127.0.0.1:$smtp'", "partner_portal.allow_cidr = '127.0.0.1:$smtp, 127.0.0.1:$http'");

# A mail with a token
sql($node, q{SELECT partner_portal.enqueue_mail(1, 'invitation', 'one', 'ann@customer.example', 'de',
	ROW('Grüße', E'Hallo\n.\nhttps://x/abcdefghijklmnop\n', '<p>Hällo https://x/abcdefghijklmnop</p>')::partner_portal.mail_content,
	secret => 'abcdefghijklmnop')});
is(sql($node, q{SELECT partner_portal.enqueue_mail(1, 'invitation', 'one', 'ann@customer.example', 'de', ROW('x', 'y', NULL)) IS NULL}),
	't', 'the same cause owes one mail');
sql($node, 'CALL partner_portal.deliver_notifications()');
is(sql($node, 'SELECT state, attempts, last_code, last_error, secret FROM partner_portal.notification'), 'delivered|1|250||', 'the mail is delivered');
is(sql($node, 'SELECT text_body || html_body FROM partner_portal.notification'), "Hallo\n.\nhttps://x/*\n<p>Hällo https://x/*</p>", 'its token is blanked');
is(sql($node, 'SELECT count(*) FROM partner_portal.delivery_queue'), '0', 'the queue is empty');
my @mails = lines_of($mails);
is(scalar @mails, 1, 'one mail came');
is($mails[0]{from}, 'portal@portal.example', 'from the sender');
is_deeply($mails[0]{to}, ['ann@customer.example'], 'to the recipient');
my $mail = decode_base64($mails[0]{mail});
like($mail, qr/^Message-ID: <[0-9a-f-]{36}\@portal\.example>\r\n/m, 'with a Message-ID');
like($mail, qr/\r\n\.\r\n/, 'with its lone dot');
unlike($mail, qr/[^\r]\n/, 'without a bare line feed');
unlike($mail, qr/[^\x00-\x7f]/, 'in 7 bits');

# A webhook
my $secret = sql($node, qq{SELECT secret FROM partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/hook', '{key.activated}')});
like($secret, qr/^whsec_[A-Za-z0-9+\/]{43}=$/, 'an endpoint has a secret');
is(sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'key.activated', '{"key_id": 7}', 'k7')}), '1', 'an event is owed');
is(sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'key.disabled', '{"key_id": 7}', 'k7')}), '0', 'another is not');
sql($node, 'CALL partner_portal.deliver_notifications()');
is(sql($node, q{SELECT state, attempts, last_code FROM partner_portal.notification WHERE kind = 'webhook.key.activated'}), 'delivered|1|204', 'the event is delivered');
my @requests = lines_of($requests);
is(scalar @requests, 1, 'one request came');
my $headers = $requests[0]{headers};
my $body = decode_base64($requests[0]{body});
is($requests[0]{path}, '/hook', 'at its path');
is($headers->{'content-type'}, 'application/json', 'as JSON');
like($body, qr/^\{"type":"key.activated","timestamp":"[-0-9T:.]+Z","data":\{"key_id": 7, "workspace_id": 1\}\}$/, 'with type, timestamp and data');
my $signed = "$headers->{'webhook-id'}.$headers->{'webhook-timestamp'}.$body";
is($headers->{'webhook-signature'}, 'v1,' . encode_base64(hmac_sha256($signed, decode_base64(substr($secret, 6))), ''), 'signed as Standard Webhooks');
cmp_ok(abs($headers->{'webhook-timestamp'} - time()), '<', 60, 'at the time of the attempt');

# Rotation: both secrets sign
my $second = sql($node, 'SELECT partner_portal.rotate_webhook_secret(1)');
isnt($second, $secret, 'a rotated secret is another');
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'key.activated', '{}', 'k8')});
sql($node, 'CALL partner_portal.deliver_notifications()');
@requests = lines_of($requests);
$headers = $requests[1]{headers};
$body = decode_base64($requests[1]{body});
$signed = "$headers->{'webhook-id'}.$headers->{'webhook-timestamp'}.$body";
is($headers->{'webhook-signature'},
	join(' ', map { 'v1,' . encode_base64(hmac_sha256($signed, decode_base64(substr($_, 6))), '') } $second, $secret),
	'while it is rotated both sign');

my ($rc, $out, $err) = $node->psql('postgres', 'BEGIN; CALL partner_portal.deliver_notifications(); COMMIT');
like($err, qr/cannot run inside a transaction block/, 'not in a transaction block');

$node->stop;
done_testing();
