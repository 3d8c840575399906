# secrets.pl: the secrets file: who may read it, what stands in it, and that nothing of it shows.
# About src/secrets.c and src/file_stamp.c.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use MIME::Base64;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = server('secrets');
my $file = $node->data_dir . '/secrets';
sql($node, 'CREATE EXTENSION partner_portal');
make_workspace($node, 'one');

# attempt() makes an endpoint and returns the error, or ''
sub attempt
{
	my ($rc, $out, $err) = $node->psql('postgres', q{SELECT secret FROM partner_portal.create_webhook_endpoint(1, 'https://hooks.example/', '{*}')});
	return $rc == 0 ? '' : $err;
}

sub content
{
	my ($text) = @_;
	open(my $out, '>', $file) or die $!;
	print $out $text;
	close $out;
	return;
}

is(attempt(), '', 'a private file is read');
foreach my $mode (0604, 0644, 0660, 0606, 0777)
{
	chmod $mode, $file;
	like(attempt(), qr/group or world access/, sprintf('one of mode %o is refused', $mode));
}
chmod 0640, $file;
is(attempt(), '', 'one of mode 640 is read');
chmod 0600, $file;
is(sql($node, q{SELECT count(DISTINCT partner_portal.webhook_secret(nonce, key_version, secret_version)) FROM partner_portal.webhook_endpoint}), '2', 'each endpoint has its own secret');
my $before = sql($node, 'SELECT partner_portal.webhook_secret(nonce, key_version, secret_version) FROM partner_portal.webhook_endpoint WHERE endpoint_id = 1');

# a new master key: old endpoints keep theirs
content("# keys\nkey 1 " . encode_base64('k' x 32, '') . "\nkey 2 " . encode_base64('K' x 32, '') . "\n");
is(attempt(), '', 'a second key is taken');
is(sql($node, 'SELECT string_agg(key_version::text, $$,$$ ORDER BY endpoint_id) FROM partner_portal.webhook_endpoint'), '1,1,2', 'for new endpoints');
is(sql($node, 'SELECT partner_portal.webhook_secret(nonce, key_version, secret_version) FROM partner_portal.webhook_endpoint WHERE endpoint_id = 1'), $before, 'old ones keep their secret');

content('key 1 ' . encode_base64('short', '') . "\n");
my $error = attempt();
like($error, qr/key 1 of the secrets file is not 32 bytes/, 'a short key is refused');
unlike($error, qr/c2hvcnQ/, 'and not shown');
content("nothing\n");
like(attempt(), qr/there is no master key/, 'without a key there are no endpoints');
unlink $file;
like(attempt(), qr/could not open secrets file/, 'nor without the file');
unlike(slurp_file($node->logfile), qr/\Q$before\E|a2tra2tr|c2hvcnQ/, 'nothing of it is in the log');

$node->stop;
done_testing();
