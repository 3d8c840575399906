# delivery_claim.pl: what others do to messages while they are claimed and under way (src/delivery_claim.c, src/delivery_record.c): rows that
# move, change, are locked, go or are leased elsewhere, and triggers of somebody's own.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($http, $requests) = start_peer('http_peer.py');
my $node = server('delivery_claim', "shared_preload_libraries = 'partner_portal'", "partner_portal.databases = 'postgres'", "partner_portal.allow_cidr = '127.0.0.1:$http'");
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/slow/2', '{slow}')");
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/1', '{fast}')");

sub came { return scalar grep { $_->{path} eq "/$_[0]" } lines_of($requests) }
sub pending { return sql($node, 'SELECT count(*) FROM partner_portal.delivery_queue') }

# under_way(key) owes four messages to the slow endpoint and waits for them to have arrived there; they are answered two seconds later
sub under_way
{
	my $before = came('slow/2');
	sql($node, "SELECT partner_portal.enqueue_webhook_event(1, 'slow', '{}', '$_[0]' || i) FROM generate_series(1, 4) i");
	return wait_for(sub { came('slow/2') == $before + 4 }, "$_[0] to be under way");
}

# what became of the messages of a key
sub outcome { return sql($node, "SELECT state, attempts, last_code, count(*) FROM partner_portal.notification WHERE dedupe_key LIKE '$_[0]%' GROUP BY 1, 2, 3") }

# Rows that move: the places that the claim remembers hold other rows then, or none
sql($node, "SELECT partner_portal.enqueue_webhook_event(1, 'fast', '{}', 'before' || i) FROM generate_series(1, 200) i");
ok(wait_for(sub { pending() == 0 }, 'the first ones'), 'some are delivered, so that there are dead rows');
ok(under_way('moved'), 'four are under way');
sql($node, 'VACUUM FULL partner_portal.delivery_queue');
sql($node, 'VACUUM FULL partner_portal.notification');
ok(wait_for(sub { pending() == 0 }, 'the record'), 'they are recorded where they have been moved to');
is(outcome('moved'), 'delivered|1|204|4', 'once each');
is(outcome('before'), 'delivered|1|204|200', 'and no other in their place');

# Places that have changed hands: those that the claim remembers of some messages are of others then, which the same engine has under way too
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/slow/6', '{slow, never}')");
sql($node, 'VACUUM FULL partner_portal.delivery_queue');
ok(under_way('swapped'), 'four are under way');
ok(wait_for(sub { came('slow/6') == 4 }, 'the others'), 'and four that take longer');
sql($node, q{CREATE INDEX backward ON partner_portal.delivery_queue (notification_id DESC);
	UPDATE partner_portal.delivery_destination SET paused = true;
	SELECT count(partner_portal.enqueue_webhook_event(1, 'never', '{}', 'never' || i)) FROM generate_series(1, 8) i});
my $places = q{SELECT array_agg(ctid ORDER BY ctid) FROM partner_portal.delivery_queue WHERE lease_token IS NOT NULL};
my $leased = sql($node, $places);
sql($node, 'CLUSTER partner_portal.delivery_queue USING backward');
is(sql($node, $places), $leased, 'they take each other\'s places');
ok(wait_for(sub { outcome('swapped') =~ /delivered\|1\|204\|4/ }, 'the first ones'), 'the first ones are recorded');
is(sql($node, q{SELECT string_agg(DISTINCT destination::text, ' ') FROM partner_portal.delivery_queue WHERE lease_token IS NOT NULL}), '3', 'and no other in their place');
sql($node, q{DROP INDEX partner_portal.backward; UPDATE partner_portal.delivery_destination SET paused = false;
	DELETE FROM partner_portal.notification WHERE dedupe_key LIKE 'never%'});
ok(wait_for(sub { pending() == 0 }, 'the second ones'), 'the others follow');
is(outcome('swapped'), 'delivered|1|204|8', 'each once');
sql($node, q{UPDATE partner_portal.webhook_endpoint SET events = '{none}' WHERE endpoint_id = 3});

# Rows that are changed while they are under way, and while they are recorded
ok(under_way('changed'), 'four are under way');
sql($node, q{UPDATE partner_portal.notification SET locale = 'xx' WHERE dedupe_key LIKE 'changed%'});
my $changer = $node->background_psql('postgres');
$changer->query_safe(q{BEGIN; UPDATE partner_portal.notification SET locale = 'yy' WHERE dedupe_key LIKE 'changed1%'});
ok(wait_for(sub { sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type = 'partner_portal webhooks'}) == 1 }, 'the record to wait'),
	'who records waits for who changes');
$changer->query_safe('COMMIT');
ok(wait_for(sub { pending() == 0 }, 'the record'), 'and goes on');
is(outcome('changed'), 'delivered|1|204|4', 'with the record');
is(sql($node, q{SELECT string_agg(locale, ' ' ORDER BY dedupe_key) FROM partner_portal.notification WHERE dedupe_key LIKE 'changed%'}), 'yy xx xx xx', 'and the change');

ok(under_way('both'), 'four are under way');
$changer->query_safe(q{BEGIN; UPDATE partner_portal.notification SET locale = 'zz' WHERE dedupe_key LIKE 'both%'});
ok(wait_for(sub { sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type = 'partner_portal webhooks'}) == 1 }, 'the record to wait'),
	'the same, unchanged before');
