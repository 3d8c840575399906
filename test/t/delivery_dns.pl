# delivery_dns.pl: a resolver that hangs, is slow, knows nothing, or tells another address each time (src/delivery_request.c).
# It runs in namespaces of its own, with a name server of the test's at port 53 and a resolv.conf that names it. Where the kernel lets
# nobody make them, or with NO_NAMESPACES=1, the server has a getaddrinfo() preloaded that asks the name server at a port of its own.
# packages: util-linux iproute2

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Test::More;

# Before the test's own set-up takes over the output.
BEGIN
{
	if (!$ENV{IN_NAMESPACES} && !$ENV{NO_NAMESPACES})
	{
		require File::Temp;
		my $dir = File::Temp::tempdir();
		open(my $resolv, '>', "$dir/resolv.conf") or die $!;
		print $resolv "nameserver 127.0.0.1\noptions timeout:20 attempts:1\n";
		close $resolv;
		open(my $hosts, '>', "$dir/hosts") or die $!;
		print $hosts "127.0.0.1 localhost\n";
		close $hosts;
		# The outer one's root may mount and listen at port 53; it is the user itself again in an inner one, since root may not start a server.
		my $inside = "ip link set lo up && mount --bind $dir/resolv.conf /etc/resolv.conf && mount --bind $dir/hosts /etc/hosts";
		if (system("unshare --user --map-root-user --mount --net sh -c '$inside' >/dev/null 2>&1") != 0)
		{
			$ENV{NO_NAMESPACES} = 1;
			exec($^X, $0) or die $!;
		}
		my ($gid) = split(/ /, $();
		my $script = "$inside && { python3 '$FindBin::Bin/../peer/dns_peer.py' $dir/port $dir/log & } && until [ -e $dir/port ]; do sleep 0.05; done && "
		  . "IN_NAMESPACES=$dir/log unshare --user --map-user=$< --map-group=$gid perl '$0'; status=\$?; kill \$!; exit \$status";
		exec('unshare', '--user', '--map-root-user', '--mount', '--net', 'sh', '-c', $script) or die $!;
	}
}

use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time);

my $questions = $ENV{IN_NAMESPACES};
if (!$questions)
{
	my $resolver = PostgreSQL::Test::Utils::tempdir() . '/resolver.so';
	system_log('gcc', '-shared', '-fPIC', '-o', $resolver, "$FindBin::Bin/../peer/resolver.c", '-lresolv', '-ldl') == 0 or BAIL_OUT('resolver.c cannot be built');
	($ENV{RESOLVER_PORT}, $questions) = start_peer('dns_peer.py', '127.0.0.1', 0);
	$ENV{LD_PRELOAD} = join(' ', grep { $_ } $ENV{LD_PRELOAD}, $resolver);
}

my ($http, $requests) = start_peer('http_peer.py');
my $node = server('delivery_dns', "shared_preload_libraries = 'partner_portal'", "partner_portal.databases = ''",
	'partner_portal.delivery_timeout = 2s', "partner_portal.allow_cidr = '127.0.0.1:$http'");
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');

sub came { return scalar grep { $_->{path} eq $_[0] } lines_of($requests) }
sub named { return scalar grep { $_->{name} =~ $_[0] } lines_of($questions) }

# One call: those that resolve are delivered, those that hang time out by themselves
my %peer;
$peer{$_} = owe($node, "http://$_.example:$http/ok") foreach ('hang', 'slow', 'none', 'here');
my $start = time();
deliver($node);
cmp_ok(time() - $start, '<', 5, 'a call is not held up longer than one timeout');
ok(named(qr/^hang/) > 0, 'the name server was asked');
like(fate($node, $peer{hang}), qr/^pending\|1\|0\|.*(Timeout|resolve)/, 'a name that is not answered is tried again');
is(fate($node, $peer{slow}), 'delivered|1|204|', 'one that is answered late is delivered');
is(fate($node, $peer{here}), 'delivered|1|204|', 'so is one that is answered at once');
like(fate($node, $peer{none}), qr/^pending\|1\|0\|.*resolve/, 'a name that does not exist is tried again');

# Who calls may cancel while a name hangs
sql($node, "UPDATE partner_portal.delivery_queue SET next_attempt_at = now() WHERE destination = $peer{hang}");
$start = time();
my (undef, undef, $error) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nSET statement_timeout = '300ms';\nCALL partner_portal.deliver_notifications()");
like($error, qr/57014/, 'a call can be cancelled while a name hangs');
cmp_ok(time() - $start, '<', 1.5, 'at once');

