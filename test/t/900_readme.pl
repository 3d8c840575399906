# Copyright (c) 2026, the partner_portal authors

# readme: every example of README.md runs, in order, in one psql session on a fresh server, and prints what README.md says.
#
# ```conf blocks go to postgresql.conf before the server starts. ```sql blocks run as the superuser; a ```text block right
# after one is its output. "```sql 42501" is a block that ends with that SQLSTATE. The variable "token" holds a token that
# the key of test/t's own making signs, for the account whose e-mail address the README names in its ```json block.
# doc/reference.md must be up to date.

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(hmac_sha256);
use MIME::Base64 qw(encode_base64url);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $readme = slurp_file('README.md');

my (@blocks, $conf, $claims);
while ($readme =~ /^```([a-z]+)[ \t]*([^\n]*)\n(.*?)^```[ \t]*\n/msg)
{
	my ($kind, $note, $body) = ($1, $2, $3);
	my $after = substr($readme, pos($readme));
	if ($kind eq 'sql')
	{
		my $expected = $after =~ /\A\s*^```text\n(.*?)^```/ms ? $1 : undef;
		push @blocks, { state => $note || '00000', sql => $body, expected => $expected };
	}
	$conf .= $body if $kind eq 'conf';
	$claims = $body if $kind eq 'json' && $body =~ /"exp"/;
}
ok(@blocks > 5, 'README.md has examples');

my $node = PostgreSQL::Test::Cluster->new('readme');
$node->init;
my $dir = $node->basedir;

# the key file of the README, at a place of ours
my $secret = 'a secret of the tests, thirty-two bytes';
my $key_file = "$dir/jwks.json";
append_to_file($key_file,
	sprintf('{"keys": [{"kty": "oct", "kid": "app", "alg": "HS256", "k": "%s"}]}', encode_base64url($secret)));
chmod 0600, $key_file;
$conf =~ s/^(partner_portal\.jwks_file\s*=).*/$1 '$key_file'/m;
$conf =~ s/^(partner_portal\.(?:secrets_file|ca_file)\s*=)/#$1/mg;
$node->append_conf('postgresql.conf', $conf . "timezone = 'UTC'\n");
$node->start;
$node->safe_psql('postgres', "CREATE DATABASE readme TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'");

my $token = '';
if (defined $claims)
{
	my $now = time;
	$claims =~ s/("(?:iat|nbf)"\s*:\s*)\d+/$1 . $now/ge;
	$claims =~ s/("exp"\s*:\s*)\d+/$1 . ($now + 600)/e;
	$token = join('.', encode_base64url('{"alg":"HS256","kid":"app","typ":"JWT"}'), encode_base64url($claims));
	$token .= '.' . encode_base64url(hmac_sha256($token, $secret));
}

# One psql session for all of them; each block is fenced off in the output by its number.
my $script = "\\set VERBOSITY terse\n";
for my $i (0 .. $#blocks)
{
	my $stop = $blocks[$i]{state} eq '00000' ? 1 : 0;
	$script .= "\\echo <block $i>\n\\set LAST_ERROR_SQLSTATE 00000\n\\set ON_ERROR_STOP $stop\n$blocks[$i]{sql}\n;\n"
	  . "\\echo <state $i :LAST_ERROR_SQLSTATE>\n";
}
my ($out, $err);
my $file = "$dir/readme.sql";
append_to_file($file, $script);
IPC::Run::run(
	[ 'psql', '-X', '-q', '-d', $node->connstr('readme'), '-v', "token=$token", '-f', $file ],
	'>', \$out, '2>', \$err);

for my $i (0 .. $#blocks)
{
	my $block = $blocks[$i];
	my ($first) = $block->{sql} =~ /^(?!--)\s*(\S.*)$/m;
	my ($printed, $state) = $out =~ /^<block $i>\n(.*?)^<state $i (\S+)>$/ms;
	if (!defined $state)
	{
		fail("block $i ran to its end: $first");
		diag($err);
		last;
	}
	if ($block->{state} ne '00000')
	{
		is($state, $block->{state}, "block $i is refused: $first");
		next;
	}
	pass("block $i ran: $first");
	if (defined $block->{expected})
	{
		my ($have, $want) = map { s/[ \t]+$//mgr =~ s/\n+\z//r } $printed, $block->{expected};
		is($have, $want, "block $i prints what README.md says");
	}
}

# The reference is what the comments in the database say.
is($node->psql('readme', slurp_file('test/reference.sql'), on_error_stop => 1, stdout => \my $reference), 0,
	'the reference can be made');
my %made = map { $_ => 1 } split /\n/, $reference;
my %kept = map { $_ => 1 } split /\n/, slurp_file('doc/reference.md');
is(join('', map { substr($_, 0, 100) . "\n" } sort grep { !($made{$_} && $kept{$_}) } keys %made, keys %kept),
	'', 'doc/reference.md is what "make reference" makes');

$node->stop;
done_testing();
