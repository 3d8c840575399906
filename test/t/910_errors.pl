# Copyright (c) 2026, the partner_portal authors

# errors: doc/troubleshooting.md lists what the sources raise, and nothing else: every SQLSTATE, and every message of those
# that it does not tell in general (bad arguments, and trigger functions called in a wrong way).
#
# A message is what errmsg() or MESSAGE has for a text; where it has a value, the page has "…".

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;


# told in general
my %general = map { $_ => 1 } qw(22023 22004 39P01 39P03);

# SQLSTATEs by their names in C and in PL/pgSQL; where a name has two, plpgsql takes the first
my %code;
my $header = slurp_file('src/partner_portal.h');
while ($header =~ /#define\s+ERRCODE_(\w+)\s+MAKE_SQLSTATE\('(.)','(.)','(.)','(.)','(.)'\)/g)
{
	$code{$1} = "$2$3$4$5$6";
}
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $share = `$pg_config --sharedir`);
for (split /\n/, slurp_file("$share/errcodes.txt"))
{
	next unless /^(\w{5})\s+[ESW]\s+ERRCODE_(\w+)(?:\s+(\w+))?/;
	$code{$2} = $1;
	$code{$3} //= $1 if defined $3;
}

# template TEXT: with "…" for what is filled in
sub template
{
	my ($text) = @_;
	$text =~ s/%(?:\.\*|\.\d+)?(?:ll)?[a-z]/…/g;
	return $text;
}

my (%raised, @unread);

for my $file (glob 'src/*.c')
{
	my $text = slurp_file($file);
	$text =~ s/\bINT64_FORMAT\b/"%lld"/g;
	while ($text =~ /\berrcode\(ERRCODE_(\w+)\)\s*,\s*errmsg(?:_internal)?\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+)/g)
	{
		my ($name, $literals) = ($1, $2);
		my $message = join '', map { s/\\(.)/$1/gr } $literals =~ /"((?:[^"\\]|\\.)*)"/g;
		$raised{ $code{$name} // $name }{ template($message) } = $file;
	}
	$raised{ $code{$1} // $1 } //= {} while $text =~ /\berrcode\(ERRCODE_(\w+)\)/g;
}
for my $file (grep { !/--/ } glob 'sql/*.sql')
{
	my $text = slurp_file($file);
	while ($text =~ /ERRCODE\s*=\s*'(\w+)'\s*,\s*MESSAGE\s*=\s*((?:'(?:[^']|'')*'|[^';])*?)(?:,\s*(?:DETAIL|HINT)\s*=|;)/g)
	{
		my ($name, $expression) = ($1, $2);
		my $state = $code{$name} // $name;
		# every text that has more than one word; a word may be the value of another argument, or what a CASE asks for
		my @messages = grep { / / } map { s/''/'/gr } $expression =~ /'((?:[^']|'')*)'/g;
		push @unread, "$file: $expression" unless @messages || $general{$state};
		$raised{$state}{ template($_ =~ s/\A /%s /r) } = $file for @messages;
	}
}
is(join("\n", @unread), '', 'the messages of all errors can be read from the sources');
cmp_ok(scalar(keys %raised), '>', 20, 'the sources raise errors');

# The page: SQLSTATEs from headings, or from the first column where there are four.
my $page = slurp_file('doc/troubleshooting.md');
my (%told, @current);
for (split /\n/, $page)
{
	if (/^## (\w{5}):/) { @current = ($1); $told{$1} //= {}; next }
	if (/^## /) { @current = (); next }
	next unless /^\| (.*) \|$/;
	my @columns = split / *\| */, $1, -1;
	my @states = $columns[0] =~ /\A((?:`[0-9A-Z]{5}` ?)+)\z/ ? $1 =~ /`(\w+)`/g : ();
	if (@states && @columns == 4)
	{
		$told{$_} //= {} for @states;
		$told{ join ' ', @states }{$_} = 1 for $columns[1] =~ /`([^`]+)`/g;
	}
	elsif (@current)
	{
		$told{ $current[0] }{$_} = 1 for $columns[0] =~ /`([^`]+)`/g;
	}
}
# a row for several SQLSTATEs: each message is of one of them
for my $states (grep { / / } keys %told)
{
	for my $message (keys %{ $told{$states} })
	{
		my ($state) = grep { $raised{$_} && $raised{$_}{$message} } split / /, $states;
		$told{ $state // (split / /, $states)[0] }{$message} = 1;
	}
	delete $told{$states};
}

is(join(' ', grep { !$told{$_} } sort keys %raised), '', 'every SQLSTATE that is raised is in the page');
is(join(' ', grep { !$raised{$_} } sort keys %told), '', 'every SQLSTATE in the page is raised');
for my $state (sort keys %raised)
{
	next if $general{$state};
	is(join("\n", grep { !$told{$state}{$_} } sort keys %{ $raised{$state} }), '', "every message of $state is in the page");
	is(join("\n", grep { !$raised{$state}{$_} } sort keys %{ $told{$state} // {} }), '', "every message of $state in the page is raised");
}

# The table of SQLSTATEs in README.md and the header
my ($table) = slurp_file('README.md') =~ /^\| SQLSTATE \| meaning \|\n(.*?)\n\n/ms;
my %ours = map { $_ => 1 } grep { /^PP/ } values %code;
is(join(' ', sort grep { /^PP/ } $table =~ /^\| `(\w{5})`/mg), join(' ', sort keys %ours), 'README.md has our own SQLSTATEs');

done_testing();
