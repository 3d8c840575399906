"""Delivery against bare libcurl to the same peer, durable; the length of the queue; and what owing a message costs.

Webhooks go to 16 endpoints of nginx, four at once to each, in bodies of about 120 bytes; mails of about 1 kB to Postfix's smtp-sink, one
after the other. fsync and synchronous_commit are on for these two.
"""
import base64
import os
import socket
import subprocess
import tempfile
import time

from bench import Figure, HERE, cpu_of, figure, number, pairs

NGINX = """daemon off; worker_processes 1; pid %(dir)s/nginx.pid; error_log %(dir)s/nginx.log;
events { worker_connections 1024; }
http {
	access_log off; keepalive_requests 1000000000;
	client_body_temp_path %(dir)s; proxy_temp_path %(dir)s; fastcgi_temp_path %(dir)s; uwsgi_temp_path %(dir)s; scgi_temp_path %(dir)s;
	server { listen 127.0.0.1:%(port)d; location / { return 204; } }
}
"""


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def wait_for_port(port):
    for _ in range(500):
        with socket.socket() as s:
            if s.connect_ex(('127.0.0.1', port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError('nobody listens at port %d' % port)


class Delivery:
    """The peers, a server that may send to them, and an endpoint per path."""

    def __init__(self, bench, directory):
        self.bench = bench
        self.serial = 0
        self.directory = directory
        self.http, self.smtp = free_port(), free_port()
        with open(directory + '/nginx.conf', 'w') as conf:
            conf.write(NGINX % {'dir': directory, 'port': self.http})
        subprocess.run(['gcc', '-O2', '-o', directory + '/floor', os.path.join(HERE, 'delivery_floor.c'), '-lcurl'], check=True)
        self.peers = [subprocess.Popen(['/usr/sbin/nginx', '-c', directory + '/nginx.conf'], stderr=subprocess.DEVNULL),
                      subprocess.Popen(['/usr/sbin/smtp-sink', '127.0.0.1:%d' % self.smtp, '1000'])]
        wait_for_port(self.http)
        wait_for_port(self.smtp)
        with open(os.open(directory + '/secrets', os.O_CREAT | os.O_WRONLY, 0o600), 'w') as secrets:
            secrets.write('key 1 %s\n' % base64.b64encode(os.urandom(32)).decode())
        self.db = bench.connect()
        self.db.execute("LOAD 'partner_portal'; SET synchronous_commit = on")
        self.settings = {'partner_portal.secrets_file': directory + '/secrets', 'partner_portal.allow_cidr': '127.0.0.0/8',
                         'partner_portal.smtp_url': 'smtp://127.0.0.1:%d' % self.smtp, 'partner_portal.smtp_from': 'portal@portal.example'}
        self.configure(self.settings)
        self.workspace = bench.first_direct
        self.db.execute("SELECT endpoint_id FROM generate_series(1, 16) i,"
                        " LATERAL partner_portal.create_webhook_endpoint(%s, 'http://127.0.0.1:' || %s || '/' || i, '{bench}') ORDER BY 1",
                        (self.workspace, self.http))
        self.endpoints = [row[0] for row in self.db.fetchall()]

    def configure(self, settings):
        for name, value in settings.items():
            self.bench.psql.execute("LOAD 'partner_portal'")
            if value is None:
                self.bench.psql.execute('ALTER SYSTEM RESET ' + name)
            else:
                self.bench.psql.execute('ALTER SYSTEM SET ' + name + ' = %s', (value,))
        self.bench.psql.execute('SELECT pg_reload_conf()')
        for name, value in settings.items():
            while value is not None and self.setting(name) != value:
                time.sleep(0.02)

    def setting(self, name):
        self.db.execute('SELECT current_setting(%s)', (name,))
        return self.db.fetchone()[0]

    def close(self):
        self.configure({'fsync': None, **{name: None for name in self.settings}})
        for peer in self.peers:
            peer.terminate()
            peer.wait()
        self.db.connection.close()

    def key(self):
        self.serial += 1
        return 'bench-%d-' % self.serial

    def pending(self):
        """Messages in the queue, counted by a session that is not measured."""
        return self.bench.row('SELECT count(*) FROM partner_portal.delivery_queue')[0]

    def vacuum(self):
        self.db.execute('VACUUM ANALYZE partner_portal.delivery_queue')
        self.db.execute('VACUUM ANALYZE partner_portal.notification')
        self.db.execute('CHECKPOINT')

    def floor(self, url, count, at_once, size):
        """Transfers in a second by bare libcurl."""
        output = subprocess.run([self.directory + '/floor', url, str(count), str(at_once), str(size)], stdout=subprocess.PIPE, check=True, text=True)
        return float(output.stdout)

    def deliver(self, count):
        """Messages in a second, of so many."""
        before = self.pending()
        start = time.time()
        self.db.execute('CALL partner_portal.deliver_notifications(%s)', (count,))
        took = time.time() - start
        left = self.pending() - before + count
        if left > count / 100:
            self.db.execute('SELECT outcome, code, error, count(*) FROM partner_portal.delivery_attempt GROUP BY 1, 2, 3')
            raise RuntimeError('%d of %d were not delivered: %s' % (left, count, self.db.fetchall()))
        return (count - left) / took

    def owe_webhooks(self, count):
        self.db.execute("SELECT count(partner_portal.enqueue_webhook_event(%s, 'bench', '{\"key_id\": 4711}', %s || i)) FROM generate_series(1, %s) i",
                        (self.workspace, self.key(), count // 16))
        self.vacuum()

    def owe_mails(self, count):
        self.db.execute("SELECT count(partner_portal.enqueue_mail(%s, 'bench', %s || i, 'rcpt@peer.example', 'en',"
                        " ROW('Subject', repeat('text ', 120), NULL))) FROM generate_series(1, %s) i", (self.workspace, self.key(), count))
        self.vacuum()

    def fill(self, count, due):
        """So many messages in the queue, straight into the tables."""
        self.db.execute("SET session_replication_role = replica;"
                        "WITH n AS (INSERT INTO partner_portal.notification (workspace_id, partner_key, kind, dedupe_key, endpoint_id, text_body, next_attempt_at)"
                        " SELECT %s, 0, 'webhook.bench', %s || i, (%s::bigint[])[1 + i %% 16], '{\"type\":\"bench\",\"data\":{\"key_id\": 4711}}', now() + %s"
                        " FROM generate_series(1, %s) i RETURNING workspace_id, notification_id, endpoint_id, next_attempt_at)"
                        "INSERT INTO partner_portal.delivery_queue (workspace_id, notification_id, destination, next_attempt_at) SELECT * FROM n;"
                        "RESET session_replication_role", (self.workspace, self.key(), self.endpoints, due, count))

    def cpu_each(self):
        """Microseconds of CPU of the server process for each of 1,600 webhooks; the first 64 make the connections."""
        self.db.execute('CALL partner_portal.deliver_notifications(64)')
        return cpu_of(self.db, lambda: self.deliver(1600)) / 1600

    def activate(self, workspace, keys):
        self.serial += 1
        self.db.execute("INSERT INTO partner_portal.security_key (workspace_id, kind, serial)"
                        " SELECT %s, 'smartphone', 'D-' || %s || '-' || i FROM generate_series(1, %s) i", (workspace, self.serial, keys))


def rates(delivery):
    """Webhooks and mails in a second."""
    scale = min(1, delivery.bench.scale * 3)
    webhooks = max(1600, int(20000 * scale) // 16 * 16)
    mails = max(400, int(5000 * scale))
    delivery.configure({'fsync': 'on'})

    def product(owe, count):
        owe(count)
        return delivery.deliver(count)

    yield figure('webhooks delivered', 'bare libcurl', pairs(
        delivery.bench.times(7), lambda: delivery.floor('http://127.0.0.1:%d/' % delivery.http, webhooks, 64, 120),
        lambda: product(delivery.owe_webhooks, webhooks)), 0.3, high=True, unit='a second')
    yield figure('mails delivered', 'bare libcurl', pairs(
        delivery.bench.times(7), lambda: delivery.floor('smtp://127.0.0.1:%d/portal.example' % delivery.smtp, mails, 1, 1000),
        lambda: product(delivery.owe_mails, mails)), 0.3, high=True, unit='a second')
    delivery.configure({'fsync': 'off'})


def long_queue(delivery):
    """The cost of a webhook, by what else is in the queue."""
    many = max(int(1000000 * delivery.bench.scale), 20000)
    times = delivery.bench.times(5)
    delivery.fill(1664 * times + 1000, '0')
    delivery.vacuum()
    few = [delivery.cpu_each() for _ in range(times)]

    def against(what):
        measured = [delivery.cpu_each() for _ in range(times)]
        return figure(what, 'with 1,000', list(zip(few, measured)), 1.2, unit='µs CPU')

    delivery.fill(many, '0')
    delivery.vacuum()
    yield against('a webhook with %s queued' % number(many))
    delivery.db.execute('DELETE FROM partner_portal.delivery_queue q WHERE notification_id <'
                        ' (SELECT avg(notification_id) FROM partner_portal.delivery_queue)')
    yield against('the same, half of them gone, without vacuum')
    delivery.fill(many, '1 hour')
    yield against('the same, %s more put off' % number(many))
    delivery.db.execute('SET partner_portal.allow_drop = on; TRUNCATE partner_portal.delivery_queue; RESET partner_portal.allow_drop')


def owing(delivery):
    """The cost of owing an event to a transaction that activates keys: two workspaces, of which one hears."""
    deaf = delivery.workspace + 1
    delivery.db.execute("SELECT partner_portal.create_webhook_endpoint(%s, 'http://127.0.0.1/', '{security_key.activated}')", (delivery.workspace,))
    delivery.db.execute('UPDATE partner_portal.workspace SET key_limit = NULL WHERE workspace_id IN (%s, %s)', (deaf, delivery.workspace))
    for keys, repeat in ((100, 20), (1, 200)):
        for workspace in (deaf, delivery.workspace):
            delivery.activate(workspace, keys)
        yield figure('activation of %s that owes an event' % ('a key' if keys == 1 else '%d keys' % keys), 'without', pairs(
            delivery.bench.times(7), lambda: cpu_of(delivery.db, lambda: delivery.activate(deaf, keys), repeat),
            lambda: cpu_of(delivery.db, lambda: delivery.activate(delivery.workspace, keys), repeat)), 1.1, unit='µs CPU')


def run(bench):
    with tempfile.TemporaryDirectory() as directory:
        delivery = Delivery(bench, directory)
        try:
            for part in (rates, long_queue, owing):
                yield from part(delivery)
        finally:
            delivery.close()
