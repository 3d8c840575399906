# delivery_engine.pl: kill -9 of worker and postmaster, engines at once. DELIVERY_ROUNDS says how many kills there are (5).
# About src/delivery_engine.c and src/delivery_section.c.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $rounds = $ENV{DELIVERY_ROUNDS} // 5;
my ($http, $requests) = start_peer('http_peer.py');
my $node = server('delivery_engine', "shared_preload_libraries = 'partner_portal'", "partner_portal.allow_cidr = '127.0.0.1:$http'",
	'restart_after_crash = on', 'fsync = on', 'partner_portal.enabled = off', "partner_portal.databases = 'postgres'");
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');
sql($node, "SELECT partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/' || i, ARRAY['test']) FROM generate_series(1, 16) i");

# new_lines() returns the lines that came since it was last asked; a long run keeps a short memory
open(my $log, '<', $requests) or die $!;
my $part = '';

sub new_lines
{
	local $/ = undef;
	seek($log, 0, 1);
	my $text = $part . (<$log> // '');
	$part = $text =~ s/([^\n]*)\z// ? $1 : '';
	return split(/\n/, $text);
}

sub id_of { return $_[0] =~ /"webhook-id": "([^"]+)"/ ? $1 : die "no id in $_[0]" }

sub pending { return sql($node, 'SELECT count(*) FROM partner_portal.delivery_queue') }

# answer(statement) is what a server that may be starting says, or undef; a psql that is turned away may leave before it
# has read its input, which ends in an exception here
sub answer
{
	my ($rc, $out) = eval { $node->psql('postgres', $_[0]) };
	return defined $rc && $rc == 0 ? $out : undef;
}

# Two engines (and two more) at once: nothing is sent twice
sql($node, q{SELECT count(partner_portal.enqueue_webhook_event(1, 'test', '{}', 'both' || i)) FROM generate_series(1, 100) i});
configure($node, 'partner_portal.enabled = on', "partner_portal.databases = ''");
my @engines = map { $node->background_psql('postgres', on_error_die => 0) } 1 .. 4;
$_->{stdin} .= "CALL partner_portal.deliver_notifications(2000);\n" foreach @engines;
$_->{run}->pump_nb foreach @engines;
ok(wait_for(sub { pending() == 0 }, 'the queue to be empty'), 'four engines at once empty the queue');
$_->quit foreach @engines;
my %seen;
$seen{ id_of($_) }++ foreach new_lines();
is(scalar(keys %seen), 1600, 'all came');
is(scalar(grep { $_ > 1 } values %seen), 0, 'none twice');

# kill -9 of the worker and of the postmaster, in turn, at random moments
configure($node, "partner_portal.databases = 'postgres'");
my ($lost, $stuck, $most, $kills, $midway) = (0, 0, 0, 0, 0);
foreach my $round (1 .. $rounds)
{
	my $postmaster = $round % 2 == 0;
	my (@came, $at_kill);
	wait_for(sub { sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'partner_portal webhooks'}) > 0 }, 'a worker');
	my ($pid) = split(/\n/, sql($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'partner_portal webhooks'}));
	sql($node, "SELECT count(partner_portal.enqueue_webhook_event(1, 'test', '{}', 'round$round-' || i)) FROM generate_series(1, 200) i");
	my $wanted = 100 + int(rand(2000));
	wait_for(sub { push @came, new_lines(); @came >= $wanted }, "$wanted of round $round");
	if ($postmaster)
	{
		$node->kill9;
		push @came, new_lines();
		$at_kill = @came;
		# until its children have left, a new one refuses to start
		wait_for(sub { $node->{_pid} = undef; $node->start(fail_ok => 1) }, 'a new postmaster');
	}
	else
	{
		kill 'KILL', $pid if $pid;
		push @came, new_lines();
		$at_kill = @came;
		wait_for(sub { defined answer('SELECT 1') }, 'the server to be back');
	}
	$kills++;
	wait_for(sub { (answer('SELECT count(*) FROM partner_portal.delivery_queue') // '') eq '0' },
		"round $round to be delivered", 120) or $stuck++;
	$midway++ if $at_kill < 3200;
	push @came, new_lines();
	my $repeated = grep { $seen{ id_of($_) }++ } @came;
	$most = $repeated if $repeated > $most;
	$lost = 1600 + 3200 * $round - keys %seen;
	note("round $round: killed " . ($postmaster ? 'postmaster' : 'worker') . " after $at_kill of 3200, repeated $repeated");
}
is($stuck, 0, 'each round was delivered in two minutes');
is($lost, 0, "nothing is lost in $kills kills");
is($midway, $kills, 'each kill came while messages were under way');
cmp_ok($most, '<=', 64, "no more is repeated than was under way (at most $most), with the same ids");
is(sql($node, q{SELECT count(*) FROM partner_portal.notification WHERE state <> 'delivered'}), '0', 'and all is recorded');

$node->stop;
done_testing();
