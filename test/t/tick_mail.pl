# tick_mail.pl: what tick() owes comes by mail: the daily list with its one-click way out (RFC 8058), the reminder that access
# expires, the monthly report (src/job.c, src/mail_format.c). Read by Python's own mail parser.
# packages: python3-aiosmtpd

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use IPC::Run;
use JSON::PP;
use MIME::Base64;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($smtp, $mails) = start_peer('smtp_peer.py');
my $node = server('tick_mail', "shared_preload_libraries = 'partner_portal'", "partner_portal.databases = 'postgres'", "partner_portal.smtp_url = 'smtp://127.0.0.1:$smtp'",
	"partner_portal.allow_cidr = '127.0.0.1:$smtp'", "partner_portal.link_base_url = 'https://portal.example.com/'", 'log_min_messages = debug1', 'log_statement = none',
	"timezone = 'UTC'");
sql($node, q{CREATE EXTENSION partner_portal; CREATE ROLE app LOGIN; SELECT partner_portal.enroll_role('app', 'application')});
sql($node, q{SET search_path = partner_portal;
	SELECT create_workspace('Kunde & <Söhne>', 'ann@kunde.example', 'kunde', 'Europe/Zurich', '2026-01-01');
	SELECT create_workspace('Partner', 'pat@partner.example', 'partner');
	SELECT promote_to_partner(2);
	UPDATE account SET locale = 'de' WHERE account_id = 1;
	UPDATE workspace SET notify_new_keys = true, notify_billing = true WHERE workspace_id = 1;
	INSERT INTO security_key (workspace_id, kind, serial, label) VALUES (1, 'smartphone', 'S-1', 'Büro "Süd"'), (1, 'contactless_card', 'C-1', NULL);
	SELECT plan_id FROM create_price_plan(NULL, 'Unit', 'CHF', 'per_unit', unit_price => 2.5);
	SELECT assign_price_plan(1, 1, '2026-01-01')});
sql($node, q{INSERT INTO partner_portal.access_grant (workspace_id, partner_id, scope, wallet, state, accepted_at, expires_at) VALUES (1, 2, 'complete', false, 'active', now(), now() + interval '8 days')});

# parsed() returns all mails as Python reads them: headers by lower-case name, and text and html
append_to_file($node->data_dir . '/parse.py', <<'PY');
import base64, email, email.policy, json, sys
sys.stdout.reconfigure(encoding="utf-8")
for line in sys.stdin:
    m = email.message_from_bytes(base64.b64decode(json.loads(line)["mail"]), policy=email.policy.default)
    parts = {p.get_content_type(): p.get_content() for p in m.walk() if not p.is_multipart()}
    print(json.dumps({"headers": {k.lower(): v for k, v in m.items()}, "defects": [str(d) for d in m.defects], "text": parts.get("text/plain"), "html": parts.get("text/html")}, ensure_ascii=False))
PY

sub parsed
{
	my ($out, $err);
	IPC::Run::run([ '/usr/bin/python3', $node->data_dir . '/parse.py' ], '<', $mails, '>', \$out, '2>', \$err) or diag($err);
	# as bytes, like everything else here
	return map { JSON::PP->new->decode($_) } split(/\n/, $out);
}

# tick(when, mails) does what is due and waits until so many have come in all
sub tick
{
	my ($when, $count) = @_;
	my $at = sql($node, "SELECT $when");
	sql($node, "CALL partner_portal.tick('$at')");
	ok(wait_for(sub { lines_of($mails) >= $count && sql($node, 'SELECT count(*) FROM partner_portal.delivery_queue') eq '0' }, "$count mails"), "at $when there are $count mails in all");
	is(scalar lines_of($mails), $count, 'and no more');
	return parsed();
}

