# delivery_pool.pl: a relay that was served in clear is demanded TLS of: no byte goes over the old connection (CVE-2026-4873).
# packages: python3-aiosmtpd openssl

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

my $dir = certificates('localhost');
my ($smtp, $mails) = start_peer('smtp_peer.py', '--tls', "$dir/localhost.pem", "$dir/localhost.key");
my $node = server('delivery_pool', "shared_preload_libraries = 'partner_portal'", "partner_portal.databases = 'postgres'",
	"partner_portal.smtp_url = 'smtp://localhost:$smtp'", "partner_portal.allow_cidr = '127.0.0.1:$smtp'", "partner_portal.ca_file = '$dir/ca.pem'");
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');

sub mail
{
	my ($name) = @_;
	return sql($node, "SELECT partner_portal.enqueue_mail(1, 'test', '$name', '$name\@peer.example', 'en', ROW('Subject', 'Text', NULL))");
}

mail("clear$_") foreach 1 .. 3;
ok(wait_for(sub { lines_of($mails) == 3 }, 'three mails'), 'mails are delivered in clear where that is allowed');
is(scalar(grep { $_->{tls} } lines_of($mails)), 0, 'without TLS');
configure($node, "partner_portal.allow_cidr = ''");
ok(wait_for(sub { sql($node, 'SHOW partner_portal.allow_cidr') eq '' }, 'the setting'), 'it is no longer allowed');
mail("tls$_") foreach 1 .. 3;
ok(wait_for(sub { lines_of($mails) == 6 }, 'three more'), 'mails are delivered');
my @later = (lines_of($mails))[ 3 .. 5 ];
is(scalar(grep { $_->{tls} } @later), 3, 'by TLS, each');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|signal 11|crash/, 'nothing crashed');
$node->stop;
done_testing();
