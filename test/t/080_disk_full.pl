# The disk runs full while keys are activated, while a billing run is under way and while messages are delivered: each statement
# fails with 53100 and leaves nothing half done, sessions and the worker live on, and all is well once there is space again.
# The database lies on a disk of its own; that of the log of transactions (WAL) has space, for there PostgreSQL itself stops.
# tmpfs: 64m

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $disk = $ENV{PP_SMALL_DISK} // '';
plan skip_all => 'there is no small disk: test/check mounts one where it may' unless -d $disk;

my ($http, $requests) = start_peer('http_peer.py');
my $node = server('disk_full', "shared_preload_libraries = 'partner_portal'", "partner_portal.databases = 'small'",
	"partner_portal.allow_cidr = '127.0.0.1:$http'", 'partner_portal.enabled = off', 'autovacuum = off', "log_line_prefix = '%m [%p] %b '", "timezone = 'UTC'");
mkdir "$disk/space" or die $!;
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$disk/space'");
$node->safe_psql('postgres', 'CREATE DATABASE small TABLESPACE small');
$node->safe_psql('postgres', 'CREATE DATABASE spacious');

# 1 is a partner, 2 its customer with many keys, 3 to 122 have five keys each and what they had in three months is billed.
my $fixture = <<'S';
CREATE EXTENSION partner_portal;
SET search_path = partner_portal, public;
SELECT create_workspace('Reseller AG', 'boss@reseller.example', 'reseller');
SELECT promote_to_partner(1);
INSERT INTO workspace (partner_id, company_name, slug, created_at, anchor_date, billing_from)
	SELECT 1, 'W' || w, 'w' || w, '2026-01-01', '2026-01-01', '2026-01-01' FROM generate_series(2, 122) w;
SELECT count(add_member(w, 'owner' || w || '@customer.example', 'owner')) FROM generate_series(2, 122) w;
INSERT INTO security_key (workspace_id, kind, serial) SELECT 2, 'smartphone', 'k' || k FROM generate_series(1, 2000) k;
INSERT INTO security_key (workspace_id, kind, serial) SELECT w, 'smartphone', 'k' || k FROM generate_series(3, 122) w, generate_series(1, 5) k;
SELECT count(import_key_activity(workspace_id, key_id, '[2026-01-05, 2026-03-10)', 'moved in')::text) FROM security_key WHERE workspace_id > 2;
SELECT create_price_plan(1, 'Standard', 'CHF', 'per_unit', unit_price => 4.5);
SELECT count(assign_price_plan(w, 1, '2026-01-01')) FROM generate_series(3, 122) w;
S
$node->safe_psql($_, $fixture) foreach qw(small spacious);

# fill(spare) leaves the disk with so many bytes, and 0 with none.
sub fill
{
	my ($spare) = @_;
	open(my $file, '>>', "$disk/filler") or die $!;
	binmode $file;
	foreach my $length (1 << 20, 1 << 12)
	{
		my $written;
		do { $written = syswrite $file, "\0" x $length } while (defined $written && $written == $length);
	}
	truncate $file, (-s $file) - $spare or die $!;
	close $file;
	return;
}

sub empty { unlink "$disk/filler" or die $!; return }

sub answer { my ($statement) = @_; return $node->safe_psql('small', $statement) }

# The SQLSTATE of the first error of a script, whatever else the session then does; 00000 if there is none.
sub sqlstate
{
	my ($script) = @_;
	my (undef, $out, $error) = $node->psql('small', "\\set ON_ERROR_STOP 0\n\\set VERBOSITY sqlstate\n$script");
	return (($error =~ /ERROR:\s+(\w{5})/ ? $1 : $error eq '' ? '00000' : $error), $out);
}

# What is to be as it was before: keys, history, counters, limits, documents, messages.
sub state_of
{
	return answer(join ' UNION ALL ', map { "SELECT '$_', md5(string_agg(t::text, ',' ORDER BY t::text)) FROM partner_portal.$_ t" }
		qw(security_key key_history workspace_usage workspace activity invoice invoice_line invoice_series billing_period usage_period billing_failure notification delivery_queue));
}

# Activation: small statements until one has no room, then large ones.
my $serial = 0;
my $state;
fill(1 << 18);
foreach my $try (1 .. 1000)
{
	($state) = sqlstate("INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT 2, 'smartphone', 'full $try ' || i FROM generate_series(1, 20) i");
	last if $state ne '00000';
	$serial++;
}
is($state, '53100', "activations fail when the disk is full, after $serial of 20 keys");
cmp_ok($serial, '>', 0, 'and not before');
my $before = state_of();
foreach my $statement (
	"INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT 2, 'smartphone', 'large ' || i FROM generate_series(1, 20000) i",
	q{COPY partner_portal.security_key (workspace_id, kind, serial) FROM PROGRAM 'seq -f "2	smartphone	copied %.0f" 20000'},
	"UPDATE partner_portal.security_key SET status = 'disabled' WHERE workspace_id = 2",
	'SELECT count(*) FROM partner_portal.set_usage_limit(2, 10)',
	'SELECT partner_portal.suspend_workspace(2, $$unpaid$$)',
	'SELECT partner_portal.delete_workspace(2)')
{
	fill(0);
	my ($failed, $out) = sqlstate("$statement;\nSELECT 'alive', count(*) FROM partner_portal.workspace");
	is($failed, '53100', 'disk full: ' . substr($statement, 0, 60));
	like($out, qr/alive\|122/, 'the session lives on');
}
is(state_of(), $before, 'nothing of it is there');
empty();
is(answer("SELECT count(*), max(active_keys) FROM partner_portal.security_key k JOIN partner_portal.workspace_usage u USING (workspace_id) WHERE workspace_id = 2"),
	(2000 + 20 * $serial) . '|' . (2000 + 20 * $serial), 'every key that was acknowledged is there and counted');
