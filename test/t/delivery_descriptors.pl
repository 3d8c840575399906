# delivery_descriptors.pl: a server process that runs out of file descriptors: nothing fails for that, and all is delivered once
# (src/delivery_curl.c, src/delivery_answer.c).
# packages: util-linux openssl python3-aiosmtpd

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = certificates('localhost');
my ($http, $requests) = start_peer('http_peer.py');
my ($https, $secured) = start_peer('http_peer.py', "$dir/localhost.pem", "$dir/localhost.key");
my ($smtp, $mails) = start_peer('smtp_peer.py', '--tls', "$dir/localhost.pem", "$dir/localhost.key");
my $node = server('delivery_descriptors', "shared_preload_libraries = 'partner_portal'", "partner_portal.databases = ''", "partner_portal.ca_file = '$dir/ca.pem'",
	"partner_portal.smtp_url = 'smtp://localhost:$smtp'", "partner_portal.allow_cidr = '127.0.0.1:$http, 127.0.0.1:$https, [::1]:$https'");
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');
# slow peers, so that many are under way at once; by number, and by name with certificates
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, CASE WHEN i % 2 = 0 THEN 'https://localhost:$https' ELSE 'http://127.0.0.1:$http' END || '/slow/0.2', '{test}')
	FROM generate_series(1, 60) i");

# owe_all(key) owes an event to each endpoint, and three mails
sub owe_all
{
	my ($key) = @_;
	sql($node, "SELECT partner_portal.enqueue_webhook_event(1, 'test', '{}', '$key');
		SELECT count(partner_portal.enqueue_mail(1, 'test', '$key' || i, 'ann\@peer.example', 'en', ROW('s', 't', NULL))) FROM generate_series(1, 3) i");
	return;
}

# descriptors(pid) counts those that are open, and limit(pid, most) sets how many may be
sub descriptors { my @open = glob("/proc/$_[0]/fd/*"); return scalar @open }

sub limit
{
	my ($pid, $most) = @_;
	system_or_bail('prlimit', "--pid=$pid", "--nofile=$most:4096") if -e "/proc/$pid";
	return;
}

sub open_left { return sql($node, 'SELECT count(*) FROM partner_portal.delivery_queue') }

# A session: with few, with fewer, with none at all
owe_all('session');
my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
# what reports a failure is loaded by now, as in a session that has been at it for a while
$session->query_safe('DO $$ BEGIN END $$');
# the soft limit alone is changed, so that it can be raised again
foreach my $spare (24, 12, 6, 3, 0)
{
	sql($node, 'UPDATE partner_portal.delivery_queue SET next_attempt_at = now(); UPDATE partner_portal.delivery_destination SET hold_until = NULL');
	limit($pid, descriptors($pid) + $spare);
	$session->query('CALL partner_portal.deliver_notifications(100)');
	limit($pid, 1024);
	note("with $spare to spare: " . open_left() . ' are left');
}
is(sql($node, q{SELECT count(*) FROM partner_portal.notification WHERE state NOT IN ('pending', 'delivered') OR (state = 'pending' AND attempts > 0)}), '0', 'nothing has failed');
# what a call could not even record is free again, too
like(sql($node, q{SELECT string_agg(DISTINCT outcome, ',' ORDER BY outcome) FROM partner_portal.delivery_attempt a JOIN partner_portal.notification n USING (workspace_id, notification_id)
	WHERE n.endpoint_id IS NOT NULL}), qr/^aborted(,lost)?$/, 'attempts were given up for want of descriptors');
is($session->query('SELECT 1'), '1', 'the session lives');
is(sql($node, q{SELECT count(*) FROM partner_portal.delivery_queue WHERE lease_token IS NOT NULL}), '0', 'and holds nothing back');
ok(wait_for(sub { $session->query('CALL partner_portal.deliver_notifications(100)'); sql($node, 'UPDATE partner_portal.delivery_destination SET hold_until = NULL'); open_left() == 0 }, 'the rest'),
	'with descriptors again all is delivered');
$session->quit;

# The worker
configure($node, "partner_portal.databases = 'postgres'");
ok(wait_for(sub { sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'partner_portal %s' OR backend_type = 'partner_portal mail'}) == 2 }, 'the workers'), 'workers come');
my @workers = split(/\n/, sql($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type IN ('partner_portal webhooks', 'partner_portal mail')}));
# five, or none: the server's own files may take them
limit($_, descriptors($_) + 5) foreach @workers;
owe_all('worker');
ok(wait_for(sub { sql($node, q{SELECT count(*) FROM partner_portal.delivery_attempt a JOIN partner_portal.notification n USING (workspace_id, notification_id)
	WHERE n.dedupe_key LIKE 'worker%' AND a.outcome = 'aborted'}) > 0 }, 'some to be given up'), 'it runs out of them');
limit($_, 1024) foreach @workers;
owe_all('after');
ok(wait_for(sub { sql($node, 'UPDATE partner_portal.delivery_destination SET hold_until = NULL WHERE hold_until IS NOT NULL'); open_left() == 0 }, 'all of it'), 'with descriptors again it delivers all');
is(sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE pid IN (} . join(',', @workers) . ')'), '2', 'by the same processes');

is(sql($node, q{SELECT state, attempts, count(*) FROM partner_portal.notification GROUP BY 1, 2}), 'delivered|1|189', 'each took one attempt that counts');
my %seen;
$seen{ $_->{headers}{'webhook-id'} }++ foreach lines_of($requests), lines_of($secured);
is(join(' ', scalar(keys %seen), scalar(grep { $_ > 1 } values %seen)), '180 0', 'each event came once');
is(scalar lines_of($mails), 9, 'each mail came once');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|signal 11|crash/, 'nothing crashed');
$node->stop;
done_testing();
