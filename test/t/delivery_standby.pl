# delivery_standby.pl: a standby sends nothing, and goes on where the primary was when it is promoted; a restored copy sends nothing
# until it is told to. About src/worker.c and src/delivery_engine.c.

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
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
my $secrets = PostgreSQL::Test::Utils::tempdir() . '/secrets';
append_to_file($secrets, "key 1 " . 'a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=' . "\n");
chmod 0600, $secrets;
$primary->append_conf('postgresql.conf', join("\n", "shared_preload_libraries = 'partner_portal'", "partner_portal.databases = 'postgres'",
		"partner_portal.secrets_file = '$secrets'", "partner_portal.allow_cidr = '127.0.0.1:$http'", 'partner_portal.enabled = off',
		'partner_portal.delivery_timeout = 20s') . "\n");
$primary->start;
sql($primary, 'CREATE EXTENSION partner_portal');
make_workspace($primary, 'one');
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', "partner_portal.enabled = on\n");
$standby->start;
# a result counts when the standby has it, too
$primary->append_conf('postgresql.conf', "synchronous_standby_names = '*'\n");
$primary->reload;

sub workers { return sql($_[0], q{SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('partner_portal webhooks', 'partner_portal mail')}) }
sub came { return map { $_->{headers}{'webhook-id'} } grep { $_->{path} =~ $_[0] } lines_of($requests) }

# A standby has no worker and its sessions do not send
sql($primary, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/fast', '{fast}')");
sql($primary, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/slow/4', '{slow}')");
sql($primary, q{SELECT partner_portal.enqueue_webhook_event(1, 'fast', '{}', 'f' || i) FROM generate_series(1, 50) i});
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is(sql($standby, 'SELECT count(*) FROM partner_portal.delivery_queue'), '50', 'a standby has what is owed');
is(workers($standby), 0, 'and no worker');
my (undef, undef, $error) = $standby->psql('postgres', "\\set VERBOSITY sqlstate\nCALL partner_portal.deliver_notifications()");
like($error, qr/25006/, 'a session there does not deliver');
is(scalar came(qr/./), 0, 'nothing came');

# The primary delivers, with messages under way when it dies
configure($primary, 'partner_portal.enabled = on');
ok(wait_for(sub { came(qr/fast/) == 50 }, 'the fast ones'), 'the primary delivers');
ok(wait_for(sub { sql($primary, 'SELECT count(*) FROM partner_portal.delivery_queue') eq '0' }, 'it to be recorded'), 'and records');
sql($primary, q{SELECT partner_portal.enqueue_webhook_event(1, 'slow', '{}', 's' || i) FROM generate_series(1, 10) i});
ok(wait_for(sub { came(qr/slow/) == 4 }, 'four under way'), 'four are under way');
$primary->stop('immediate');
my $before = came(qr/slow/);
is(workers($standby), 0, 'without its primary a standby still sends nothing');
$standby->promote;

# What was recorded is not sent again; what was under way is, with the same ids; the rest follows
ok(wait_for(sub { workers($standby) == 2 }, 'the workers'), 'promoted, it has its workers');
ok(wait_for(sub { sql($standby, 'SELECT count(*) FROM partner_portal.delivery_queue') eq '0' }, 'the queue to be empty'), 'it delivers the rest');
is(scalar came(qr/fast/), 50, 'nothing that was recorded came again');
my %times;
$times{$_}++ foreach came(qr/slow/);
is(scalar keys %times, 10, 'nothing is lost');
is(scalar(grep { $_ > 1 } values %times), $before, 'what came twice was under way, and has the same id');
is(sql($standby, q{SELECT count(*) FROM partner_portal.notification WHERE state <> 'delivered'}), '0', 'all is recorded');
my $start = time();
sql($standby, q{SELECT partner_portal.enqueue_webhook_event(1, 'fast', '{}', 'new')});
ok(wait_for(sub { came(qr/fast/) == 51 }, 'a new one'), 'a new one is delivered');
cmp_ok(time() - $start, '<', 1, 'at commit');

# A dump restored beside it: the same messages are owed, and are not the copy's to send
configure($standby, 'partner_portal.enabled = off');
ok(wait_for(sub { workers($standby) == 0 }, 'the workers to leave'), 'the workers leave');
sql($standby, q{SELECT partner_portal.enqueue_webhook_event(1, 'fast', '{}', 'original')});
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$standby->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $standby->connstr('postgres') ], 'pg_dump');
sql($standby, 'CREATE DATABASE copy TEMPLATE template0');
$standby->command_ok([ 'pg_restore', '--exit-on-error', '-d', $standby->connstr('copy'), $dump ], 'pg_restore');
is($standby->safe_psql('copy', 'SELECT count(*) FROM partner_portal.delivery_queue'), '1', 'the copy has what is owed');
configure($standby, "partner_portal.databases = 'copy'", 'partner_portal.enabled = on');
ok(wait_for(sub { slurp_file($standby->logfile) =~ /this database sends no notifications/ }, 'the refusal'), 'its worker says that it does not send');
(undef, undef, $error) = $standby->psql('copy', "\\set VERBOSITY sqlstate\nCALL partner_portal.deliver_notifications()");
like($error, qr/PP005/, 'nor does a session');
is(scalar came(qr/fast/), 51, 'nothing came');
configure($standby, "partner_portal.databases = 'copy, postgres'");
ok(wait_for(sub { came(qr/fast/) == 52 }, 'the original'), 'the original sends its own');
$standby->safe_psql('copy', 'SELECT partner_portal.adopt_deliveries()');
$standby->safe_psql('copy', 'CALL partner_portal.deliver_notifications()');
ok(wait_for(sub { came(qr/fast/) == 53 }, 'the copy'), 'told to, the copy sends too');
my @twice = came(qr/fast/);
is($twice[51], $twice[52], 'with the same id');
cmp_ok(scalar(() = slurp_file($standby->logfile) =~ /this database sends no notifications/g), '<', 20, 'and the log was not flooded');
unlike(slurp_file($standby->logfile), qr/TRAP|PANIC|signal 11|crash/, 'nothing crashed');

$standby->stop;
done_testing();
