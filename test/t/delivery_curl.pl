# delivery_curl.pl (with delivery_pool, delivery_request, delivery_answer, delivery_relay, secrets): peers that fail in every way, addresses that must not be reached, TLS, and a relay's faults.
# packages: python3-aiosmtpd openssl

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

# certificates: an authority, one for localhost, one for another name
my $dir = PostgreSQL::Test::Utils::tempdir();
sub openssl { system_or_bail('openssl', @_) }
openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$dir/ca.key", '-out', "$dir/ca.pem", '-days', '30', '-subj', '/CN=test authority');
foreach my $name ('localhost', 'elsewhere.example')
{
	append_to_file("$dir/$name.ext", "subjectAltName=DNS:$name\n");
	openssl('req', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$dir/$name.key", '-out', "$dir/$name.csr", '-subj', "/CN=$name");
	openssl('x509', '-req', '-in', "$dir/$name.csr", '-CA', "$dir/ca.pem", '-CAkey', "$dir/ca.key", '-CAcreateserial', '-out', "$dir/$name.pem",
		'-days', '30', '-extfile', "$dir/$name.ext");
}
my @tls = ("$dir/localhost.pem", "$dir/localhost.key");

my ($http, $requests) = start_peer('http_peer.py');
my ($inside, $intrusions) = start_peer('http_peer.py');
my ($https, $secured) = start_peer('http_peer.py', @tls);
my ($wrong, $never) = start_peer('http_peer.py', "$dir/elsewhere.example.pem", "$dir/elsewhere.example.key");
# A proxy named by the environment must not be asked.
$ENV{$_} = 'http://127.0.0.1:9' foreach ('http_proxy', 'https_proxy', 'all_proxy', 'ALL_PROXY', 'HTTPS_PROXY');
my $node = server('delivery_curl', 'partner_portal.delivery_timeout = 2s',
	"partner_portal.allow_cidr = '127.0.0.1:$http, 127.0.0.1:$https, 127.0.0.1:$wrong, [::1]:$https, [::1]:$wrong'");
delete $ENV{$_} foreach ('http_proxy', 'https_proxy', 'all_proxy', 'ALL_PROXY', 'HTTPS_PROXY');
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');

my $next = 0;

# owe(url) owes one event to a new endpoint and returns the endpoint's id
sub owe
{
	my ($url) = @_;
	my $event = 'e' . ++$next;
	my $id = sql($node, "SELECT endpoint_id FROM partner_portal.create_webhook_endpoint(1, '$url', '{$event}')");
	sql($node, "SELECT partner_portal.enqueue_webhook_event(1, '$event', '{}', 'x')");
	return $id;
}

# fate(endpoint) is what became of its event
sub fate
{
	my ($id) = @_;
	return sql($node, "SELECT state, attempts, coalesce(last_code, 0), last_error FROM partner_portal.notification WHERE endpoint_id = $id");
}
sub deliver { sql($node, 'CALL partner_portal.deliver_notifications(1000)') }
sub memory { return sql($node, "SELECT pg_backend_pid()") }

# Answers
my %peer;
$peer{$_} = owe("http://127.0.0.1:$http/$_")
	foreach ('status/500', 'status/404', 'status/410', 'status/201', 'retry_after/120', 'reset/', 'close/', 'hang/', 'drip/', 'flood/200', 'flood/500', 'headers/', 'binary/',
	"redirect/127.0.0.1:$http/target", "redirect/127.0.0.1:$inside/target");
my $start = time();
deliver();
cmp_ok(time() - $start, '<', 6, 'the slowest peers take the timeout, all at once');
is(fate($peer{'status/201'}), 'delivered|1|201|', 'any 2xx is delivered');
is(fate($peer{'status/500'}), 'pending|1|500|HTTP status 500', '500 is tried again');
is(fate($peer{'status/404'}), 'pending|1|404|HTTP status 404', '404 is tried again');
is(fate($peer{'binary/'}), 'pending|1|500|HTTP status 500', 'an answer of any bytes is no harm');
is(fate($peer{'status/410'}), 'pending|0|410|HTTP status 410', '410 waits');
is(sql($node, "SELECT state, state_reason FROM partner_portal.webhook_endpoint WHERE endpoint_id = $peer{'status/410'}"), 'disabled|it answered 410 Gone', 'its endpoint is disabled');
is(fate($peer{'retry_after/120'}), 'pending|1|429|HTTP status 429', '429 is tried again');
is(sql($node, "SELECT hold_until - now() BETWEEN '100 s' AND '121 s', (SELECT next_attempt_at - now() > '100 s' FROM partner_portal.notification WHERE endpoint_id = $peer{'retry_after/120'})
	FROM partner_portal.delivery_destination WHERE destination = $peer{'retry_after/120'}"), 't|t', 'no earlier than it asked');
like(fate($peer{'reset/'}), qr/^pending\|1\|0\|/, 'a reset is tried again');
like(fate($peer{'close/'}), qr/^pending\|1\|0\|/, 'a close is tried again');
is(fate($peer{'hang/'}), 'pending|1|0|Timeout was reached', 'a hang ends');
like(fate($peer{'drip/'}), qr/^pending\|1\|(0|200)\|Timeout was reached/, 'a drip ends');
is(fate($peer{'flood/200'}), 'delivered|1|200|', 'a flood after 200 is cut and delivered');
like(fate($peer{'flood/500'}), qr/^pending\|1\|500\|/, 'a flood after 500 is cut and tried again');
like(fate($peer{'headers/'}), qr/^(delivered|pending)\|1\|/, 'a flood of headers is cut');
is(fate($peer{"redirect/127.0.0.1:$http/target"}), 'pending|1|302|HTTP status 302, redirects are not followed', 'a redirect is not followed');
is(fate($peer{"redirect/127.0.0.1:$inside/target"}), 'pending|1|302|HTTP status 302, redirects are not followed', 'nor one inside');
is(scalar(grep { $_->{path} eq '/target' } lines_of($requests)), 0, 'nobody came to its target');
is(scalar(grep { $_->{path} eq '/status/500' } lines_of($requests)), 1, 'one attempt at a time');
is(sql($node, "SELECT next_attempt_at - finished BETWEEN '3.5 s' AND '6.5 s' FROM (SELECT n.next_attempt_at, a.at AS finished FROM partner_portal.notification n
	JOIN partner_portal.delivery_attempt a USING (workspace_id, notification_id) WHERE n.endpoint_id = $peer{'status/500'}) x"), 't', 'the second attempt is due after about 5 s');

# The same id in the next attempt
sql($node, "UPDATE partner_portal.delivery_queue SET next_attempt_at = now() WHERE destination = $peer{'status/500'}");
deliver();
my @same = grep { $_->{path} eq '/status/500' } lines_of($requests);
is(scalar @same, 2, 'a second attempt');
is($same[1]{headers}{'webhook-id'}, $same[0]{headers}{'webhook-id'}, 'has the same id');
is($same[1]{body}, $same[0]{body}, 'and the same body');

# Ten attempts, then a dead letter, then by hand again
sql($node, "UPDATE partner_portal.notification SET attempts = 9 WHERE endpoint_id = $peer{'status/404'};
	UPDATE partner_portal.delivery_queue SET next_attempt_at = now() WHERE destination = $peer{'status/404'}");
deliver();
is(fate($peer{'status/404'}), 'dead|10|404|HTTP status 404', 'the tenth attempt is the last');
sql($node, "SELECT partner_portal.resend_notification(notification_id) FROM partner_portal.notification WHERE endpoint_id = $peer{'status/404'}");
deliver();
is(fate($peer{'status/404'}), 'pending|1|404|HTTP status 404', 'a dead letter can be sent again');
is(sql($node, 'SELECT count(*) FROM partner_portal.delivery_queue WHERE lease_token IS NOT NULL'), '0', 'nothing is left leased');

# Five days of failing disable an endpoint
sql($node, "UPDATE partner_portal.delivery_destination SET failing_since = now() - interval '6 days', hold_until = NULL WHERE destination = $peer{'status/500'};
	UPDATE partner_portal.delivery_queue SET next_attempt_at = now() WHERE destination = $peer{'status/500'}");
deliver();
is(sql($node, "SELECT state FROM partner_portal.webhook_endpoint WHERE endpoint_id = $peer{'status/500'}"), 'disabled', 'five days of failing disable an endpoint');

# Addresses that must not be reached: every spelling, in clear and by TLS
my @spellings = ('127.0.0.1', '2130706433', '0x7f.1', '0x7f000001', '127.1', '0', '0.0.0.0', '017700000001', '[::1]', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[0:0:0:0:0:0:0:1]', 'localhost', 'LOCALHOST');
my @blocked = map { ("http://$_:$inside/", "https://$_:$inside/") } @spellings;
my %blocked = map { $_ => owe($_) } @blocked;
$start = time();
deliver();
is(scalar(lines_of($intrusions)), 0, 'no request came inside');
my @other = grep { fate($blocked{$_}) !~ /^pending\|1\|0\|the address is not allowed/ } @blocked;
is("@other", '', 'every spelling of a private address is refused');
my $meta = owe('http://169.254.169.254/latest/meta-data/');
deliver();
is(fate($meta), 'pending|1|0|the address is not allowed in clear', 'nor the metadata service');
my $none = owe('https://nosuch.invalid/');
deliver();
like(fate($none), qr/^pending\|1\|0\|/, 'a name that does not resolve is tried again');
my $file = owe("http://127.0.0.1:$http/x?y=%0d%0aX-Injected:%201");
deliver();
like(fate($file), qr/^delivered/, 'an address may be encoded');
ok(!exists((lines_of($requests))[-1]{headers}{'x-injected'}), 'but injects no header');

# TLS
my $untrusted = owe("https://localhost:$https/untrusted");
deliver();
like(fate($untrusted), qr/^pending\|1\|0\|SSL/, 'an unknown authority is not trusted');
configure($node, "partner_portal.ca_file = '$dir/ca.pem'");
my $trusted = owe("https://localhost:$https/trusted");
my $misnamed = owe("https://localhost:$wrong/misnamed");
deliver();
is(fate($trusted), 'delivered|1|204|', 'a known one is');
like(fate($misnamed), qr/^pending\|1\|0\|SSL/, 'a certificate of another name is not');
is(scalar(lines_of($never)), 0, 'and nothing was sent there');

# Mail
my ($smtp, $mails) = start_peer('smtp_peer.py');
my ($starttls, $by_tls) = start_peer('smtp_peer.py', '--tls', @tls);
my ($login, $by_login) = start_peer('smtp_peer.py', '--tls', @tls, '--login', 'portal', 'right');
my ($implicit, $by_implicit) = start_peer('smtp_peer.py', '--tls', @tls, '--implicit');

# mail(local part) owes a mail
sub mail
{
	my ($local) = @_;
	sql($node, "SELECT partner_portal.enqueue_mail(1, 'test', '$local' || clock_timestamp(), '$local\@peer.example', 'en', ROW('Subject', 'Text of $local', NULL), secret => 'Text of $local, padded to be long enough')");
	return;
}
sub relay { configure($node, "partner_portal.smtp_url = '$_[0]'"); sql($node, 'UPDATE partner_portal.delivery_destination SET hold_until = NULL'); return }
sub mail_fate { return sql($node, "SELECT state, attempts, coalesce(last_code, 0), last_error FROM partner_portal.notification WHERE recipient = '$_[0]\@peer.example'") }

configure($node, "partner_portal.allow_cidr = '127.0.0.1:$smtp'");
mail($_) foreach ('fine', 'rcpt450', 'rcpt550', 'data450', 'data550', 'drop', 'hang');
deliver();
is(mail_fate('fine'), 'pending|0|0|', 'without a relay mail waits');
relay("smtp://127.0.0.1:$smtp");
deliver();
is(mail_fate('fine'), 'delivered|1|250|', 'a mail is delivered');
is(mail_fate('rcpt450'), 'pending|1|450|SMTP reply 450', '450 to RCPT is tried again');
is(mail_fate('rcpt550'), 'refused|1|550|SMTP reply 550', '550 to RCPT is final');
is(mail_fate('data450'), 'pending|1|450|SMTP reply 450 to DATA', '450 to DATA is tried again');
is(mail_fate('data550'), 'refused|1|550|SMTP reply 550 to DATA', '550 to DATA is final');
like(mail_fate('drop'), qr/^pending\|1\|354\|/, 'a drop after DATA is ambiguous and tried again');
like(mail_fate('hang'), qr/^pending\|1\|354\|Timeout/, 'so is a hang after DATA');
is(sql($node, q{SELECT string_agg(DISTINCT outcome, ',' ORDER BY outcome) FROM partner_portal.delivery_attempt a JOIN partner_portal.notification n USING (workspace_id, notification_id)
	WHERE n.recipient IN ('drop@peer.example', 'hang@peer.example')}), 'ambiguous', 'and is recorded so');
is(sql($node, q{SELECT secret = '' FROM partner_portal.notification WHERE recipient = 'rcpt550@peer.example'}), 't', 'the token of a refused mail is blanked');
sql($node, q{UPDATE partner_portal.delivery_queue q SET next_attempt_at = now() FROM partner_portal.notification n
	WHERE n.notification_id = q.notification_id AND n.recipient = 'drop@peer.example'});
deliver();
my @drops = map { decode_base64($_->{mail}) } grep { $_->{to}[0] =~ /^drop/ } lines_of($mails);
is(scalar @drops, 2, 'the ambiguous one came twice');
is($drops[1], $drops[0], 'with the same bytes');

# No relay, no STARTTLS, bad certificate, bad password: the relay waits, the mail loses nothing
sub config_fault
{
	my ($what, $error) = @_;
	sql($node, "DELETE FROM partner_portal.notification WHERE recipient LIKE 'config%'");
	mail('config');
	deliver();
	like(mail_fate('config'), $error, "$what: the mail waits, no attempt is counted");
	is(sql($node, 'SELECT hold_until > now() AND failing_since IS NOT NULL FROM partner_portal.delivery_destination WHERE destination = 0'), 't', "$what: the relay is left alone");
	return;
}
sql($node, "DELETE FROM partner_portal.notification WHERE state = 'pending' AND recipient IS NOT NULL");
relay('smtp://127.0.0.1:9');
config_fault('no relay', qr/^pending\|0\|0\|/);
configure($node, "partner_portal.allow_cidr = ''");
relay("smtp://127.0.0.1:$smtp");
my $before = scalar lines_of($mails);
config_fault('no STARTTLS', qr/^pending\|0\|\d+\|/);
is(scalar lines_of($mails), $before, 'and nothing is sent in clear');
configure($node, "partner_portal.ca_file = ''");
relay("smtp://localhost:$starttls");
config_fault('unknown authority', qr/^pending\|0\|\d+\|/);
configure($node, "partner_portal.ca_file = '$dir/ca.pem'");
relay("smtp://127.0.0.1:$starttls");
config_fault('wrong name', qr/^pending\|0\|\d+\|/);
relay("smtp://localhost:$login");
config_fault('no password', qr/^pending\|0\|\d+\|/);
append_to_file($node->data_dir . '/secrets', "machine localhost login portal password wrong\n");
relay("smtp://localhost:$login");
config_fault('wrong password', qr/^pending\|0\|\d+\|/);
system_or_bail('sed', '-i', 's/wrong/right/', $node->data_dir . '/secrets');
chmod 0600, $node->data_dir . '/secrets';
relay("smtp://localhost:$login");
deliver();
is(mail_fate('config'), 'delivered|1|250|', 'with the right password it is delivered');
is_deeply([ map { [ $_->{tls} ? 1 : 0, $_->{user} ] } lines_of($by_login) ], [ [ 1, 'portal' ] ], 'by TLS, logged in');
configure($node, "partner_portal.allow_cidr = '127.0.0.1:$smtp'");
relay("smtp://127.0.0.1:$smtp");
append_to_file($node->data_dir . '/secrets', "machine 127.0.0.1 login portal password right\n");
$before = scalar lines_of($mails);
config_fault('a password in clear', qr/^pending\|0\|\d+\|/);
is(scalar lines_of($mails), $before, 'is never sent');
relay("smtps://localhost:$implicit");
system_or_bail('sed', '-i', '/^machine/d', $node->data_dir . '/secrets');
chmod 0600, $node->data_dir . '/secrets';
deliver();
is(mail_fate('config'), 'delivered|1|250|', 'smtps is delivered');
is(scalar lines_of($by_implicit), 1, 'by TLS');

unlike(slurp_file($node->logfile), qr/TRAP|PANIC|signal 11|crash/, 'nothing crashed');
$node->stop;
done_testing();
