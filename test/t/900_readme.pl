# Copyright (c) 2026, the partner_portal authors

# readme: every example of README.md and doc/*.md runs on a fresh server and prints what the page says; every link between
# the pages leads somewhere; doc/how_it_works.md tells where what is, of every file.
#
# README.md runs in order in one psql session per part: to the end of "Getting started", and the rest. The other pages start
# where "Getting started" ends, each in a copy of that database.
# ```conf blocks of README.md go to postgresql.conf before the server starts. ```sql blocks run as the superuser; a ```text
# block right after one is its output. "```sql 42501" is a block that ends with that SQLSTATE. The variable "token" holds a
# token signed by a key of the test's own, for the account whose e-mail address README.md names in its ```json block.
# doc/reference.md must be up to date.

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(hmac_sha256);
use MIME::Base64 qw(encode_base64 encode_base64url);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The fenced blocks of a page: kind, what stands beside it, body; the expected output of one of sql.
sub blocks
{
	my ($text) = @_;
	my @blocks;

	while ($text =~ /^```([a-z]+)[ \t]*([^\n]*)\n(.*?)^```[ \t]*\n/msg)
	{
		my ($kind, $note, $body) = ($1, $2, $3);
		my $expected = substr($text, pos($text)) =~ /\A\s*^```text\n(.*?)^```/ms ? $1 : undef;
		push @blocks, { kind => $kind, state => $note || '00000', body => $body, expected => $expected };
	}
	return @blocks;
}

sub of_kind
{
	my ($kind, @blocks) = @_;
	return grep { $_->{kind} eq $kind } @blocks;
}

