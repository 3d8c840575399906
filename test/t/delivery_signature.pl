# delivery_signature.pl: npm's standardwebhooks, which is not ours, and the receiver of doc/notifications.md look at our signatures
# (src/webhook.c, src/signature.c). It needs node, npm and what npm fetches; without them it is skipped.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Encode qw(decode);
use IPC::Run;
use JSON::PP;
use MIME::Base64;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

sub found { return grep { -x "$_/$_[0]" } split(/:/, $ENV{PATH}) }
plan skip_all => 'no node or npm here' if !found('node') || !found('npm');
my $dir = PostgreSQL::Test::Utils::tempdir();
$ENV{HOME} = $dir;
my $fetched = IPC::Run::run([ 'npm', 'install', '--no-audit', '--no-fund', '--no-package-lock', '--fetch-retries=1', '--fetch-retry-mintimeout=1000', '--prefix', $dir, 'standardwebhooks@1' ],
	'<', \undef, '>&', "$dir/npm", IPC::Run::timeout(90));
plan skip_all => 'npm cannot fetch standardwebhooks' if !$fetched;

# ask(requests) lets the library verify each of [secret, headers, body] and returns its words: "ok TYPE", or why not.
append_to_file("$dir/verify.js", <<'JS');
const { Webhook } = require('standardwebhooks');
for (const [secret, headers, body] of JSON.parse(require('fs').readFileSync(0))) {
	try {
		console.log('ok', new Webhook(secret).verify(body, headers).type);
	} catch (error) {
		console.log(error.message);
	}
}
JS

sub ask
{
	my @questions = @_;
	my ($out, $err);
	IPC::Run::run([ 'node', "$dir/verify.js" ], '<', \encode_json(\@questions), '>', \$out, '2>', \$err) or diag($err);
	return split(/\n/, $out);
}

my ($http, $requests) = start_peer('http_peer.py');
my $node = server('delivery_signature');
configure($node, "partner_portal.allow_cidr = '127.0.0.0/8'");
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');

# event(key, text) owes an event, delivers it, and returns the request that came: headers and body
sub event
{
	my ($key, $text) = @_;
	my $data = encode_json({ text => $text // '' });
	sql($node, "SELECT partner_portal.enqueue_webhook_event(1, 'test', \$\$$data\$\$, '$key')");
	deliver($node);
	my $came = (lines_of($requests))[-1];
	return ($came->{headers}, decode('UTF-8', decode_base64($came->{body}), Encode::FB_CROAK));
}

my ($id, $first) = split(/\|/, sql($node, "SELECT endpoint_id, secret FROM partner_portal.create_webhook_endpoint(1, 'http://127.0.0.1:$http/ok', '{test}')"));
my ($headers, $body) = event('one', "Gr\x{fc}\x{df}e \x{1f511} \"quoted\" \\ </script>");
my %altered = (%$headers, 'webhook-id' => 'msg_other');
(my $changed = $body) =~ s/test/pest/;
my $other = 'whsec_' . encode_base64('x' x 32, '');
is_deeply([ ask([ $first, $headers, $body ], [ $other, $headers, $body ], [ $first, $headers, $changed ], [ $first, \%altered, $body ]) ],
	[ 'ok test', ('No matching signature found') x 3 ], 'a message verifies; with another secret, body or id it does not');

# While a secret is rotated both verify, afterwards the new one alone
my $second = sql($node, "SELECT partner_portal.rotate_webhook_secret($id)");
($headers, $body) = event('two');
is(scalar(split(/ /, $headers->{'webhook-signature'})), 2, 'while a secret is rotated there are two signatures');
is_deeply([ ask([ $first, $headers, $body ], [ $second, $headers, $body ], [ $other, $headers, $body ]) ],
	[ 'ok test', 'ok test', 'No matching signature found' ], 'and receivers with either secret are content');
sql($node, "UPDATE partner_portal.webhook_endpoint SET previous_secret_until = now() WHERE endpoint_id = $id");
($headers, $body) = event('three');
is_deeply([ ask([ $first, $headers, $body ], [ $second, $headers, $body ]) ], [ 'No matching signature found', 'ok test' ], 'afterwards the old one is worth nothing');

# An attempt is signed for its own time: receivers take five minutes of difference
my @times;
foreach my $away (-400, -200, 200, 400)
{
	my $at = time() + $away;
	my $signature = sql($node, "SELECT partner_portal.webhook_signature('$second', '$headers->{'webhook-id'}', $at, \$body\$$body\$body\$)");
	push @times, [ $second, { %$headers, 'webhook-timestamp' => "$at", 'webhook-signature' => $signature }, $body ];
}
is_deeply([ ask(@times) ], [ 'Message timestamp too old', 'ok test', 'ok test', 'Message timestamp too new' ], 'a time that is far off is refused');
sql($node, "SELECT partner_portal.resend_notification(notification_id) FROM partner_portal.notification WHERE dedupe_key = 'three:$id'");
deliver($node);
my $again = (lines_of($requests))[-1]{headers};
is($again->{'webhook-id'}, $headers->{'webhook-id'}, 'sent again it has the same id');
cmp_ok($again->{'webhook-timestamp'}, '>=', $headers->{'webhook-timestamp'}, 'and a time of its own');

# The receiver of doc/notifications.md
my ($receiver) = slurp_file("$FindBin::Bin/../../doc/notifications.md") =~ /^```js\n(.*?)^```/ms;
append_to_file("$dir/receiver.js", $receiver);

# receive(secret) starts it and returns its handle, its port and what it prints
sub receive
{
	my ($secret) = @_;
	my ($out, $err) = ('', '');
	local @ENV{ 'WEBHOOK_SECRET', 'PORT' } = ($secret, 0);
	my $handle = IPC::Run::start([ 'node', "$dir/receiver.js" ], '<', \undef, '>', \$out, '2>', \$err);
	wait_for(sub { $handle->pump_nb; $out =~ /port \d+\n/ }, 'the receiver') or diag($err);
	my ($port) = $out =~ /port (\d+)/;
	return ($handle, $port, \$out);
}

my ($good, $port, $printed) = receive($second);
sql($node, "UPDATE partner_portal.webhook_endpoint SET url = 'http://127.0.0.1:$port/' WHERE endpoint_id = $id");
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'test', '{"n": 1}', 'four')});
deliver($node);
is(sql($node, "SELECT state, last_code FROM partner_portal.notification WHERE dedupe_key = 'four:$id'"), 'delivered|204', 'the receiver of the page takes a message');
sql($node, "SELECT partner_portal.resend_notification(notification_id) FROM partner_portal.notification WHERE dedupe_key = 'four:$id'");
deliver($node);
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'test', '{"n": 2}', 'five')});
deliver($node);
ok(wait_for(sub { $good->pump_nb; $$printed =~ /"n":2/ }, 'the second'), 'and the next');
is(scalar(() = $$printed =~ /"n":1/g), 1, 'one that comes twice counts once');
$good->kill_kill;
my ($bad, $wrong) = receive($other);
sql($node, "UPDATE partner_portal.webhook_endpoint SET url = 'http://127.0.0.1:$wrong/' WHERE endpoint_id = $id");
sql($node, q{SELECT partner_portal.enqueue_webhook_event(1, 'test', '{"n": 3}', 'six')});
deliver($node);
is(sql($node, "SELECT state, attempts, last_code FROM partner_portal.notification WHERE dedupe_key = 'six:$id'"), 'pending|1|401', 'with another secret it refuses, and we try again');
$bad->kill_kill;

$node->stop;
done_testing();
