\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept delivery_address
\i :begin
-- public addresses, and their neighbours that are not
SELECT address, partner_portal.address_allowed(address, 443, '') AS allowed FROM unnest(ARRAY[
	'93.184.216.34', '8.8.8.8', '9.255.255.255', '10.0.0.1', '11.0.0.0', '0.0.0.0', '1.0.0.0', '100.63.255.255', '100.64.0.0', '100.127.255.255', '100.128.0.0',
	'127.0.0.1', '127.255.255.254', '128.0.0.1', '169.253.255.255', '169.254.169.254', '172.15.255.255', '172.16.0.1', '172.31.255.255', '172.32.0.0',
	'192.0.0.8', '192.0.2.1', '192.168.1.1', '192.169.0.0', '198.17.255.255', '198.18.0.1', '198.19.255.255', '203.0.113.9', '224.0.0.1', '239.255.255.255', '240.0.0.1', '255.255.255.255',
	'2606:2800:220:1::1', '::', '::1', '::ffff:127.0.0.1', '::ffff:8.8.8.8', '::ffff:169.254.169.254', '::127.0.0.1', '64:ff9b::7f00:1', '64:ff9b:1::1', '2001::1', '2002:7f00:1::', '2001:db8::1',
	'fc00::1', 'fdff::1', 'fe80::1', 'fec0::1', 'ff02::1', '2a00::1', '3fff::1', '100::1']) WITH ORDINALITY AS a (address, n) ORDER BY n;
-- the list opens a network, or one port of it
SELECT partner_portal.address_allowed('127.0.0.1', 8089, '127.0.0.1:8089') AS here, partner_portal.address_allowed('127.0.0.1', 5432, '127.0.0.1:8089') AS other_port,
	partner_portal.address_allowed('127.0.0.2', 8089, '127.0.0.1:8089') AS other_host, partner_portal.address_allowed('10.1.2.3', 25, ' 192.168.0.0/16 ,10.0.0.0/8') AS network,
	partner_portal.address_allowed('11.1.2.3', 25, '10.0.0.0/7') AS seven_bits, partner_portal.address_allowed('::1', 25, '[::1]:25') AS v6, partner_portal.address_allowed('::1', 26, '[::1]:25') AS v6_port,
	partner_portal.address_allowed('fd00::1', 26, '[fd00::/8]:26, fe80::/10') AS v6_network, partner_portal.address_allowed('::ffff:127.0.0.1', 25, '127.0.0.0/8') AS mapped;
\set VERBOSITY sqlstate
SELECT partner_portal.address_allowed('localhost', 25, '');
SELECT partner_portal.address_allowed('0x7f.1', 25, '');
SELECT partner_portal.address_allowed('127.0.0.1', 0, '');
SELECT partner_portal.address_allowed('127.0.0.1', 25, '10.0.0.0/33');
SELECT partner_portal.address_allowed('127.0.0.1', 25, '10.0.0.0/4294967304');
SELECT partner_portal.address_allowed('127.0.0.1', 25, '127.0.0.0/8:4294967321');
SELECT partner_portal.address_allowed('127.0.0.1', 25, '10.0.0.0/8:0');
SELECT partner_portal.address_allowed('127.0.0.1', 25, 'localhost');
SELECT partner_portal.address_allowed('127.0.0.1', 25, '10.0.0.0/');
SELECT partner_portal.address_allowed('127.0.0.1', 25, '[::1');
ALTER SYSTEM SET partner_portal.allow_cidr = 'everything';
ALTER SYSTEM SET partner_portal.smtp_url = 'http://mail.example.com';
ALTER SYSTEM SET partner_portal.smtp_url = 'smtp://user:password@mail.example.com';