my $readme = slurp_file('README.md');
my ($start, $rest) = $readme =~ /\A(.*^## Getting started\n.*?)(^## .*)\z/ms;
ok(defined $start && of_kind('sql', blocks($start)) > 3 && of_kind('sql', blocks($rest)) > 5, 'README.md has examples');
my @pages = grep { $_ ne 'doc/reference.md' } glob 'doc/*.md';

# ---- links ---------------------------------------------------------------------------------------------------------------

# anchors TEXT: what GitHub makes of the headings
sub anchors
{
	my ($text) = @_;
	$text =~ s/^```.*?^```//msg;
	return map { my $a = lc $_; $a =~ s/[^a-z0-9 _-]//g; $a =~ tr/ /-/; ($a => 1) } $text =~ /^#+ (.*)$/mg;
}

my %linked;
for my $page ('README.md', 'CHANGELOG.md', (grep { -f } 'CONTRIBUTING.md'), glob 'doc/*.md')
{
	my $text = slurp_file($page);
	my ($folder) = $page =~ m{^(.*/)?};
	my @dead;
	$text =~ s/^```.*?^```//msg;
	while ($text =~ /\]\(([^)\s]+)\)/g)
	{
		my ($file, $anchor) = split /#/, $1, 2;
		next if $file =~ /^[a-z]+:/;
		my $path = $file eq '' ? $page : ($folder // '') . $file;
		1 while $path =~ s{[^/.]+/\.\./}{};
		$linked{$path} = 1;
		push @dead, $1 if !-e $path || (defined $anchor && !{ anchors(slurp_file($path)) }->{$anchor});
	}
	is("@dead", '', "links of $page lead somewhere");
}
is(join(' ', grep { !$linked{$_} } glob 'doc/*.md'), '', 'every page is linked');

# ---- where what is -------------------------------------------------------------------------------------------------------

my ($places) = slurp_file('doc/how_it_works.md') =~ /^## Where what is\n(.*)\z/ms;
my @places = map { s/\./\\./gr =~ s/\*/.*/gr } $places =~ /`([a-z_*]+\.(?:c|sql))`/g;
is(join(' ', grep { my $file = s{.*/}{}r; !grep { $file =~ /\A$_\z/ } @places } glob('src/*.c'), grep { !/--/ } glob 'sql/*.sql'),
	'', 'doc/how_it_works.md has a place for every file');

# ---- the server ----------------------------------------------------------------------------------------------------------

my $node = PostgreSQL::Test::Cluster->new('readme');
$node->init;
my $dir = $node->basedir;

# the key file of README.md, at a place of ours
my $secret = 'a secret of the tests, thirty-two bytes';
my $key_file = "$dir/jwks.json";
append_to_file($key_file,
	sprintf('{"keys": [{"kty": "oct", "kid": "app", "alg": "HS256", "k": "%s"}]}', encode_base64url($secret)));
chmod 0600, $key_file;
my $conf = join('', map { $_->{body} } of_kind('conf', blocks($readme)));
$conf =~ s/^(partner_portal\.jwks_file\s*=).*/$1 '$key_file'/m;
$conf =~ s/^(partner_portal\.(?:secrets_file|ca_file)\s*=)/#$1/mg;
# a master key for webhooks
append_to_file("$dir/secrets", 'key 1 ' . encode_base64('k' x 32, '') . "\n");
chmod 0600, "$dir/secrets";
$node->append_conf('postgresql.conf', $conf . "partner_portal.secrets_file = '$dir/secrets'\ntimezone = 'UTC'\n");
$node->start;

my ($claims) = grep { /"exp"/ } map { $_->{body} } of_kind('json', blocks($readme));
my $now = time;
$claims =~ s/("(?:iat|nbf)"\s*:\s*)\d+/$1 . $now/ge;
$claims =~ s/("exp"\s*:\s*)\d+/$1 . ($now + 600)/e;
my $token = join('.', encode_base64url('{"alg":"HS256","kid":"app","typ":"JWT"}'), encode_base64url($claims));
$token .= '.' . encode_base64url(hmac_sha256($token, $secret));

# ---- the examples --------------------------------------------------------------------------------------------------------

# without spaces at the ends of lines, and empty lines at the end
sub trimmed
{
	my ($text) = @_;
	$text =~ s/[ \t]+$//mg;
	$text =~ s/\n+\z//;
	return $text;
}

# Runs the sql blocks of a page's text in one psql session; each is fenced off in the output by its number.
sub run_examples
{
	my ($database, $page, $text) = @_;
	my @examples = of_kind('sql', blocks($text));
	my $script = "\\set VERBOSITY terse\nSET client_min_messages = warning;\n";

	for my $i (0 .. $#examples)
	{
		my $stop = $examples[$i]{state} eq '00000' ? 1 : 0;
		$script .= "\\echo <block $i>\n\\set LAST_ERROR_SQLSTATE 00000\n\\set ON_ERROR_STOP $stop\n$examples[$i]{body}\n"
		  . "\\echo <state $i :LAST_ERROR_SQLSTATE>\n";
	}
	my ($out, $err);
	my $file = "$dir/examples.sql";
	unlink $file;
	append_to_file($file, $script);
	IPC::Run::run([ 'psql', '-X', '-q', '-d', $node->connstr($database), '-v', "token=$token", '-f', $file ], '>', \$out, '2>', \$err);

	for my $i (0 .. $#examples)
	{
		my $example = $examples[$i];
		my ($first) = $example->{body} =~ /^(?!--)\s*(\S.*)$/m;
		my $name = "$page: block $i: $first";
		my ($printed, $state) = $out =~ /^<block $i>\n(.*?)^<state $i (\S+)>$/ms;
		if (!defined $state)
		{
			fail("$name: ran to its end");
			diag($err);
			last;
		}
		if ($example->{state} ne '00000')
		{
			is($state, $example->{state}, "$name: is refused");
			next;
		}
		pass("$name: ran");
		is(trimmed($printed), trimmed($example->{expected}), "$name: prints what the page says") if defined $example->{expected};
	}
}

$node->safe_psql('postgres', "CREATE DATABASE start TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'");
run_examples('start', 'README.md', $start);
for my $page ('README.md', @pages)
{
	my ($database) = $page =~ /(\w+)\.md$/;
	$node->safe_psql('postgres', "CREATE DATABASE \"$database\" TEMPLATE start");
	run_examples($database, $page, $page eq 'README.md' ? $rest : slurp_file($page));
}

# ---- the reference is what the comments in the database say ------------------------------------------------------------------

is($node->psql('README', slurp_file('test/reference.sql'), on_error_stop => 1, stdout => \my $reference), 0,
	'the reference can be made');
my %made = map { $_ => 1 } split /\n/, $reference;
my %kept = map { $_ => 1 } split /\n/, slurp_file('doc/reference.md');
is(join('', map { substr($_, 0, 100) . "\n" } sort grep { !($made{$_} && $kept{$_}) } keys %made, keys %kept),
	'', 'doc/reference.md is what "make reference" makes');

$node->stop;
done_testing();
