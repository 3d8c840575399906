# delivery_relay.pl: what a relay may do to a mail, and faults of the relay or of our settings, which cost no mail anything.
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

my $dir = certificates('localhost');
my @tls = ("$dir/localhost.pem", "$dir/localhost.key");
my $node = server('delivery_relay', 'partner_portal.delivery_timeout = 2s', "partner_portal.allow_cidr = ''");
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');

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
my $silent;
$node->psql('postgres', 'CALL partner_portal.deliver_notifications()', stderr => \$silent);
is($silent, '', 'without a relay there is nothing to say while no mail is due');
mail($_) foreach ('fine', 'rcpt450', 'rcpt421', 'rcpt550', 'data450', 'data421', 'data550', 'drop', 'hang');
my $said;
$node->psql('postgres', 'CALL partner_portal.deliver_notifications()', stderr => \$said);
is(mail_fate('fine'), 'pending|0|0|', 'without a relay mail waits');
like($said, qr/WARNING:  mail waits: partner_portal.smtp_url is not set/, 'and a call says so');
relay("smtp://127.0.0.1:$smtp");
deliver($node);
is(mail_fate('fine'), 'delivered|1|250|', 'a mail is delivered');
is(mail_fate('rcpt450'), 'pending|1|450|SMTP reply 450', '450 to RCPT is tried again');
is(mail_fate('rcpt421'), 'pending|1|421|SMTP reply 421', 'so is 421');
is(mail_fate('data421'), 'pending|1|421|SMTP reply 421 to DATA', 'to either');
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
deliver($node);
my @drops = map { decode_base64($_->{mail}) } grep { $_->{to}[0] =~ /^drop/ } lines_of($mails);
is(scalar @drops, 2, 'the ambiguous one came twice');
is($drops[1], $drops[0], 'with the same bytes');

# No relay, no STARTTLS, bad certificate, bad password: the relay waits, the mail loses nothing
sub config_fault
{
	my ($what, $error) = @_;
	sql($node, "DELETE FROM partner_portal.notification WHERE recipient LIKE 'config%'");
	mail('config');
	deliver($node);
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
deliver($node);
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
deliver($node);
is(mail_fate('config'), 'delivered|1|250|', 'smtps is delivered');
is(scalar lines_of($by_implicit), 1, 'by TLS');

unlike(slurp_file($node->logfile), qr/TRAP|PANIC|signal 11|crash/, 'nothing crashed');
$node->stop;
done_testing();