is(answer('SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing');
is((sqlstate('SELECT count(*) FROM partner_portal.set_usage_limit(2, 10)'))[0], '00000', 'with space it goes through');
is(answer("SELECT active_keys FROM partner_portal.workspace_usage WHERE workspace_id = 2"), '10', 'as it should');

# Billing: in one transaction, and in batches of which the first have room.
my $as_of = "'2026-04-02'";
fill(0);
$before = state_of();
is((sqlstate("SELECT count(*) FROM partner_portal.run_billing($as_of)"))[0], '53100', 'disk full: run_billing()');
is(state_of(), $before, 'nothing of the run is there');
fill(1 << 20);
is((sqlstate("CALL partner_portal.run_due_billing($as_of, 10)"))[0], '53100', 'disk full: run_due_billing(), in batches');
my $closed = answer("SELECT count(*) FROM partner_portal.billing_period WHERE billed_at IS NOT NULL");
my $all = $node->safe_psql('spacious', "SELECT count(*) FILTER (WHERE action = 'failed') FROM partner_portal.run_billing($as_of); SELECT count(*) FROM partner_portal.billing_period WHERE billed_at IS NOT NULL");
$all =~ s/^0\n//;
note("$closed of $all periods were billed when the disk was full");
empty();
is(answer('SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing');
is(answer('SELECT count(*) FROM partner_portal.billing_failure'), '0', 'no workspace is blamed');
is((sqlstate("CALL partner_portal.run_due_billing($as_of, 10)"))[0], '00000', 'with space the run goes through');
my $documents = "SELECT workspace_id, status, invoice_number IS NULL, subtotal_minor, total_minor, currency FROM partner_portal.invoice WHERE workspace_id > 2 ORDER BY workspace_id, period_start";
is(answer($documents), $node->safe_psql('spacious', $documents), 'its documents are those of an undisturbed one');
is(answer("SELECT count(*) = max(last_number) FROM partner_portal.invoice, partner_portal.invoice_series WHERE invoice_number IS NOT NULL"), 't', 'its numbers have no gap');
is(answer('SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing then');

# Delivery: what is owed cannot be written, then cannot be claimed.
my $endpoint = answer("SELECT endpoint_id FROM partner_portal.create_webhook_endpoint(2, 'http://127.0.0.1:$http/ok', '{test}')");
fill(0);
$before = state_of();
is((sqlstate("SELECT count(partner_portal.enqueue_webhook_event(2, 'test', '{}', 'lost ' || i)) FROM generate_series(1, 2000) i"))[0], '53100', 'disk full: messages are owed');
is(state_of(), $before, 'none of them is');
empty();
answer("SELECT count(partner_portal.enqueue_webhook_event(2, 'test', '{}', 'kept ' || i)) FROM generate_series(1, 2000) i");
# while somebody looks at the rows of before, what is recorded cannot take their place
my $reader = $node->background_psql('small');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM partner_portal.notification');
fill(0);
my $log = -s $node->logfile;
my $postmaster = slurp_file($node->data_dir . '/postmaster.pid') =~ s/\n.*//sr;
configure($node, 'partner_portal.enabled = on');
sub complaints { return scalar(() = slurp_file($node->logfile, $log) =~ /No space left on device/g) }
ok(wait_for(sub { complaints() >= 2 }, 'the worker to find no space'), 'the worker finds no space, and tries again');
is(answer('SELECT count(*) FROM partner_portal.workspace'), '122', 'the server answers meanwhile');
my $sent = scalar lines_of($requests);
my $said = complaints();
select undef, undef, undef, 3;
cmp_ok(complaints() - $said, '<', 100, 'it does not fill the log');
$reader->quit;
empty();
ok(wait_for(sub { answer('SELECT count(*) FROM partner_portal.delivery_queue WHERE destination <> 0') eq '0' }, 'the queue to be empty', 120), 'with space everything is delivered');
my %came;
$came{ $_->{headers}{'webhook-id'} }++ foreach lines_of($requests);
my $repeated = 0;
$repeated += $_ - 1 foreach values %came;
is(scalar keys %came, 2000, 'every message came');
note("$sent came while the disk was full, $repeated twice");
cmp_ok($repeated, '<=', 64, 'and of those in flight at most some twice');
is(answer("SELECT string_agg(DISTINCT state, ' ') FROM partner_portal.notification WHERE endpoint_id = $endpoint"), 'delivered', 'as is recorded');
is(answer('SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing after all');
is(slurp_file($node->data_dir . '/postmaster.pid') =~ s/\n.*//sr, $postmaster, 'the server never went down');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|was terminated by signal|all server processes terminated/, 'and nothing crashed');

$node->stop;
done_testing();
