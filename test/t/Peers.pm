# Peers.pm: a server that delivers, and the peers that it delivers to.

package Peers;

use strict;
use warnings;

use Exporter 'import';
use File::Basename;
use IPC::Run;
use JSON::PP;
use MIME::Base64;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(start_peer stop_peers lines_of wait_for server configure sql make_workspace certificates owe fate deliver);

my $here = dirname(__FILE__);
my @peers;

# start_peer(script, arguments...) starts test/peer/SCRIPT and returns its port and the file of its log.
sub start_peer
{
	my ($script, @arguments) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my ($port_file, $log) = ("$dir/port", "$dir/log");
	open(my $empty, '>', $log) or die $!;
	close $empty;
	my $out = '';
	my $handle = IPC::Run::start(
		[ '/usr/bin/python3', "$here/../peer/$script", $port_file, $log, @arguments ],
		'<', \undef, '>&', "$dir/out");
	push @peers, $handle;
	wait_for(sub { -e $port_file }, "peer $script listens") or BAIL_OUT(slurp_file("$dir/out"));
	my $port = slurp_file($port_file);
	chomp $port;
	return ($port, $log);
}

# stop_peers() ends all peers.
sub stop_peers
{
	$_->kill_kill(grace => 1) foreach @peers;
	@peers = ();
	return;
}

END { local $?; stop_peers(); }

# lines_of(log) returns what a peer has received.
sub lines_of
{
	my ($log) = @_;
	return map { decode_json($_) } grep { /\}$/ } split(/\n/, slurp_file($log));
}

# wait_for(condition, name, seconds) waits until a condition holds; fails after so many seconds (default 60).
sub wait_for
{
	my ($condition, $name, $seconds) = @_;
	my $until = time() + ($seconds // 60);
	while (time() < $until)
	{
		return 1 if $condition->();
		select(undef, undef, undef, 0.02);
	}
	diag("waited in vain: $name");
	return 0;
}

# server(name, lines of configuration) makes and starts a cluster with a master key.
sub server
{
	my ($name, @lines) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init;
	my $secrets = $node->data_dir . '/secrets';
	open(my $file, '>', $secrets) or die $!;
	print $file 'key 1 ', encode_base64('k' x 32, ''), "\n";
	close $file;
	chmod 0600, $secrets;
	$node->append_conf('postgresql.conf', join("\n", "partner_portal.secrets_file = '$secrets'",
			"partner_portal.smtp_from = 'Portal <portal\@portal.example>'", 'fsync = off', @lines) . "\n");
	$node->start;
	return $node;
}

# configure(node, lines) appends settings and reloads.
sub configure
{
	my ($node, @lines) = @_;
	$node->append_conf('postgresql.conf', join("\n", @lines) . "\n");
	$node->reload;
	return;
}

# sql(node, statement) runs SQL as superuser and returns what it prints.
sub sql
{
	my ($node, $statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

# make_workspace(node) makes a direct workspace by bare rows and returns its id.
sub make_workspace
{
	my ($node, $slug) = @_;
	return sql($node, qq{INSERT INTO partner_portal.workspace (company_name, slug, anchor_date)
		VALUES ('Company $slug', '$slug', '2026-01-01') RETURNING workspace_id});
}

# certificates(names) makes an authority and a certificate for each name, and returns their directory: ca.pem, NAME.pem, NAME.key.
sub certificates
{
	my @names = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $openssl = sub { system_log('openssl', @_) == 0 or BAIL_OUT('openssl failed') };
	$openssl->('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$dir/ca.key", '-out', "$dir/ca.pem", '-days', '30', '-subj', '/CN=test authority');
	foreach my $name (@names)
	{
		append_to_file("$dir/$name.ext", "subjectAltName=DNS:$name\n");
		$openssl->('req', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$dir/$name.key", '-out', "$dir/$name.csr", '-subj', "/CN=$name");
		$openssl->('x509', '-req', '-in', "$dir/$name.csr", '-CA', "$dir/ca.pem", '-CAkey', "$dir/ca.key", '-CAcreateserial', '-out', "$dir/$name.pem",
			'-days', '30', '-extfile', "$dir/$name.ext");
	}
	return $dir;
}

my $next = 0;

# owe(node, url) owes one event to a new endpoint of workspace 1 and returns the endpoint's id.
sub owe
{
	my ($node, $url) = @_;
	my $event = 'e' . ++$next;
	my $id = sql($node, "SELECT endpoint_id FROM partner_portal.create_webhook_endpoint(1, '$url', '{$event}')");
	sql($node, "SELECT partner_portal.enqueue_webhook_event(1, '$event', '{}', 'x')");
	return $id;
}

# fate(node, endpoint) is what became of its event.
sub fate
{
	my ($node, $id) = @_;
	return sql($node, "SELECT state, attempts, coalesce(last_code, 0), last_error FROM partner_portal.notification WHERE endpoint_id = $id");
}

# deliver(node) tries all that is due.
sub deliver
{
	my ($node) = @_;
	return sql($node, 'CALL partner_portal.deliver_notifications(1000)');
}

1;
