# flat_memory.pl: the memory of a backend does not grow with what it does.
#   PP_ACTIVATIONS=1000000 PP_DELIVERIES=100000   the long form; 10,000 and 3,200 unless told

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $activations = $ENV{PP_ACTIVATIONS} // 10000;
my $deliveries = $ENV{PP_DELIVERIES} // 3200;
my ($port) = start_peer('http_peer.py');
my $node = server('flat_memory', "partner_portal.allow_cidr = '127.0.0.1:$port'", 'synchronous_commit = off', 'max_wal_size = 4GB');
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, "w$_") foreach 1 .. 20;
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$port/' || i, ARRAY['test']) FROM generate_series(1, 16) i");

# Bytes that memory contexts hold, and kilobytes that are the process's own.
my $measure = q{SELECT (SELECT sum(total_bytes) FROM pg_backend_memory_contexts) || ' '
	|| substring(pg_read_file('/proc/self/status') FROM 'RssAnon:\s*(\d+)');};

# flat(name, first, then) runs both in one backend, the first to warm up, and compares its memory after each.
sub flat
{
	my ($name, $first, $then) = @_;
	my ($before, $after) = grep { /^\d+ \d+$/ } split(/\n/, sql($node, "$first $measure $then $measure"));
	my ($bytes, $kilobytes) = map { (split(/ /, $after))[$_] - (split(/ /, $before))[$_] } 0, 1;
	cmp_ok($bytes, '<', 1 << 18, "$name: memory contexts ($bytes bytes more)");
	SKIP:
	{
		skip 'a sanitizer keeps what is freed', 1 if ($ENV{LD_PRELOAD} // '') =~ /asan/;
		cmp_ok($kilobytes, '<', 2048, "$name: the process ($kilobytes kB more)");
	}
	return;
}

# switch(n) switches one key off and on again n times, of one workspace after the other, each in a transaction of its own.
sub switch
{
	my ($n) = @_;
	return qq{DO \$\$ BEGIN FOR i IN 1 .. $n LOOP
		UPDATE partner_portal.security_key SET status = 'disabled' WHERE workspace_id = i % 20 + 1; COMMIT;
		UPDATE partner_portal.security_key SET status = 'active' WHERE workspace_id = i % 20 + 1; COMMIT;
		END LOOP; END \$\$;};
}

sql($node, q{INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT i, 'smartphone', 's' FROM generate_series(1, 20) i});
flat("$activations activations", switch(1000), switch($activations));
is(sql($node, 'SELECT count(*) FROM partner_portal.key_history'), $activations + 1000, 'each made its stretch');

# insert(n, of) adds n keys by statements of so many
sub insert
{
	my ($n, $of) = @_;
	return qq{DO \$\$ BEGIN FOR i IN 1 .. $n / $of LOOP
		INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT 1, 'smartphone', gen_random_uuid() FROM generate_series(1, $of); COMMIT;
		END LOOP; END \$\$;};
}
flat("$activations new keys by the thousand", insert(5000, 1000), insert($activations, 1000));

sql($node, "SELECT count(partner_portal.enqueue_webhook_event(1, 'test', '{}', 'm' || i)) FROM generate_series(1, $deliveries / 16 + 100) i");
flat("$deliveries deliveries", 'CALL partner_portal.deliver_notifications(1600);', "CALL partner_portal.deliver_notifications($deliveries);");
is(sql($node, q{SELECT count(*) FROM partner_portal.notification WHERE state = 'delivered'}), $deliveries + 1600, 'each was delivered');

$node->stop;
done_testing();
