# delivery_record.pl: a worker that cannot write down what it has sent (a full disk, a lock, an error) neither loses it nor sends it
# again, and goes on when it can (src/delivery_engine.c).

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($http, $requests) = start_peer('http_peer.py');
my $node = server('delivery_record', "shared_preload_libraries = 'partner_portal'", "partner_portal.databases = 'postgres'", "partner_portal.allow_cidr = '127.0.0.1:$http'");
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/1', '{test1}')");

sub event { return sql($node, "SELECT partner_portal.enqueue_webhook_event(1, 'test$_[0]', '{}', '$_[1]' || i) FROM generate_series(1, 5) i") }
sub came { return scalar grep { $_->{path} eq "/$_[0]" } lines_of($requests) }
sub pending { return sql($node, 'SELECT count(*) FROM partner_portal.delivery_queue') }
my $worker = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'partner_portal webhooks'};
ok(wait_for(sub { sql($node, $worker) ne '' }, 'the worker'), 'a worker comes');
my $pid = sql($node, $worker);

# An error, as of a full disk
sql($node, q{CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'no space left'; END $$;
	CREATE TRIGGER disk_full BEFORE UPDATE ON partner_portal.notification FOR EACH STATEMENT EXECUTE FUNCTION disk_full()});
event(1, 'full');
ok(wait_for(sub { came(1) >= 4 && slurp_file($node->logfile) =~ /no space left/ }, 'the error'), 'sent, it cannot be recorded');
is(pending(), 5, 'so it is still owed');
sql($node, 'DROP TRIGGER disk_full ON partner_portal.notification');
ok(wait_for(sub { pending() == 0 }, 'the record'), 'when it can be, it is');
is(came(1), 5, 'each came once');
is(sql($node, q{SELECT state, attempts, count(*) FROM partner_portal.notification GROUP BY 1, 2}), 'delivered|1|5', 'and counts once');

# A lock, taken while they are under way and held for longer than the worker waits
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/slow/1', '{test2}')");
event(2, 'lock');
ok(wait_for(sub { came('slow/1') == 4 }, 'them to be under way'), 'four are under way');
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE partner_portal.notification IN SHARE MODE');
ok(wait_for(sub { slurp_file($node->logfile) =~ /canceling statement due to lock timeout/ }, 'the lock to be felt'), 'a lock is waited for, and not for ever');
$holder->query_safe('COMMIT');
$holder->quit;
ok(wait_for(sub { pending() == 0 }, 'the rest'), 'then they are recorded, and the rest sent');
is(came('slow/1'), 5, 'each came once');
is(sql($node, q{SELECT count(*) FROM partner_portal.notification WHERE state <> 'delivered' OR attempts <> 1}), '0', 'and counts once');

# One whose record fails each time: it is set aside, and the others are recorded and sent meanwhile
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/2', '{test3}')");
sql($node, q{CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.dedupe_key ~ '^poison2' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$;
	CREATE TRIGGER refuse BEFORE UPDATE ON partner_portal.notification FOR EACH ROW EXECUTE FUNCTION refuse()});
sub of { return sql($node, "SELECT string_agg(concat_ws(' ', split_part(dedupe_key, ':', 1), state, attempts), ', ' ORDER BY dedupe_key) FROM partner_portal.notification WHERE dedupe_key LIKE '$_[0]%'") }
event(3, 'poison');
ok(wait_for(sub { pending() == 1 }, 'the others'), 'of five messages one cannot be recorded');
event(3, 'after');
ok(wait_for(sub { pending() == 1 }, 'those after it'), 'the worker goes on');
is(of('poison'), 'poison1 delivered 1, poison2 pending 0, poison3 delivered 1, poison4 delivered 1, poison5 delivered 1', 'the others of its batch are recorded');
like(slurp_file($node->logfile), qr/could not record how notification \d+ ended\n.*DETAIL:  not this one/, 'the log says which, and why');
sql($node, 'DROP TRIGGER refuse ON partner_portal.notification');
ok(wait_for(sub { pending() == 0 }, 'the record'), 'when it can be recorded, it is');
is(of('poison2'), 'poison2 delivered 1', 'as it ended');
is(came(2), 10, 'each came once');
is(sql($node, $worker), $pid, 'the worker lived through it');

# The same of failures, and by hand: the call goes on, and what it could not record is free for the next
sql($node, q{ALTER SYSTEM SET partner_portal.databases = ''});
$node->reload;
ok(wait_for(sub { sql($node, $worker) eq '' }, 'the worker to end'), 'the worker ends');
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/status/500', '{test4}')");
sql($node, q{CREATE TRIGGER refuse BEFORE UPDATE ON partner_portal.notification FOR EACH ROW EXECUTE FUNCTION refuse()});
event(3, 'poison-by-hand');
event(4, 'failing');
event(3, 'poison2-by-hand');
my $said;
$node->psql('postgres', 'CALL partner_portal.deliver_notifications()', stderr => \$said, on_error_stop => 0);
like($said, qr/WARNING:  could not record how notification \d+ ended\nDETAIL:  not this one/, 'a call warns');
unlike($said, qr/ERROR/, 'and does not fail');
is(of('poison2-by-hand'), join(', ', map { "poison2-by-hand$_ pending 0" } 1 .. 5), 'those that cannot be recorded are pending');
is(of('poison-by-hand'), join(', ', map { "poison-by-hand$_ delivered 1" } 1 .. 5), 'the others delivered');
like(of('failing'), qr/^failing1 pending 1, failing2 pending 1/, 'or to be tried again');
sql($node, 'DROP TRIGGER refuse ON partner_portal.notification');
$node->safe_psql('postgres', 'CALL partner_portal.deliver_notifications()');
is(of('poison2-by-hand'), join(', ', map { "poison2-by-hand$_ delivered 1" } 1 .. 5), 'which the next call sends again');

unlike(slurp_file($node->logfile), qr/TRAP|PANIC|signal 11|crash/, 'nothing crashed');

$node->stop;
done_testing();
