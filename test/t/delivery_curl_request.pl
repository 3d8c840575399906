# delivery_curl_request.pl (src/delivery_curl.c, src/delivery_request.c): addresses that must not be reached, proxies, injection, TLS.
# packages: openssl

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use MIME::Base64;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $dir = certificates('localhost', 'elsewhere.example');
my ($http, $requests) = start_peer('http_peer.py');
my ($inside, $intrusions) = start_peer('http_peer.py');
my ($https, $secured) = start_peer('http_peer.py', "$dir/localhost.pem", "$dir/localhost.key");
my ($wrong, $never) = start_peer('http_peer.py', "$dir/elsewhere.example.pem", "$dir/elsewhere.example.key");
# A proxy named by the environment must not be asked.
my @proxies = ('http_proxy', 'https_proxy', 'all_proxy', 'ALL_PROXY', 'HTTPS_PROXY');
$ENV{$_} = 'http://127.0.0.1:9' foreach @proxies;
my $node = server('delivery_request', 'partner_portal.delivery_timeout = 2s', "partner_portal.allow_cidr = '127.0.0.1:$http, 127.0.0.1:$https, 127.0.0.1:$wrong, [::1]:$https, [::1]:$wrong'");
delete $ENV{$_} foreach @proxies;
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');

# Addresses that must not be reached: every spelling, in clear and by TLS
my @spellings = ('127.0.0.1', '2130706433', '0x7f.1', '0x7f000001', '127.1', '0', '0.0.0.0', '017700000001', '[::1]', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[0:0:0:0:0:0:0:1]', 'localhost', 'LOCALHOST');
my @blocked = map { ("http://$_:$inside/", "https://$_:$inside/") } @spellings;
my %blocked = map { $_ => owe($node, $_) } @blocked;
deliver($node);
is(scalar(lines_of($intrusions)), 0, 'no request came inside');
my @other = grep { fate($node, $blocked{$_}) !~ /^pending\|1\|0\|the address is not allowed/ } @blocked;
is("@other", '', 'every spelling of a private address is refused');
my $meta = owe($node, 'http://169.254.169.254/latest/meta-data/');
deliver($node);
is(fate($node, $meta), 'pending|1|0|the address is not allowed in clear', 'nor the metadata service');
my $none = owe($node, 'https://nosuch.invalid/');
deliver($node);
like(fate($node, $none), qr/^pending\|1\|0\|/, 'a name that does not resolve is tried again');
my $file = owe($node, "http://127.0.0.1:$http/x?y=%0d%0aX-Injected:%201");
deliver($node);
like(fate($node, $file), qr/^delivered/, 'an address may be encoded');
ok(!exists((lines_of($requests))[-1]{headers}{'x-injected'}), 'but injects no header');

# TLS
my $untrusted = owe($node, "https://localhost:$https/untrusted");
deliver($node);
like(fate($node, $untrusted), qr/^pending\|1\|0\|SSL/, 'an unknown authority is not trusted');
configure($node, "partner_portal.ca_file = '$dir/ca.pem'");
my $trusted = owe($node, "https://localhost:$https/trusted");
my $misnamed = owe($node, "https://localhost:$wrong/misnamed");
deliver($node);
is(fate($node, $trusted), 'delivered|1|204|', 'a known one is');
like(fate($node, $misnamed), qr/^pending\|1\|0\|SSL/, 'a certificate of another name is not');
is(scalar(lines_of($never)), 0, 'and nothing was sent there');

unlike(slurp_file($node->logfile), qr/TRAP|PANIC|signal 11|crash/, 'nothing crashed');
$node->stop;
done_testing();