$changer->query_safe('COMMIT');
ok(wait_for(sub { pending() == 0 }, 'the record'), 'goes on');
is(outcome('both'), 'delivered|1|204|4', 'with the record');
is(sql($node, q{SELECT string_agg(DISTINCT locale, ' ') FROM partner_portal.notification WHERE dedupe_key LIKE 'both%'}), 'zz', 'and the change');

# Rows that go, and rows that are leased to another engine
sql($node, 'VACUUM FULL partner_portal.delivery_queue');
ok(under_way('gone'), 'four are under way');
$changer->query_safe('BEGIN; SELECT partner_portal.engine_is_gone(2000000000)');	# now it is here
my $place = q{SELECT q.ctid FROM partner_portal.delivery_queue q JOIN partner_portal.notification n USING (notification_id) WHERE n.dedupe_key LIKE 'gone3%'};
my $claimed = sql($node, $place);
sql($node, q{UPDATE partner_portal.delivery_queue q SET lease_token = 2000000000, lease_until = now() + interval '1 hour'
	FROM partner_portal.notification n WHERE n.notification_id = q.notification_id AND n.dedupe_key LIKE 'gone3%'});
sql($node, 'VACUUM partner_portal.delivery_queue');
sql($node, q{UPDATE partner_portal.delivery_queue SET lease_until = lease_until WHERE lease_token = 2000000000});
is(sql($node, $place), $claimed, 'what is leased elsewhere is at the place where the claim left it');
sql($node, q{DELETE FROM partner_portal.notification WHERE dedupe_key LIKE 'gone1%' OR dedupe_key LIKE 'gone2%'});
ok(wait_for(sub { outcome('gone') =~ /delivered\|1\|204\|1/ }, 'the record'), 'one is recorded');
sql($node, q{UPDATE partner_portal.delivery_destination SET paused = true WHERE destination = 1});
unlike(outcome('gone'), qr/delivered\|1\|204\|2/, 'what is leased elsewhere is not');
is(sql($node, q{SELECT count(*) FROM partner_portal.notification WHERE dedupe_key LIKE 'gone%'}), '2', 'nor is what is gone');
sql($node, q{UPDATE partner_portal.delivery_destination SET paused = false WHERE destination = 1});
$changer->query_safe('COMMIT');
ok(wait_for(sub { pending() == 0 }, 'the fenced one'), 'an engine that is no more gives it back');
is(outcome('gone'), 'delivered|1|204|2', 'and it is sent again');

# Rows that somebody has locked are passed over
my $first = came('1');
$changer->query_safe(q{BEGIN; SELECT partner_portal.enqueue_webhook_event(1, 'fast', '{}', 'locked' || i) FROM generate_series(1, 4) i});
$changer->query_safe(q{COMMIT; BEGIN; UPDATE partner_portal.delivery_destination SET paused = paused WHERE destination = 2});
$changer->query_safe('COMMIT');
ok(wait_for(sub { came('1') == $first + 4 }, 'them'), 'four come');
sql($node, q{UPDATE partner_portal.delivery_destination SET paused = true WHERE destination = 2});
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'fast', '{}', 'locked' || i) FROM generate_series(5, 10) i});
$changer->query_safe(q{BEGIN; SELECT FROM partner_portal.delivery_queue q JOIN partner_portal.notification n USING (workspace_id, notification_id)
	WHERE n.dedupe_key LIKE 'locked5%' FOR UPDATE OF q});
sql($node, q{UPDATE partner_portal.delivery_destination SET paused = false WHERE destination = 2});
ok(wait_for(sub { pending() == 1 }, 'the others'), 'the others are not held up');
is(came('1'), $first + 9, 'by one that is locked');
$changer->query_safe('COMMIT');
$changer->quit;
ok(wait_for(sub { pending() == 0 }, 'the locked one'), 'which comes after them');
is(outcome('locked'), 'delivered|1|204|10', 'each once');

# A long message, which is kept elsewhere; and somebody's own trigger, which hears of deliveries
sql($node, q{CREATE TABLE heard (notification_id bigint, state text);
	CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.heard VALUES (NEW.notification_id, NEW.state); RETURN NULL; END $$});
my $long = q{SELECT partner_portal.enqueue_webhook_event(1, 'fast', jsonb_build_object('text', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1500) i)), };
sql($node, $long . q{'long')});
ok(wait_for(sub { pending() == 0 }, 'the long one'), 'a long message is delivered');
is(sql($node, q{SELECT state, octet_length(text_body) > 48000, text_body LIKE '%' || md5('1500') || '%' FROM partner_portal.notification WHERE dedupe_key LIKE 'long%'}),
	'delivered|t|t', 'and is kept');
sql($node, 'CREATE TRIGGER hear AFTER UPDATE ON partner_portal.notification FOR EACH ROW EXECUTE FUNCTION hear()');
sql($node, $long . q{'heard')});
ok(wait_for(sub { pending() == 0 }, 'another'), 'with a trigger too');
is(sql($node, q{SELECT n.dedupe_key, h.state FROM heard h JOIN partner_portal.notification n USING (notification_id)}), 'heard:2|delivered', 'which is fired');

unlike(slurp_file($node->logfile), qr/TRAP|PANIC|signal 11|crash|leak/, 'nothing crashed');
$node->stop;
done_testing();
