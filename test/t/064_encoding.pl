# Databases that are not UTF8: what clients send and get is the same as in one that is, as far as the encoding has the characters;
# mails, webhooks and tokens are UTF-8 outside. LATIN1 stands for those that PostgreSQL converts, SQL_ASCII for bytes as they come.
# src/json.c, src/mail_format.c, src/csv.c

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(hmac_sha256);
use MIME::Base64 qw(encode_base64url decode_base64);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $secret = 'a secret of the test of encodings, of 32 bytes or more';
my $node = PostgreSQL::Test::Cluster->new('encoding');
$node->init;
$node->append_conf('postgresql.conf', "partner_portal.jwks_file = '" . $node->basedir . "/jwks.json'\n");
append_to_file($node->basedir . '/jwks.json', '{"keys": [{"kty": "oct", "alg": "HS256", "kid": "k", "k": "' . encode_base64url($secret) . '"}]}');
chmod 0600, $node->basedir . '/jwks.json';
$node->start;
$ENV{PGCLIENTENCODING} = 'UTF8';

# in UTF-8; the file is bytes, as psql's output is
my ($name, $folder) = ("M\xC3\xBCller & S\xC3\xB6hne", "\xC3\x9Cbersicht");

sub token
{
	my ($claims) = @_;
	my $signed = encode_base64url('{"alg":"HS256","typ":"JWT","kid":"k"}') . '.' . encode_base64url($claims);
	return $signed . '.' . encode_base64url(hmac_sha256($signed, $secret));
}

for my $encoding (qw(UTF8 LATIN1 SQL_ASCII))
{
	my $db = lc $encoding;
	$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0 ENCODING '$encoding' LOCALE 'C'");
	$node->safe_psql($db, 'CREATE EXTENSION partner_portal');
	$node->safe_psql($db, qq{
		SELECT partner_portal.create_workspace('$name', 'owner\@example.com');
		SELECT partner_portal.promote_to_partner(1);
		INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label) VALUES (1, 'smartphone', 'a', '$name'), (1, 'smartphone', 'b', NULL);
		SELECT partner_portal.create_portal(1, '$name', 'portal-1', '#0055aa', 'https://example.com/');
		SELECT partner_portal.define_attribute(1, 'tenant', 'Tenant', 'string');
		INSERT INTO partner_portal.folder (workspace_id, name) VALUES (1, '$folder');
		SELECT partner_portal.share_folder(1, 1);
	});
	is($node->safe_psql($db, 'SELECT company_name, slug, (SELECT active_keys FROM partner_portal.workspace_usage) FROM partner_portal.workspace'),
		"$name|" . ($encoding eq 'SQL_ASCII' ? 'm-ller-s-hne' : $encoding eq 'UTF8' ? 'muller-sohne' : 'm-ller-s-hne') . '|2', "$encoding: a company, its slug and its keys");
	my ($code, $out, $error) = $node->psql($db, "\\set VERBOSITY verbose\nSELECT partner_portal.set_usage_limit(1, 2); INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'c')");
	like($error, qr/PP001/, "$encoding: the limit holds");

	# what is known not to be seen is refused; bytes without an encoding are what they are
	($code, $out, $error) = $node->psql($db, "SELECT partner_portal.checked_text('name', 'a\xE2\x80\xAEb', 200)");
	$encoding eq 'SQL_ASCII' ? is($out, "a\xE2\x80\xAEb", 'SQL_ASCII: an override of direction is three bytes')
		: like($error, $encoding eq 'UTF8' ? qr/must not contain invisible characters/ : qr/has no equivalent/, "$encoding: no override of direction in a name");

	# CSV there and back
	is($node->safe_psql($db, "SELECT outcome FROM partner_portal.bulk_update_portal_users(1, E'email,role,tenant\\r\\nu\@example.com,viewer,\"$name\"\\r\\n')"), 'invited', "$encoding: a user by CSV");
	is($node->safe_psql($db, "SELECT attributes ->> 'tenant' FROM partner_portal.portal_user"), $name, "$encoding: with an attribute");
	like($node->safe_psql($db, 'SELECT partner_portal.portal_users_csv(1)'), qr/,\Q$name\E\r?$/m, "$encoding: and back");
	($code, $out, $error) = $node->psql($db, "SELECT outcome FROM partner_portal.bulk_update_portal_users(1, E'\xEF\xBB\xBFemail,role\\nu\@example.com,viewer\\n')");
	$encoding eq 'LATIN1' ? like($error, qr/has no equivalent in encoding "LATIN1"/, 'LATIN1: a byte order mark is no character of it')
		: is($out, 'unchanged', "$encoding: a byte order mark is left out");

	# pages
	(my $escaped = $name) =~ s/&/&amp;/;
	like($node->safe_psql($db, "SELECT partner_portal.portal_login_page('portal-1')"), qr/<h1>\Q$escaped\E<\/h1>/, "$encoding: the login page");
	my $home = $node->safe_psql($db, 'SELECT partner_portal.portal_home_page(1)');
	like($home, qr/<h1>\Q$escaped\E<\/h1>/, "$encoding: the home page");
	like($home, qr/<h3>\Q$folder\E<\/h3>/, "$encoding: and its folder");

	# mails and webhooks; and what the install script itself says in German
	my $mail = $node->safe_psql($db, "SELECT partner_portal.mail_message('a\@b.example', 'c\@d.example', '$name', '$name', NULL, 'de', gen_random_uuid(), now())");
	my ($subject) = $mail =~ /^Subject: =\?UTF-8\?B\?(.*)\?=/m;
	is(decode_base64($subject // ''), $name, "$encoding: the subject of a mail is UTF-8");
	my ($body) = $mail =~ /\r?\n\r?\n(.*)/s;
	$body =~ s/=\r?\n//g;
	$body =~ s/=([0-9A-F]{2})/chr hex $1/ge;
	like($body, qr/\Q$name\E/, "$encoding: its body too");
	is($node->safe_psql($db, "SELECT (partner_portal.mail_invitation('de', i, 'P', 'https://example.com/')).subject FROM partner_portal.invitation i"),
		"P l\xC3\xA4dt Sie in sein Portal ein", "$encoding: German is German");
	is($node->safe_psql($db, "SELECT count(*) FROM partner_portal.activity, LATERAL (SELECT ok FROM partner_portal.verify_activity_log(1)) v WHERE NOT v.ok"), '0', "$encoding: the log's chain holds");
	is($node->safe_psql($db, 'SELECT * FROM partner_portal.verify()'), '', "$encoding: verify() finds nothing");

	# tokens: of what a database cannot say nothing is read
	my $login = sub {
		my (undef, $out, $error) = $node->psql($db, "\\set VERBOSITY sqlstate\nBEGIN; SELECT partner_portal.login('" . token($_[0]) . "')");
		return $error =~ /(\w{5})$/ ? $1 : $out;
	};
	is($login->("{\"sub\": \"1\", \"exp\": 4102444800, \"name\": \"$name\"}"), 1, "$encoding: a token with letters of it");
	is($login->("{\"sub\": \"1\", \"exp\": 4102444800, \"name\": \"\xE2\x82\xAC\"}"), $encoding eq 'LATIN1' ? '28000' : 1, "$encoding: a token with a euro sign");
	is($login->("{\"sub\": \"1\", \"exp\": 4102444800, \"name\": \"\xFF\"}"), '28000', "$encoding: one that is no UTF-8");
}

$node->stop;
done_testing();