# The first look begins the lists; a day later there is one
sql($node, 'CALL partner_portal.tick(now())');
my @mails = tick(q{now() + interval '1 day'}, 3);
my ($list) = grep { $_->{headers}{subject} =~ /schlüssel/ } @mails;
my @reminders = sort { $a->{headers}{to} cmp $b->{headers}{to} } grep { $_->{headers}{subject} =~ /Zugriff|Access/ } @mails;
is(join(', ', map { $_->{headers}{subject} } @reminders),
	'Der Zugriff von Partner auf Kunde & <Söhne> endet in 7 Tagen, Access of Partner to Kunde & <Söhne> ends in 7 days', 'both sides are reminded, each in their language');
like($reminders[0]{text}, qr{^https://portal\.example\.com/grants/1$}m, 'with a link to the grant');
like($reminders[0]{html}, qr{<html lang="de">.*Kunde &amp; &lt;Söhne&gt;.*<a href="https://portal\.example\.com/grants/1"}s, 'in HTML too, escaped');
ok(!exists $reminders[0]{headers}{'list-unsubscribe'}, 'a reminder is no list');
is(join('', map { @{ $_->{defects} } } @mails), '', 'the mails have no defects');
like($list->{text}, qr/- Smartphone, S-1, Büro "Süd"\r?\n- Kontaktlose Karte, C-1\r?$/m, 'the daily list has the keys');

# One click: both headers, a token in the path, nobody signed in, twice
my ($token) = $list->{headers}{'list-unsubscribe'} =~ m{^<https://portal\.example\.com/unsubscribe/([A-Za-z0-9_-]{43})>$};
ok(defined $token, 'the list can be left by a link');
is($list->{headers}{'list-unsubscribe-post'}, 'List-Unsubscribe=One-Click', 'with one click');
my $raw = join('', map { decode_base64($_->{mail}) } lines_of($mails));
like($raw, qr/^List-Unsubscribe: <https:\S+>\r\n/m, 'the header is on one line');

# click(token) is what the page behind the link calls
sub click
{
	my ($which) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('postgres') . ' user=app', '-v', 'ON_ERROR_STOP=1', '-v', "token=$which", '-f', '-' ],
		'<', \"SELECT partner_portal.unsubscribe(:'token');", '>', \$out, '2>', \$err) or return $err;
	chomp $out;
	return $out;
}
is(click($token), 't', 'the token alone is enough');
my $since = sql($node, 'SELECT opted_out_at FROM partner_portal.mail_opt_out WHERE opted_out_at IS NOT NULL');
is(click($token), 't', 'a second time too');
is(sql($node, 'SELECT opted_out_at FROM partner_portal.mail_opt_out WHERE opted_out_at IS NOT NULL'), $since, 'which changes nothing');
is(click(substr($token, 0, 42) . 'x'), '', 'another token is none');
is(click(''), '', 'nor is an empty one');
sql($node, q{INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'S-2')});
sql($node, 'UPDATE partner_portal.new_keys_digest SET done_until = done_until - 1');
tick(q{now() + interval '1 day'}, 3);
unlike(slurp_file($node->logfile), qr/\Q$token\E/, 'the token is in no line of the log');
is(sql($node, qq{SELECT count(*) FROM partner_portal.delivery_status s WHERE s::text LIKE '%$token%'}), '0', 'nor in what may be looked at');

# The other list goes on: the report, when the invoice is final
sql($node, 'DELETE FROM partner_portal.access_grant');
@mails = tick(q{upper(partner_portal.billing_period_at(1)) + interval '2 hours'}, 4);
my ($report) = grep { $_->{headers}{subject} =~ /Abrechnung/ } @mails;
ok(defined $report, 'the monthly report comes') or diag(join("\n", map { $_->{headers}{subject} } @mails));
like($report->{text}, qr/: 7[.,]50 CHF/, 'with its amount');
like($report->{html}, qr/bgcolor="#0b5cad"/, 'and its chart');
isnt($report->{headers}{'list-unsubscribe'} // '', $list->{headers}{'list-unsubscribe'}, 'and a way out of its own');
like($report->{headers}{'list-unsubscribe'} // '', qr{/unsubscribe/}, 'with a token');
is(sql($node, 'SELECT count(*) FROM partner_portal.job_step WHERE failures > 0'), '0', 'no step failed');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|signal 11|crash/, 'nothing crashed');

$node->stop;
done_testing();
