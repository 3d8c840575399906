# A database survives pg_dump and restore without any further step: plain, custom, as INSERTs, data only into an installed
# extension; and in parallel by the recipe of the README. Every dumped table is equal to the row, and so are the counters,
# which are not dumped (src/restoring.c, sql/restoring.sql).

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = server('main');
my @connect = ('-h', $node->host, '-p', $node->port);
my $dir = PostgreSQL::Test::Utils::tempdir();

$node->safe_psql('postgres', "CREATE ROLE $_") foreach qw(regress_app regress_trusted regress_report regress_ops);
$node->safe_psql('postgres', 'CREATE DATABASE original');
$node->safe_psql('original', 'CREATE EXTENSION partner_portal');
$node->safe_psql('original', slurp_file("$FindBin::Bin/every_kind.sql"));

# What a database holds: each table of the extension, and where its sequences stand. A copy knows that it is one, and says so
# in delivery_home.
sub contents
{
	my ($database) = @_;
	my @tables = split /\n/, $node->safe_psql($database,
		"SELECT relname FROM pg_class WHERE relnamespace = 'partner_portal'::regnamespace AND relkind = 'r' AND relname <> 'delivery_home' ORDER BY 1");
	my $contents = '';
	$contents .= "$_\n" . $node->safe_psql($database, "SELECT t::text FROM partner_portal.$_ t ORDER BY 1") . "\n" foreach (@tables);
	return $contents . "sequences\n" . $node->safe_psql($database,
		"SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'partner_portal' ORDER BY 1");
}

# Runs a statement in a restored database and returns its SQLSTATE, 00000 if it went well; it is rolled back.
sub sqlstate
{
	my ($database, $statement) = @_;
	my (undef, undef, $error) = $node->psql($database, "\\set VERBOSITY sqlstate\nBEGIN;\n$statement;\nROLLBACK;");
	return $error =~ /ERROR:\s+(\w{5})/ ? $1 : $error eq '' ? '00000' : $error;
}

my $original = contents('original');
like($original, qr/^Reseller|Reseller AG/m, 'there is something to restore');

# The restored database is the original, and goes on as it would have.
sub is_restored
{
	my ($database, $how) = @_;
	is(contents($database), $original, "$how: every table, counter and sequence is as it was");
	is($node->safe_psql($database, 'SELECT * FROM partner_portal.verify()'), '', "$how: verify() finds nothing");
	is(sqlstate($database, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (6, 'smartphone', 'n')"),
		'PP001', "$how: the limit is enforced");
	is(sqlstate($database, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'n')"),
		'PP005', "$how: what is suspended stays so");
	is(sqlstate($database, "UPDATE partner_portal.invoice SET total_minor = 0, subtotal_minor = 0 WHERE status = 'final'"),
		'PP003', "$how: documents are final");
	is(sqlstate($database, "DELETE FROM partner_portal.member WHERE workspace_id = 6"), 'PP004', "$how: the last owner stays");
	is(sqlstate($database, "SELECT partner_portal.restore_workspace(5)"), '00000', "$how: what was deleted can be restored");
	is($node->safe_psql($database,
			"INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'n') RETURNING key_id > (SELECT max(key_id) FROM partner_portal.security_key)"),
		't', "$how: numbers go on");
	is($node->safe_psql($database, "SELECT count(*) > 0 FROM partner_portal.run_billing('2027-01-15') WHERE problem IS NULL"), 't', "$how: billing goes on");
	is($node->safe_psql($database, 'SELECT * FROM partner_portal.verify()'), '', "$how: verify() finds nothing then");
}

sub run_ok
{
	my ($what, @command) = @_;
	my ($out, $error) = ('', '');
	ok(IPC::Run::run(\@command, '>', \$out, '2>', \$error), $what) or diag($error);
	return;
}

foreach my $form (['plain'], ['inserts', '--inserts'], ['column inserts', '--column-inserts'])
{
	my ($how, @options) = @$form;
	(my $database = "restored_$how") =~ s/ /_/g;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	run_ok("$how: dumped", 'pg_dump', @connect, @options, '-f', "$dir/$database.sql", 'original');
	run_ok("$how: restored", 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', @connect, '-d', $database, '-f', "$dir/$database.sql");
	is_restored($database, $how);
}

run_ok('custom: dumped', 'pg_dump', @connect, '-Fc', '-f', "$dir/custom", 'original');
$node->safe_psql('postgres', 'CREATE DATABASE restored_custom');
run_ok('custom: restored', 'pg_restore', '--exit-on-error', @connect, '-d', 'restored_custom', "$dir/custom");
is_restored('restored_custom', 'custom');
$node->safe_psql('postgres', 'CREATE DATABASE restored_once');
run_ok('one transaction: restored', 'pg_restore', '--single-transaction', @connect, '-d', 'restored_once', "$dir/custom");
is_restored('restored_once', 'one transaction');

run_ok('data only: dumped', 'pg_dump', @connect, '--data-only', '-f', "$dir/data.sql", 'original');
$node->safe_psql('postgres', 'CREATE DATABASE restored_data');
$node->safe_psql('restored_data', 'CREATE EXTENSION partner_portal;');
run_ok('data only: restored', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', @connect, '-d', 'restored_data', '-f', "$dir/data.sql");
is_restored('restored_data', 'data only');

# In parallel an extension's tables come in any order: without their triggers, and repair() counts afterwards.
$node->safe_psql('postgres', 'CREATE DATABASE restored_parallel');
{
	local $ENV{PGOPTIONS} = '-c session_replication_role=replica';
	run_ok('parallel: restored', 'pg_restore', '--exit-on-error', '-j', '4', @connect, '-d', 'restored_parallel', "$dir/custom");
}
isnt($node->safe_psql('restored_parallel', 'SELECT count(*) FROM partner_portal.verify()'), '0', 'parallel: verify() misses the counters');
$node->safe_psql('restored_parallel', 'SELECT partner_portal.repair()');
is_restored('restored_parallel', 'parallel');

# A dump of a dump is the same dump.
run_ok('again: dumped', 'pg_dump', @connect, '-Fc', '-f', "$dir/again", 'restored_once');
$node->safe_psql('postgres', 'CREATE DATABASE restored_again');
run_ok('again: restored', 'pg_restore', '--exit-on-error', @connect, '-d', 'restored_again', "$dir/again");
is(contents('restored_again'), contents('restored_once'), 'again: every table, counter and sequence is as it was');

# A session that is left as a dump's script leaves it restores rows, and refuses what it always did.
my $left = "SET row_security = off; SET check_function_bodies = off";
is(sqlstate('original', "$left; UPDATE partner_portal.security_key SET status = 'active' WHERE workspace_id = 6"),
	'PP001', 'after \i of a dump the limit holds');
is(sqlstate('original', "$left; DELETE FROM partner_portal.member WHERE workspace_id = 6"), 'PP004', 'and the last owner stays');

$node->stop;
done_testing();
