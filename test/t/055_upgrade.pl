# ALTER EXTENSION partner_portal UPDATE makes of 1.0 exactly what a new installation is: every object of the catalog, whose it
# is, what it does and says, and the privileges of enrolled roles (sql/enroll.sql, src/enroll.c); and it leaves the data as it
# was. Until it is run, 1.0's functions work with the new library.
#
# Both versions are offered by a copy of the server's installation, made of links, which has the frozen script of 1.0
# (test/upgrade) beside the files that are installed: so the installation itself need not be writable. A session that is to find
# "only in ..." empty adds what is missing to sql/partner_portal--1.0--1.1.sql.

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use File::Basename;
use File::Copy;
use File::Path qw(make_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $here = abs_path(dirname(__FILE__) . '/../upgrade');
my ($from, $to) = ('1.0', '1.1');

# installation() copies the server's installation under a directory and returns the directory that bin is in. The server finds
# its other files by where its own program lies, so the programs are copied; the rest are links.
sub installation
{
	my ($root) = @_;
	my %dir;
	foreach my $kind (qw(bindir sharedir pkglibdir))
	{
		$dir{$kind} = abs_path(qx{pg_config --$kind} =~ s/\n//r);
		make_path($kind eq 'pkglibdir' ? dirname("$root$dir{$kind}") : "$root$dir{$kind}");
	}
	copy("$dir{bindir}/$_", "$root$dir{bindir}/$_") && chmod(0755, "$root$dir{bindir}/$_") or die "$_: $!"
		foreach map { basename($_) } grep { -f } glob("$dir{bindir}/*");
	symlink($dir{pkglibdir}, "$root$dir{pkglibdir}") or die $! unless -e "$root$dir{pkglibdir}";
	foreach my $file (grep { basename($_) ne 'extension' } glob("$dir{sharedir}/*"))
	{
		symlink($file, "$root$file") or die "$file: $!" unless -e "$root$file";
	}
	make_path("$root$dir{sharedir}/extension");
	foreach my $file (glob("$dir{sharedir}/extension/*"))
	{
		symlink($file, "$root$file") or die "$file: $!" unless basename($file) eq "partner_portal--$from.sql";
	}
	copy("$here/partner_portal--$from.sql", "$root$dir{sharedir}/extension") or die $!;
	return dirname("$root$dir{bindir}");
}

my $node = PostgreSQL::Test::Cluster->new('main', install_path => installation(PostgreSQL::Test::Utils::tempdir()));
$node->init;
$node->start;
my @connect = ('-h', $node->host, '-p', $node->port);
my $dir = PostgreSQL::Test::Utils::tempdir();

# ---- what there is to compare -----------------------------------------------------------------------------------------------

# rows(database, query) returns the lines of an answer.
sub rows
{
	my ($database, $query) = @_;
	return split /\n/, $node->safe_psql($database, $query);
}

# catalog(database) returns a hash of what the extension has in the catalog.
sub catalog
{
	my ($database) = @_;
	my %catalog;
	foreach my $line (rows($database, slurp_file("$here/catalog.sql")))
	{
		my ($what, $detail) = map { s/\\t/\t/gr =~ s/\\n/\n/gr } split /\t/, $line, 2;
		$catalog{$what} .= ($catalog{$what} ? ' and ' : '') . $detail;
	}
	return \%catalog;
}

# first_difference(a, b) returns what two texts have where they begin to differ.
sub first_difference
{
	my ($one, $other) = @_;
	my $same = 0;
	(($one ^ $other) =~ /^(\0*)/) and $same = length($1);
	my $begin = $same < 60 ? 0 : $same - 60;
	return map { ($begin ? '...' : '') . (substr($_, $begin, 200) =~ s/\s+/ /gr) . (length($_) > $begin + 200 ? '...' : '') } $one, $other;
}

# is_same_catalog(have, want, names, text) demands that the one is the other, and names what is not.
sub is_same_catalog
{
	my ($have, $want, $have_name, $want_name, $text) = @_;
	my @missing = map { "only in $want_name: $_\n" } grep { !exists $have->{$_} } sort keys %$want;
	my @extra = map { "only in $have_name: $_\n" } grep { !exists $want->{$_} } sort keys %$have;
	my @different = map {
		my ($first, $second) = first_difference($have->{$_}, $want->{$_});
		"different: $_\n  $have_name: $first\n  $want_name: $second\n"
	} grep { exists $have->{$_} && $have->{$_} ne $want->{$_} } sort keys %$want;
	is(join('', splice(@missing, 0, 30), @missing ? "and more\n" : ''), '', "$text: nothing is missing");
	is(join('', splice(@extra, 0, 30), @extra ? "and more\n" : ''), '', "$text: nothing is left over");
	is(join('', splice(@different, 0, 30), @different ? "and more\n" : ''), '', "$text: nothing is different");
	return;
}

# columns(database) returns a hash of the tables with their columns.
sub columns
{
	my ($database) = @_;
	my %columns = map { split /\|/, $_, 2 } rows($database, <<'S');
SELECT relname, string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
WHERE relnamespace = 'partner_portal'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped GROUP BY relname
S
	return \%columns;
}

# contents(database, columns) returns what these columns of the tables hold, and where the sequences stand.
sub contents
{
	my ($database, $columns) = @_;
	my %contents;
	$contents{$_} = $node->safe_psql($database, "SELECT r::text FROM (SELECT $columns->{$_} FROM partner_portal.$_) r ORDER BY 1") foreach keys %$columns;
	$contents{sequences} = $node->safe_psql($database, "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'partner_portal' ORDER BY 1");
	return \%contents;
}

# is_same_data(have, want, text) demands that each table holds what it held.
sub is_same_data
{
	my ($have, $want, $text) = @_;
	my $problem = '';
	foreach my $table (sort keys %$want)
	{
		next if ($have->{$table} // '(no such table)') eq $want->{$table};
		my ($first, $second) = first_difference($have->{$table} // '(no such table)', $want->{$table});
		$problem .= "$table\n  now: $first\n  was: $second\n";
	}
	is($problem, '', $text);
	return;
}

# sqlstate(database, statement) runs a statement and returns its SQLSTATE, 00000 if it went well; it is rolled back.
sub sqlstate
{
	my ($database, $statement) = @_;
	my (undef, undef, $error) = $node->psql($database, "\\set VERBOSITY sqlstate\nBEGIN;\n$statement;\nROLLBACK;");
	return $error =~ /ERROR:\s+(\w{5})/ ? $1 : $error eq '' ? '00000' : $error;
}

sub run_ok
{
	my ($what, @command) = @_;
	my ($out, $error) = ('', '');
	local %ENV = $node->_get_env();
	ok(IPC::Run::run(\@command, '>', \$out, '2>', \$error), $what) or diag($error);
	return;
}

# create(database, version) makes a database with that version, and enrolls the roles of each kind. One of them has lost a
# privilege, one has none any more.
sub create
{
	my ($database, $version) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, "CREATE EXTENSION partner_portal VERSION '$version'");
	$node->safe_psql($database, <<'S');
SELECT partner_portal.enroll_role('regress_app', 'application'), partner_portal.enroll_role('regress_trusted', 'trusted_application'),
	partner_portal.enroll_role('regress_report', 'reporting'), partner_portal.enroll_role('regress_ops', 'operator'),
	partner_portal.enroll_role('"Regress both"', 'application'), partner_portal.enroll_role('"Regress both"', 'reporting'),
	partner_portal.enroll_role('regress_less', 'application'), partner_portal.enroll_role('regress_left', 'operator');
REVOKE EXECUTE ON FUNCTION partner_portal.act_in(bigint) FROM regress_less;
S
	leave($database);
	return;
}

# leave(database) takes from regress_left what it has.
sub leave
{
	my ($database) = @_;
	$node->safe_psql($database, 'DROP OWNED BY regress_left');
	return;
}

$node->safe_psql('postgres', "CREATE ROLE $_") foreach (qw(regress_app regress_trusted regress_report regress_ops regress_less regress_left regress_gone), '"Regress both"');
create('fresh', $to);
create('old', $from);
create('bare', $from);
$node->safe_psql('old', "SELECT partner_portal.enroll_role('regress_gone', 'operator'); DROP OWNED BY regress_gone; DROP ROLE regress_gone;");
my $fresh = catalog('fresh');
cmp_ok(scalar(keys %$fresh), '>', 3000, 'there is something to compare');

# ---- 1.0's SQL with the new library -----------------------------------------------------------------------------------------

is($node->safe_psql('old', <<'S'), '', 'every function of 1.0 finds its symbol in the library');
SELECT p.oid::regprocedure FROM pg_proc p
WHERE pronamespace = 'partner_portal'::regnamespace AND CASE WHEN prolang = (SELECT oid FROM pg_language WHERE lanname = 'c') THEN fmgr_c_validator(p.oid)::text <> '' END;
S

# A symbol that changes what it takes or gives is given another name, and the old one stays.
my $symbols = <<'S';
SELECT prosrc, string_agg(format('(%s) %s%s, strict %s', proargtypes::regtype[], CASE WHEN proretset THEN 'set of ' END,
		CASE WHEN proallargtypes IS NULL THEN prorettype::regtype::text ELSE proallargtypes::regtype[]::text END, proisstrict), '; ' ORDER BY p.oid::regprocedure::text)
FROM pg_proc p JOIN pg_language l ON l.oid = prolang WHERE pronamespace = 'partner_portal'::regnamespace AND lanname = 'c' GROUP BY 1
S
my %old_symbol = map { split /\|/, $_, 2 } rows('old', $symbols);
my %new_symbol = map { split /\|/, $_, 2 } rows('fresh', $symbols);
is(join('', map { "$_: $old_symbol{$_}\n  now $new_symbol{$_}\n" } grep { exists $new_symbol{$_} && $new_symbol{$_} ne $old_symbol{$_} } sort keys %old_symbol),
	'', 'no symbol of the library takes or gives something else than with 1.0');

my $fill = slurp_file("$here/fill-1.0.sql");
$node->safe_psql('old', $fill);
is($node->safe_psql('old', 'SELECT * FROM partner_portal.verify()'), '', 'data come in by the functions of 1.0, and verify() finds nothing');

# works(database, how) demands that the main flows give what they should.
sub works
{
	my ($database, $how) = @_;
	my $as_partner = 'BEGIN; SELECT partner_portal.login_as(1) \g /dev/null' . "\nSET LOCAL ROLE regress_app;\n";
	is($node->safe_psql($database, "$as_partner SELECT company_name, active_keys, key_limit FROM partner_portal.partner_panel WHERE company_name IN ('Acme', 'Limited') ORDER BY 1; ROLLBACK"),
		"Acme|6|\nLimited|5|5", "$how: the panel of who is signed in");
	is($node->safe_psql($database, "$as_partner INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'n1'), (2, 'smartphone', 'n2');
UPDATE partner_portal.security_key SET status = 'disabled' WHERE workspace_id = 2 AND serial = 'n1';
SELECT active_keys FROM partner_portal.partner_panel WHERE company_name = 'Acme';
SELECT count(*) FROM partner_portal.set_usage_limit(2, 4); SELECT partner_portal.logout() \\g /dev/null\nRESET ROLE; SELECT * FROM partner_portal.verify(); ROLLBACK;"),
		"7\n3", "$how: keys come and go, and a lower limit disables the surplus");
	is(sqlstate($database, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (6, 'smartphone', 'n')"), 'PP001', "$how: the limit holds");
	is(sqlstate($database, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'n')"), 'PP005', "$how: what is suspended stays so");
	is(sqlstate($database, "SET LOCAL ROLE regress_app; SELECT partner_portal.login('x.y.z')"), '28000', "$how: a bad token");
	is(sqlstate($database, "UPDATE partner_portal.invoice SET total_minor = 0, subtotal_minor = 0 WHERE status = 'final'"), 'PP003', "$how: documents are final");
	is(sqlstate($database, "DELETE FROM partner_portal.member WHERE workspace_id = 6"), 'PP004', "$how: the last owner stays");
	is($node->safe_psql($database, "BEGIN; SELECT count(*) > 0 FROM partner_portal.run_billing('2027-01-15') WHERE problem IS NULL;
SELECT distinct_keys > 0 FROM partner_portal.usage(2) WHERE kind IS NULL; SELECT * FROM partner_portal.verify(); ROLLBACK"), "t\nt", "$how: a billing run, usage, and verify() finds nothing");
	is($node->safe_psql($database, "SELECT count(*) > 5 FROM partner_portal.health()"), 't', "$how: health()");
	is($node->safe_psql($database, "SET ROLE regress_report; SELECT count(*) > 0 FROM partner_portal.metrics"), 't', "$how: metrics");
	is(sqlstate($database, 'DROP EXTENSION partner_portal CASCADE'), '2BP01', "$how: the extension is guarded");
	return;
}
works('old', "$from with the new library");

# ---- the upgrade ------------------------------------------------------------------------------------------------------------

# rows that come with the extension are looked at by themselves, below
my $old_columns = columns('old');
delete @$old_columns{qw(role_grant currency job_step)};
my $before = contents('old', $old_columns);
like($before->{workspace}, qr/Acme/, 'there are data');
run_ok("$from is dumped", 'pg_dump', @connect, '-Fc', '-f', "$dir/before", 'old');

my ($rc, undef, $error) = $node->psql('old', 'ALTER EXTENSION partner_portal UPDATE');
is($error, '', 'ALTER EXTENSION partner_portal UPDATE');
is($node->safe_psql('old', "SELECT extversion FROM pg_extension WHERE extname = 'partner_portal'"), $to, "makes it $to");

leave('old');
my $upgraded = catalog('old');
is_same_catalog($upgraded, $fresh, 'the upgraded database', 'the new one', 'the catalog');
is_same_data(contents('old', $old_columns), $before, 'every table and sequence has what it had');
is($node->safe_psql('old', 'SELECT * FROM partner_portal.verify()'), '', 'verify() finds nothing');
works('old', 'upgraded');

# What the script of a new installation writes into tables, that of the upgrade does too.
$node->safe_psql('bare', 'ALTER EXTENSION partner_portal UPDATE');
my $columns = columns('fresh');
delete @$columns{qw(enrolled_role delivery_home)};
my $has = columns('bare');
delete @$columns{ grep { ($has->{$_} // '') ne $columns->{$_} } keys %$columns };
is_same_data(contents('bare', $columns), contents('fresh', $columns), 'rows that come with the extension are those of a new installation');

# ---- dumps ------------------------------------------------------------------------------------------------------------------

run_ok('what was upgraded is dumped', 'pg_dump', @connect, '-Fc', '-f', "$dir/after", 'old');
my $all_columns = columns('old');
my $after = contents('old', $all_columns);
foreach my $case ([ 'before', $old_columns, $before ], [ 'after', $all_columns, $after ])
{
	my ($when, $which, $want) = @$case;
	my %want = map { $_ => $want->{$_} } grep { $_ ne 'delivery_home' } keys %$want;
	my %which = map { $_ => $which->{$_} } grep { $_ ne 'delivery_home' } keys %$which;
	$node->safe_psql('postgres', "CREATE DATABASE restored_$when");
	run_ok("a dump from $when the upgrade is restored", 'pg_restore', '--exit-on-error', @connect, '-d', "restored_$when", "$dir/$when");
	is_same_data(contents("restored_$when", \%which), \%want, "a dump from $when the upgrade: every table and sequence is as it was");
	is($node->safe_psql("restored_$when", 'SELECT * FROM partner_portal.verify()'), '', "a dump from $when the upgrade: verify() finds nothing");
}
is_same_catalog(catalog('restored_after'), $upgraded, 'what was restored', 'what was upgraded', 'a dump from after the upgrade');

# ---- a session that is open meanwhile ---------------------------------------------------------------------------------------

create('busy', $from);
$node->safe_psql('busy', $fill);
my $use = <<'S';
BEGIN;
SELECT partner_portal.login_as(1) \g /dev/null
SET LOCAL ROLE regress_app;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'n' || clock_timestamp());
UPDATE partner_portal.security_key SET status = 'disabled' WHERE workspace_id = 2 AND serial = 'k7';
UPDATE partner_portal.security_key SET status = 'active' WHERE workspace_id = 2 AND serial = 'k7';
SELECT count(*) FROM partner_portal.set_usage_limit(2, 20);
SELECT active_keys FROM partner_portal.partner_panel WHERE company_name = 'Acme';
COMMIT;
SELECT count(*) > 0 FROM partner_portal.close_periods();
S

my $connstr = $node->connstr('busy');
is($node->safe_psql('busy', $use . "\\! psql -X -q -d \"$connstr\" -c 'ALTER EXTENSION partner_portal UPDATE'\n" . $use . 'SELECT * FROM partner_portal.verify();'),
	"0\n7\nt\n0\n8\nf", 'a session that is open while it is upgraded goes on');

$node->stop;
done_testing();
