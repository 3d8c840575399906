"""harness.py: what the property tests share: verdicts, a database of their own, tokens, and the pages' examples."""
import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

import psycopg2

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")

tests = failures = 0


def verdict(good, text, details=()):
    """Prints the outcome of one test, and what explains a failure."""
    global tests, failures
    tests += 1
    failures += not good
    print("%s %d - %s" % ("ok" if good else "not ok", tests, text), flush=True)
    for line in [] if good else list(details)[:20]:
        print("    " + str(line)[:2000])


def skip(text):
    global tests
    tests += 1
    print("ok %d - # SKIP %s" % (tests, text), flush=True)


def finish():
    """The plan, and the exit status."""
    print("1..%d" % tests)
    return 1 if failures else 0


def connect(database):
    connection = psycopg2.connect(dbname=database)
    connection.autocommit = True
    return connection


def connect_at(database, level, settings):
    """A connection at an isolation level (None: each statement its own transaction) with these settings, and a cursor."""
    connection = psycopg2.connect(dbname=database)
    if level is None:
        connection.autocommit = True
    else:
        connection.set_session(isolation_level=level)
    cursor = connection.cursor()
    cursor.execute(settings)
    if level is not None:
        connection.commit()
    return connection, cursor


def one(cursor, query, *arguments):
    cursor.execute(query, arguments)
    return cursor.fetchone()


def make_database(database, role=None):
    """A new database with the extension, a connection to it, and the role enrolled as an application."""
    control = connect("postgres")
    cursor = control.cursor()
    cursor.execute("DROP DATABASE IF EXISTS %s WITH (FORCE)" % database)
    cursor.execute("CREATE DATABASE %s TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'" % database)
    control.close()
    connection = connect(database)
    cursor = connection.cursor()
    cursor.execute("CREATE EXTENSION partner_portal")
    if role:
        make_role(cursor, role)
        cursor.execute("SELECT partner_portal.enroll_role(%s, 'application')", (role,))
    return connection


def make_role(cursor, role):
    cursor.execute("SELECT to_regrole(%s) IS NULL", (role,))
    if cursor.fetchone()[0]:
        cursor.execute("CREATE ROLE %s LOGIN" % role)


def drop_database(database):
    connect("postgres").cursor().execute("DROP DATABASE IF EXISTS %s WITH (FORCE)" % database)


def token(secret, account, expires=None):
    """A JSON Web Token of the account, by HS256, for an hour unless told."""
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
    claims = {"sub": str(account), "exp": expires or time.time() + 3600}
    text = part(json.dumps({"alg": "HS256"}).encode()) + "." + part(json.dumps(claims).encode())
    return text + "." + part(hmac.new(secret, text.encode(), hashlib.sha256).digest())


@contextlib.contextmanager
def signing(cursor, secret):
    """For as long as this lasts tokens are believed that are signed with this secret; gives a directory to write to."""
    directory = tempfile.mkdtemp()
    try:
        os.chmod(directory, 0o755)
        path = os.path.join(directory, "jwks.json")
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            json.dump({"keys": [{"kty": "oct", "alg": "HS256", "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode()}]}, file)
        set_key_file(cursor, path)
        yield directory
    finally:
        set_key_file(cursor, None)
        shutil.rmtree(directory)


def set_key_file(cursor, path):
    """Names the file of token keys (None: no file), and waits until every new session has it."""
    cursor.execute("ALTER SYSTEM SET partner_portal.jwks_file = '%s'" % path if path else "ALTER SYSTEM RESET partner_portal.jwks_file")
    cursor.execute("SELECT pg_reload_conf()")
    for _ in range(200):
        fresh = connect("postgres")
        check = fresh.cursor()
        check.execute("LOAD 'partner_portal'; SELECT current_setting('partner_portal.jwks_file')")
        arrived = check.fetchone()[0] == (path or "")
        fresh.close()
        if arrived:
            return
        time.sleep(0.05)
    raise SystemExit("the setting does not arrive")


def page_block(page, title, kind):
    """The first block of that kind in a page's section of that title."""
    with open(os.path.join(TOP, page)) as file:
        section = re.search(r"^## %s\n(.*?)(?:^## |\Z)" % re.escape(title), file.read(), re.M | re.S).group(1)
    return re.search(r"^```%s\n(.*?)^```" % kind, section, re.M | re.S).group(1)


def start_pgbouncer(directory, database, role):
    """PgBouncer as doc/connecting.md has it, but for its places and for how it knows people: its process and port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host = os.environ.get("PGHOST", "/var/run/postgresql")
    text = page_block("doc/connecting.md", "Behind a pooler", "ini")
    text = re.sub(r"^portal = .*", "portal = host=%s port=%s dbname=%s user=%s" % (host, os.environ.get("PGPORT", "5432"), database, role), text, flags=re.M)
    text = re.sub(r"^auth_type = .*", "auth_type = any", text, flags=re.M)
    text = re.sub(r"^auth_file = .*\n", "", text, flags=re.M)
    text = re.sub(r"^listen_port = .*", "listen_port = %d\nlisten_addr = 127.0.0.1\nunix_socket_dir = %s\nlogfile = %s/log\npidfile = %s/pid\nadmin_users = %s\nserver_round_robin = 1"
                  % (port, directory, directory, directory, role), text, flags=re.M)
    path = os.path.join(directory, "pgbouncer.ini")
    with open(path, "w") as file:
        file.write(text)
    process = subprocess.Popen(["pgbouncer", "-q", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        if os.path.exists(os.path.join(directory, ".s.PGSQL.%d" % port)):
            return process, port
        if process.poll() is not None:
            break
        time.sleep(0.05)
    with open(os.path.join(directory, "log")) as file:
        raise SystemExit("pgbouncer does not start:\n" + file.read())
