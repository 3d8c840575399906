"""login() with an HS256 token against SELECT 1: round trips of one client inside its transaction, the fastest of many short
bursts, for a round trip is elapsed time and whatever else the machine does is in it."""
import base64
import hashlib
import hmac
import json
import time

from bench import figure, pairs_on_one_core

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

        client = bench.connect()
        # the library is loaded outside of the transaction, as in any session but a new one
        client.execute('SELECT partner_portal.current_account_id()')
        client.execute("BEGIN; PREPARE floor AS SELECT 1; PREPARE product AS SELECT partner_portal.login('%s')" % token)

        def burst(statement):
            start = time.perf_counter()
            for _ in range(50):
                client.execute(statement)
            return (time.perf_counter() - start) / 50 * 1e6

        def fastest(statement):
            return min(burst(statement) for _ in range(20))

        yield figure('login with an HS256 token, round trip', 'SELECT 1', pairs_on_one_core(
            bench.times(15), lambda: fastest('EXECUTE floor'), lambda: fastest('EXECUTE product'), client), 2, unit='µs')
        client.connection.close()
    finally:
        bench.db.execute('ALTER SYSTEM RESET partner_portal.jwks_file')
        bench.db.execute('SELECT pg_reload_conf()')
