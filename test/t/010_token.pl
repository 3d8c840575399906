# Signing in where a server has to be looked at from outside: what its log says of key files and of tokens, and a standby.

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(hmac_sha256);
use MIME::Base64 qw(encode_base64url);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $secret = 'k' x 32;
my $jwks = sprintf '{"keys":[{"kty":"oct","k":"%s"}]}', encode_base64url($secret);

# A token signed by HS256.
sub token
{
	my ($claims) = @_;
	my $signed = encode_base64url('{"alg":"HS256"}') . '.' . encode_base64url($claims);
	return $signed . '.' . encode_base64url(hmac_sha256($signed, $secret));
}

# Writes the key file, by default so that nobody else can read it.
sub write_keys
{
	my ($node, $content, $mode) = @_;
	my $file = $node->data_dir . '/keys.jwks';
	unlink $file;
	open my $out, '>', $file or die "cannot write $file: $!";
	print $out $content;
	close $out;
	chmod $mode // oct('600'), $file;
	return;
}

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<'C');
partner_portal.jwks_file = 'keys.jwks'
log_min_error_statement = error
log_parameter_max_length_on_error = -1
log_statement = none
log_min_duration_statement = -1
C
$primary->start;
$primary->safe_psql('postgres', <<'S');
CREATE EXTENSION partner_portal;
INSERT INTO partner_portal.account (email) VALUES ('anna@example.com');
S

my $good = token('{"sub":"1","exp":32503680000}');

# Tries a statement in a session of its own and returns what it says and what the server wrote to its log.
sub try_login
{
	my ($node, $sql) = @_;
	my $before = -s $node->logfile;
	my ($code, $out, $err) = $node->psql('postgres', $sql, extra_params => ['-v', 'VERBOSITY=verbose']);
	return ($out, $err, slurp_file($node->logfile, $before));
}

# Says that a key file lets nobody in, with one line about it in the log however often one tries.
sub nobody_signs_in
{
	my ($what, $line) = @_;
	my ($out, $err, $log) = try_login($primary, "BEGIN; SELECT partner_portal.login('$good');\n");
	like($err, qr/ERROR:  28000: invalid token/, "$what: nobody signs in");
	unlike($err, qr/keys\.jwks|JSON|key file/, "$what: and is not told why");
	($out, $err, $log) = try_login($primary, <<"S");
DO \$\$ BEGIN PERFORM partner_portal.login('$good'); EXCEPTION WHEN invalid_authorization_specification THEN NULL; END \$\$;
DO \$\$ BEGIN PERFORM partner_portal.login('$good'); EXCEPTION WHEN invalid_authorization_specification THEN NULL; END \$\$;
DO \$\$ BEGIN PERFORM partner_portal.login('$good'); EXCEPTION WHEN invalid_authorization_specification THEN NULL; END \$\$;
S
	my @lines = $log =~ /LOG: .*nobody can sign in by token.*/g;
	is(scalar(@lines), 1, "$what: one line in the log");
	like($log, qr/key file "keys\.jwks" $line/, "$what: which says why");
	unlike($log, qr/\Q$good\E/, "$what: without the token");
	return;
}

nobody_signs_in('missing', qr/cannot be opened: No such file/);
write_keys($primary, $jwks, 0);
nobody_signs_in('unreadable', qr/cannot be opened: Permission denied/);
write_keys($primary, $jwks, oct('644'));
nobody_signs_in('readable by others', qr/holds a secret and can be read by others/);
write_keys($primary, $jwks, oct('602'));
nobody_signs_in('writable by others', qr/can be written by others/);
write_keys($primary, substr($jwks, 0, -2));
nobody_signs_in('malformed', qr/is not a JSON Web Key Set/);
write_keys($primary, "{\"keys\":[{\"kty\":\"oct\",\"k\":\"\xff\"}]}");
nobody_signs_in('not UTF-8', qr/is not a JSON Web Key Set/);
write_keys($primary, '');
nobody_signs_in('empty', qr/is not a JSON Web Key Set/);
write_keys($primary, '{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}');
nobody_signs_in('a short secret', qr/has no key for HS256/);
write_keys($primary, ' ' x 1_100_000);
nobody_signs_in('too large', qr/is larger than 1 MB/);

write_keys($primary, $jwks);
my ($out, $err, $log) = try_login($primary, "BEGIN; SELECT partner_portal.login('$good'), partner_portal.current_account_id(); COMMIT;");
is($out, '1|1', 'a good file lets in');
is($log, '', 'and nothing is in the log');

# No bad token comes to the log or back in a context, by whatever way it came.
my $bad = substr($good, 0, -4) . 'AAAA';
for my $sql (
	"SELECT partner_portal.login('$bad')",
	"DO \$\$ BEGIN PERFORM partner_portal.login('$bad'); END \$\$",
	"DO \$\$ BEGIN EXECUTE 'SELECT partner_portal.login(\$1)' USING '$bad'; END \$\$",
	"PREPARE l (text) AS SELECT partner_portal.login(\$1)\\; EXECUTE l('$bad')",
	"SELECT partner_portal.login('$bad' || repeat('x', 1048576))")
{
	($out, $err, $log) = try_login($primary, $sql);
	like($err, qr/ERROR:  28000: invalid token/, 'a bad token is refused');
	unlike($err, qr/CONTEXT|DETAIL|HINT|\Q$bad\E/, 'without a context');
	like($log, qr/invalid token/, 'the refusal is in the log');
	unlike($log, qr/\Q$bad\E/, 'the token is not');
}
($out, $err, $log) = try_login($primary, "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; SELECT partner_portal.login('$good');");
like($err, qr/25001/, 'a cursor WITH HOLD stands in the way');
unlike($log . $err, qr/\Q$good\E/, 'of a good token, which is not in the log either');

# A standby signs in, with its own key file, and follows revocations.
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
write_keys($standby, $jwks);
$standby->start;
my $named = token('{"sub":"1","exp":32503680000,"jti":"t1"}');
my $sign_in = "BEGIN; SELECT partner_portal.login('$named'), partner_portal.current_account_id(); COMMIT;";
($out, $err) = try_login($standby, $sign_in);
is($out, '1|1', 'a standby signs in');
$primary->safe_psql('postgres', "SELECT partner_portal.revoke_token('t1', 'infinity')");
$primary->wait_for_catchup($standby);
($out, $err) = try_login($standby, $sign_in);
like($err, qr/28000: invalid token/, 'a revocation counts there');
$primary->safe_psql('postgres', 'UPDATE partner_portal.account SET disabled_at = now()');
$primary->wait_for_catchup($standby);
($out, $err) = try_login($standby, "BEGIN; SELECT partner_portal.login('$good');");
like($err, qr/28000: invalid token/, 'and so does disabling the account');

done_testing();