# A name that is public for us to look at, and private to connect to: the address that is connected to decides
my @inside = map { owe($node, "https://inside$_.example:" . ($http + 1) . '/') } 1 .. 6;
deliver($node);
is(join(' ', map { fate($node, $_) =~ /^pending\|1\|0\|the address is not allowed/ ? 'blocked' : fate($node, $_) } @inside),
	'blocked blocked blocked blocked blocked blocked', 'a name of private addresses is not connected to');

# The worker: two hundred names that hang, and others are served meanwhile
sql($node, q{DELETE FROM partner_portal.notification; UPDATE partner_portal.webhook_endpoint SET events = '{none}'});
sql($node, "SELECT endpoint_id FROM partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/good', '{good}')");
sql($node, "INSERT INTO partner_portal.webhook_endpoint (workspace_id, partner_key, url, events, key_version)
	SELECT 1, 0, 'http://hang' || i || '.example:$http/hang', '{hang}', 1 FROM generate_series(1, 200) i;
	INSERT INTO partner_portal.delivery_destination (destination) SELECT endpoint_id FROM partner_portal.webhook_endpoint ON CONFLICT DO NOTHING;");
configure($node, "partner_portal.databases = 'postgres'");
ok(wait_for(sub { sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'partner_portal webhooks'}) == 1 }, 'the worker'), 'a worker comes');
my $asked = named(qr/^hang\d/);
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'hang', '{}', 'h')});
ok(wait_for(sub { named(qr/^hang\d/) > $asked }, 'questions'), 'names are being asked for');
$start = time();
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'good', '{}', 'g' || i) FROM generate_series(1, 4) i});
ok(wait_for(sub { came('/good') == 4 }, 'the good ones'), 'others are delivered while they hang');
cmp_ok(time() - $start, '<', 10, 'after as many timeouts as it takes to come to them');
ok(wait_for(sub { sql($node, q{SELECT count(*) FROM partner_portal.delivery_attempt WHERE outcome = 'retry'}) >= 200 }, 'all to have failed'), 'those that hang are tried again');
is(sql($node, q{SELECT count(*) FROM partner_portal.notification n WHERE n.kind = 'webhook.hang' AND (n.state, n.attempts) IS DISTINCT FROM
	('pending', (SELECT count(*) FROM partner_portal.delivery_attempt a WHERE a.notification_id = n.notification_id AND a.outcome = 'retry'))}), '0', 'each time counts as an attempt');

# A relay whose name hangs: mail waits and webhooks do not
configure($node, "partner_portal.smtp_url = 'smtp://hangmail.example:25'");
sql($node, q{SELECT partner_portal.enqueue_mail(1, 'test', 'm', 'ann@peer.example', 'en', ROW('s', 't', NULL))});
ok(wait_for(sub { named(qr/^hangmail/) > 0 }, 'the relay to be asked for'), 'the relay is asked for');
$start = time();
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'good', '{}', 'beside' || i) FROM generate_series(1, 4) i});
ok(wait_for(sub { came('/good') == 8 }, 'the good ones'), 'webhooks are delivered while it hangs');
cmp_ok(time() - $start, '<', 2, 'at once');
ok(wait_for(sub { sql($node, 'SELECT failing_since IS NOT NULL FROM partner_portal.delivery_destination WHERE destination = 0') eq 't' }, 'the relay to have failed'), 'the relay is given up for now');
is(sql($node, q{SELECT state, attempts FROM partner_portal.notification WHERE kind = 'test'}), 'pending|0', 'which costs the mail no attempt');

# Shutdown does not wait for a resolver
$asked = named(qr/^hang\d/);
sql($node, q{UPDATE partner_portal.delivery_queue SET next_attempt_at = now() WHERE destination <> 0; UPDATE partner_portal.delivery_destination SET hold_until = NULL});
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'good', '{}', 'wake')});
ok(wait_for(sub { named(qr/^hang\d/) > $asked }, 'questions again'), 'names are being asked for again');
$start = time();
$node->stop('fast');
cmp_ok(time() - $start, '<', 3, 'fast shutdown does not wait for the resolver');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|signal 11|crash/, 'nothing crashed');
done_testing();
