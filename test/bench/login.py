"""login() with an HS256 token against SELECT 1: round trips of one client inside its transactions."""
import base64
import hashlib
import hmac
import json
import time

from bench import figure, pairs, pgbench

SECRET = b'a secret of the benchmark, 32 bytes at least'


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b'=')


def run(bench):
    jwks = json.dumps({'keys': [{'kty': 'oct', 'kid': 'bench', 'alg': 'HS256', 'k': encoded(SECRET).decode()}]})
    bench.db.execute("COPY (SELECT %s) TO PROGRAM 'umask 077; cat > bench.jwks'", (jwks,))
    bench.db.execute("ALTER SYSTEM SET partner_portal.jwks_file = 'bench.jwks'")
    bench.db.execute('SELECT pg_reload_conf()')
    parts = encoded(json.dumps({'alg': 'HS256', 'kid': 'bench', 'typ': 'JWT'}).encode()) + b'.' + \
        encoded(json.dumps({'sub': '1', 'iat': int(time.time()), 'exp': int(time.time()) + 86400, 'jti': 'a83f0c1b'}).encode())
    token = (parts + b'.' + encoded(hmac.new(SECRET, parts, hashlib.sha256).digest())).decode()
    try:
        for _ in range(50):
            fresh = bench.connect()
            fresh.execute('SHOW partner_portal.jwks_file')
            known = fresh.fetchone()[0] == 'bench.jwks'
            fresh.connection.close()
            if known:
                break
            time.sleep(0.1)
        # a key file that is still fresh is read again each time
        time.sleep(4)

        def round_trip(statement):
            return 1e6 / 22 / pgbench('BEGIN;\n' + 20 * statement + 'COMMIT;\n', 1, bench.seconds(2))

        def floor():
            return round_trip('SELECT 1;\n')

        def product():
            return round_trip("SELECT partner_portal.login('%s');\n" % token)

        yield figure('login with an HS256 token, round trip', 'SELECT 1', pairs(bench.times(5), floor, product), 2, unit='µs')
    finally:
        bench.db.execute('ALTER SYSTEM RESET partner_portal.jwks_file')
        bench.db.execute('SELECT pg_reload_conf()')
