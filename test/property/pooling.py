#!/usr/bin/python3
# packages: python3-psycopg2 pgbouncer
"""pooling.py: 200 clients, each of an account of its own, on 10 connections of PgBouncer in transaction mode.

PgBouncer runs with the configuration that doc/connecting.md shows.  Each client signs in by token in each transaction, and must
see its own workspace and nothing else, whoever had the connection before and however that ended: committed, rolled back,
failed, with a holdable cursor or a temporary table tried, or with a prepared statement left behind, which the next client
executes.  Between transactions, and in those that do not sign in, there is nobody and nothing.

Then the page's examples for psql and node-postgres run through the same PgBouncer; the latter needs node and npm, and
what npm fetches.

  pooling.py [--clients N] [--rounds N] [--seed N]
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import threading
import time

import psycopg2

from lib import harness
from lib.harness import skip, verdict

DATABASE = "pp_pooling"
ROLE = "regress_pool"
SECRET = b"a secret of the test of pooling, 32 bytes or more"
POOL_SIZE = 10

parser = argparse.ArgumentParser()
parser.add_argument("--clients", type=int, default=200)
parser.add_argument("--rounds", type=int, default=50)
parser.add_argument("--seed", type=int, default=int(time.time()))
options = parser.parse_args()


def make_database():
    connection = harness.make_database(DATABASE, ROLE)
    cursor = connection.cursor()
    cursor.execute("REVOKE TEMPORARY ON DATABASE %s FROM PUBLIC" % DATABASE)
    # account n owns workspace n, with n % 5 + 1 keys
    cursor.execute("""SELECT count(*) FROM generate_series(1, %s) n,
        LATERAL partner_portal.create_workspace('Company ' || n, 'owner' || n || '@example.com') w""", (options.clients,))
    cursor.execute("SELECT count(*) FROM partner_portal.member WHERE account_id = workspace_id AND role = 'owner'")
    assert cursor.fetchone()[0] == options.clients
    cursor.execute("""INSERT INTO partner_portal.security_key (workspace_id, kind, serial)
        SELECT n, 'smartphone', 'of ' || n || ' number ' || i FROM generate_series(1, %s) n, generate_series(1, n %% 5 + 1) i""", (options.clients,))
    return connection


def page_block(kind):
    return harness.page_block("doc/connecting.md", "Behind a pooler", kind)


class Client(threading.Thread):
    def __init__(self, account, directory, port):
        super().__init__()
        self.account = account
        self.where = dict(host=directory, port=port, dbname="portal", user=ROLE)
        self.random = random.Random("%d %d" % (options.seed, account))
        self.token = harness.token(SECRET, account)
        self.wrong = []
        self.refused = {}
        self.served = {}
        self.transactions = 0
        self.executed = 0

    def note(self, text):
        self.wrong.append("account %d: %s" % (self.account, text))

    def one(self, statement, parameters=None):
        self.cursor.execute(statement, parameters)
        return self.cursor.fetchone()

    def run(self):
        try:
            connection = psycopg2.connect(**self.where)
            connection.autocommit = True
            self.cursor = connection.cursor()
            for _ in range(options.rounds):
                self.random.choice((self.reads, self.reads, self.rolls_back, self.fails, self.holds, self.keeps, self.prepares,
                                    self.prepares, self.does_not_sign_in, self.signs_in_outside, self.after_a_savepoint))()
                self.transactions += 1
                self.nobody("after it")
            connection.close()
        except Exception as error:      # whatever it is, it must not pass for success
            self.note("%s: %s" % (type(error).__name__, error))

    def nobody(self, when):
        row = self.one("""SELECT partner_portal.current_account_id(), partner_portal.current_workspace_id(), partner_portal.is_operator(),
            (SELECT count(*) FROM partner_portal.workspace), (SELECT count(*) FROM partner_portal.security_key)""")
        if row != (None, None, False, 0, 0):
            self.note("%s there is %r" % (when, row))

    def sign_in(self):
        if self.one("SELECT partner_portal.login(%s)", (self.token,))[0] != self.account:
            self.note("signed in as somebody else")

    def own(self):
        row = self.one("""SELECT pg_backend_pid(), partner_portal.current_account_id(), (SELECT array_agg(workspace_id) FROM partner_portal.workspace),
            (SELECT count(*) FROM partner_portal.security_key), (SELECT count(*) FROM partner_portal.security_key WHERE workspace_id = %s)""", (self.account,))
        self.served.setdefault(row[0], 0)
        self.served[row[0]] += 1
        keys = self.account % 5 + 1
        if row[1:] != (self.account, [self.account], keys, keys):
            self.note("sees %r" % (row[1:],))

    def expect(self, state, statement):
        try:
            self.cursor.execute(statement)
            self.note("%s was not refused" % statement)
        except psycopg2.Error as error:
            self.refused[error.pgcode] = self.refused.get(error.pgcode, 0) + 1
            if error.pgcode != state:
                self.note("%s: %s, not %s" % (statement, error.pgcode, state))

    def reads(self):
        self.one("BEGIN; SELECT 1")
        self.sign_in()
        self.own()
        self.cursor.execute("UPDATE partner_portal.security_key SET label = %s", ("of account %d" % self.account,))
        if self.cursor.rowcount != self.account % 5 + 1:
            self.note("changed %d keys" % self.cursor.rowcount)
        self.own()
        self.cursor.execute("COMMIT")

    def rolls_back(self):
        self.one("BEGIN; SELECT 1")
        self.sign_in()
        self.own()
        self.cursor.execute("ROLLBACK")

    def fails(self):
        self.one("BEGIN; SELECT 1")
        self.sign_in()
        self.expect("22012", "SELECT 1 / 0")
        self.expect("25P02", "SELECT count(*) FROM partner_portal.workspace")
        self.cursor.execute("ROLLBACK")

    def holds(self):
        self.one("BEGIN; SELECT 1")
        self.sign_in()
        self.expect("25001", "DECLARE kept CURSOR WITH HOLD FOR SELECT * FROM partner_portal.security_key")
        self.cursor.execute("ROLLBACK")
        self.one("BEGIN; SELECT 1")
        self.cursor.execute("DECLARE kept CURSOR WITH HOLD FOR SELECT * FROM partner_portal.security_key")
        self.expect("25001", "SELECT partner_portal.login('%s')" % self.token)
        self.cursor.execute("ROLLBACK")

    def keeps(self):
        self.one("BEGIN; SELECT 1")
        self.sign_in()
        self.expect("42501", "CREATE TEMP TABLE kept AS SELECT * FROM partner_portal.security_key")
        self.cursor.execute("ROLLBACK")

    def prepares(self):
        """Executes what another client has prepared on this connection, if there is something."""
        self.one("BEGIN; SELECT 1")
        self.sign_in()
        if self.one("SELECT count(*) FROM pg_prepared_statements WHERE name = 'shared'")[0] == 0:
            self.cursor.execute("SET plan_cache_mode = force_generic_plan")
            self.cursor.execute("PREPARE shared AS SELECT array_agg(DISTINCT workspace_id), count(*) FROM partner_portal.security_key")
        else:
            self.executed += 1
        row = self.one("EXECUTE shared")
        if row != ([self.account], self.account % 5 + 1):
            self.note("a prepared statement shows %r" % (row,))
        self.cursor.execute("COMMIT")

    def does_not_sign_in(self):
        self.one("BEGIN; SELECT 1")
        self.nobody("without signing in")
        if self.one("SELECT count(*) FROM pg_prepared_statements WHERE name = 'shared'")[0] == 1:
            row = self.one("EXECUTE shared")
            if row != (None, 0):
                self.note("a prepared statement shows nobody %r" % (row,))
        self.cursor.execute("COMMIT")

    def signs_in_outside(self):
        self.sign_in()

    def after_a_savepoint(self):
        self.one("BEGIN; SELECT 1")
        self.one("SAVEPOINT s; SELECT 1")
        self.sign_in()
        self.own()
        self.cursor.execute("ROLLBACK TO s")
        self.nobody("after the savepoint")
        self.sign_in()
        self.own()
        self.cursor.execute("COMMIT")


def run_example(text, directory, command, port):
    environment = dict(os.environ, TOKEN=harness.token(SECRET, 7), DATABASE_URL="postgresql://%s@127.0.0.1:%d/portal" % (ROLE, port))
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE"):
        environment.pop(name, None)
    return subprocess.run(command, input=text, text=True, capture_output=True, cwd=directory, env=environment, timeout=120)


def examples(directory, port):
    done = run_example(page_block("sh"), directory, ["bash", "-eu"], port)
    verdict(done.returncode == 0 and "Company 7" in done.stdout and "(1 row)" in done.stdout, "doc/connecting.md's example for psql prints its one workspace",
            (done.stdout + done.stderr).splitlines())
    if not shutil.which("node") or not shutil.which("npm"):
        skip("doc/connecting.md's example for node-postgres: there is no node here")
        return
    done = run_example("", directory, ["npm", "install", "--no-audit", "--no-fund", "--prefix", directory, "--cache", directory + "/cache", "pg@8"], port)
    if done.returncode != 0:
        skip("doc/connecting.md's example for node-postgres: npm cannot fetch pg: " + (done.stderr.splitlines() or ["?"])[-1])
        return
    with open(os.path.join(directory, "example.js"), "w") as file:
        file.write(page_block("js"))
    done = run_example("", directory, ["node", "example.js"], port)
    verdict(done.returncode == 0 and done.stdout == "Company 7\n", "doc/connecting.md's example for node-postgres prints its one workspace",
            (done.stdout + done.stderr).splitlines())


def main():
    superuser = make_database()
    cursor = superuser.cursor()
    pgbouncer = None
    with harness.signing(cursor, SECRET) as directory:
        try:
            pgbouncer, port = harness.start_pgbouncer(directory, DATABASE, ROLE)
            clients = [Client(n, directory, port) for n in range(1, options.clients + 1)]
            start = time.monotonic()
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            seconds = time.monotonic() - start
            wrong = [line for client in clients for line in client.wrong]
            transactions = sum(client.transactions for client in clients)
            verdict(not wrong, "%d clients, %d transactions in %.0f s (seed %d): identities never mixed"
                    % (len(clients), transactions, seconds, options.seed), wrong)
            served = {}
            for client in clients:
                for pid in client.served:
                    served.setdefault(pid, set()).add(client.account)
            verdict(0 < len(served) <= POOL_SIZE and min(map(len, served.values())) > 1, "on %d connections, each of which served %d to %d accounts"
                    % (len(served), min(map(len, served.values()), default=0), max(map(len, served.values()), default=0)))
            refused = {state: sum(client.refused.get(state, 0) for client in clients) for state in ("25001", "42501")}
            verdict(all(refused.values()), "holdable cursors refused %d times, temporary tables %d times" % (refused["25001"], refused["42501"]))
            executed = sum(client.executed for client in clients)
            verdict(executed > 0, "%d executions of what another client had prepared" % executed)
            cursor.execute("SELECT count(*) FROM partner_portal.security_key WHERE label <> 'of account ' || workspace_id")
            verdict(cursor.fetchone()[0] == 0, "nobody changed another's key")
            examples(directory, port)
        finally:
            if pgbouncer is not None:
                pgbouncer.terminate()
                pgbouncer.wait()
    superuser.close()
    harness.drop_database(DATABASE)
    sys.exit(harness.finish())


main()
