# worker.pl: the background worker delivers at commit, goes when it must, and comes back.
# packages: python3-aiosmtpd

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my ($http, $requests) = start_peer('http_peer.py');
my $node = server('worker', "shared_preload_libraries = 'partner_portal'", "partner_portal.databases = 'postgres, other, absent'",
	"partner_portal.allow_cidr = '127.0.0.1:$http'", 'max_prepared_transactions = 5');

# workers() counts the workers of a database
sub workers
{
	my ($database) = @_;
	return sql($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'partner_portal webhooks' AND datname = '$database'");
}

# event(key, path) owes an event to the endpoint of a path and returns nothing
sub event
{
	my ($key, $count) = @_;
	return sql($node, "SELECT partner_portal.enqueue_webhook_event(1, 'test', '{}', '$key' || i) FROM generate_series(1, " . ($count // 1) . ') i');
}

sub came { return scalar grep { $_->{path} eq $_[0] } lines_of($requests) }

sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/ok', '{test}')");
ok(wait_for(sub { workers('postgres') == 1 }, 'the worker comes'), 'a worker comes when the extension is there');

my $start = time();
event('first');
ok(wait_for(sub { came('/ok') == 1 }, 'the event'), 'an event is delivered');
cmp_ok(time() - $start, '<', 0.9, 'at commit, not at the next look');

# transactions
sql($node, q{BEGIN; SELECT partner_portal.enqueue_webhook_event(1, 'test', '{}', 'undone'); ROLLBACK});
sql($node, q{BEGIN; SELECT partner_portal.enqueue_webhook_event(1, 'test', '{}', 'kept'); SAVEPOINT s;
	SELECT partner_portal.enqueue_webhook_event(1, 'test', '{}', 'undone too'); ROLLBACK TO s; COMMIT});
ok(wait_for(sub { came('/ok') == 2 }, 'the kept one'), 'what is kept is delivered');
sql($node, q{BEGIN; SELECT partner_portal.enqueue_webhook_event(1, 'test', '{}', 'prepared'); PREPARE TRANSACTION 'p'});
sql($node, q{COMMIT PREPARED 'p'});
ok(wait_for(sub { came('/ok') == 3 }, 'the prepared one'), 'a prepared one when it is committed');
is(sql($node, 'SELECT count(*), count(*) FILTER (WHERE state = $$delivered$$) FROM partner_portal.notification'), '3|3', 'what is rolled back is not');

# a hung peer holds up nobody
my $hung = sql($node, "SELECT endpoint_id FROM partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/hang', '{hang}')");
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'hang', '{}', 'hang' || i) FROM generate_series(1, 10) i});
ok(wait_for(sub { came('/hang') == 4 }, 'the hung ones'), 'four at once go to one endpoint');
$start = time();
event('beside', 10);
ok(wait_for(sub { came('/ok') == 13 }, 'ten more'), 'others are delivered meanwhile');
cmp_ok(time() - $start, '<', 2, 'at once');
is(sql($node, q{SELECT backend_xid IS NULL AND backend_xmin IS NULL AND xact_start IS NULL FROM pg_stat_activity WHERE backend_type = 'partner_portal webhooks'}),
	't', 'no transaction is open while it waits');

# DROP EXTENSION, DROP DATABASE and shutdown do not wait for it
$start = time();
sql($node, 'SET partner_portal.allow_drop = on; DROP EXTENSION partner_portal');
cmp_ok(time() - $start, '<', 2, 'DROP EXTENSION does not wait');
ok(wait_for(sub { workers('postgres') == 0 }, 'the worker leaves'), 'the worker leaves');
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');
ok(wait_for(sub { workers('postgres') == 1 }, 'the worker is back'), 'and comes back with the extension');
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/again', '{test}')");
event('again');
ok(wait_for(sub { came('/again') == 1 }, 'the event after'), 'and delivers');

sql($node, 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION partner_portal');
ok(wait_for(sub { workers('other') == 1 }, 'the other worker'), 'a new database gets its worker');
$start = time();
sql($node, 'CREATE DATABASE copy TEMPLATE other');
cmp_ok(time() - $start, '<', 6, 'CREATE DATABASE from it succeeds');
ok(wait_for(sub { workers('other') == 1 }, 'the other worker again'), 'its worker comes back');
sql($node, 'ALTER DATABASE other RENAME TO elsewhere');
is(workers('elsewhere'), 0, 'ALTER DATABASE RENAME succeeds');
sql($node, 'ALTER DATABASE elsewhere RENAME TO other');
ok(wait_for(sub { workers('other') == 1 }, 'the other worker'), 'its worker comes back');
$start = time();
sql($node, 'DROP DATABASE other');
cmp_ok(time() - $start, '<', 6, 'DROP DATABASE succeeds');
like($node->safe_psql('copy', 'SELECT partner_portal.delivery_home_problem()'), qr/copy/, 'a copied database knows that it is one');

# it comes back when it is terminated, stays away when it is told to
sql($node, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'partner_portal webhooks'});
ok(wait_for(sub { workers('postgres') == 1 }, 'the worker again'), 'a terminated worker comes back');
configure($node, 'partner_portal.enabled = off');
ok(wait_for(sub { workers('postgres') == 0 }, 'the worker leaves'), 'disabled, it leaves');
event('silent');
my ($rc, $out, $err) = $node->psql('postgres', 'CALL partner_portal.deliver_notifications()');
like($err, qr/partner_portal.enabled is off/, 'nor does the procedure deliver');
configure($node, 'partner_portal.enabled = on');
ok(wait_for(sub { came('/again') == 2 }, 'the event that waited'), 'enabled, it delivers what waited');

# fast shutdown with a hung peer
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/hang', '{hang}')");
my $before = came('/hang');
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'hang', '{}', 'hang')});
ok(wait_for(sub { came('/hang') == $before + 1 }, 'the hung one'), 'a peer hangs');
$start = time();
$node->stop('fast');
cmp_ok(time() - $start, '<', 2.5, 'fast shutdown does not wait for it');
$node->start;
ok(wait_for(sub { came('/hang') == $before + 2 }, 'again', 20), 'its message is sent again, before anybody has connected');
is(sql($node, q{SELECT state, attempts FROM partner_portal.notification WHERE kind = 'webhook.hang'}), 'pending|0', 'no attempt was counted');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|signal 11|crash|cannot read pg_class/, 'nothing crashed');

$node->stop;
done_testing();
