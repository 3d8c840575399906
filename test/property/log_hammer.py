#!/usr/bin/python3
# packages: python3-psycopg2
"""log_hammer.py: fifty clients write to the activity logs of a few workspaces, in every way there is.
About src/activity_line.c, src/digest.c, src/our_relation.c and src/row_writer.c.

  P1  one statement per transaction: keys of one and of many workspaces, settings, limits, memberships, profiles,
      staff, lines of the application's own; no deadlock
  P2  several statements about one workspace, with savepoints and rollbacks; who changes the workspace or its people
      locks it first, as every function does: no deadlock

A verifier looks at the chains all the while, old lines are forgotten and people erased under way.  After each phase
every chain is whole, its numbers have no gap, no two lines follow the same one, the head is the last line, times never
go backwards, and there are exactly as many lines as the committed transactions have written.

About src/activity_line.c, src/activity_chain.c and src/digest.c.

  log_hammer.py [--seconds N] [--clients N] [--seed N]      N seconds for each phase; the seed is printed
"""
import argparse
import random
import sys
import threading
import time

import psycopg2
from psycopg2.extensions import (ISOLATION_LEVEL_READ_COMMITTED, ISOLATION_LEVEL_REPEATABLE_READ,
                                 ISOLATION_LEVEL_SERIALIZABLE)

from lib import harness
from lib.harness import one, verdict

DATABASE = "pp_log_hammer"
SETTINGS = "SET search_path = partner_portal, public; SET deadlock_timeout = '200ms'; SET partner_portal.log_refusals = off"
LEVELS = (ISOLATION_LEVEL_READ_COMMITTED, ISOLATION_LEVEL_READ_COMMITTED,
          ISOLATION_LEVEL_REPEATABLE_READ, ISOLATION_LEVEL_SERIALIZABLE)
WORKSPACES = 6  # 1 is a partner, the others are its customers; each has an owner of its own and the account of every client
RETRY = ("40001", "40P01")

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=5)
parser.add_argument("--clients", type=int, default=50)
parser.add_argument("--seed", type=int, default=int(time.time()))
options = parser.parse_args()


def connect(level=None):
    return harness.connect_at(DATABASE, level, SETTINGS)


class Client(threading.Thread):
    """One session that repeats transactions until its time is over, and counts the lines that they must have written."""

    def __init__(self, number, account, steps, until):
        super().__init__()
        self.random = random.Random("%d %d %d" % (options.seed, steps, number))
        self.number = number
        self.account = account
        self.steps = steps
        self.until = until
        self.lines = [0] * (WORKSPACES + 1)
        self.count = {}
        self.fault = None
        self.serial = 0
        self.connection, self.cursor = connect(self.random.choice(LEVELS))

    def new_serial(self):
        self.serial += 1
        return "c%d-%d-%d" % (self.steps, self.number, self.serial)

    def run(self):
        try:
            while time.time() < self.until:
                lines = [0] * (WORKSPACES + 1)
                self.workspace = self.random.randrange(WORKSPACES - 1) + 2
                self.settings = self.random.random() < 0.5
                try:
                    if self.steps > 1 and self.settings:
                        self.cursor.execute("SELECT FROM workspace WHERE workspace_id = %s FOR UPDATE", (self.workspace,))
                    for _ in range(self.random.randrange(self.steps) + 1):
                        self.transaction_step(lines)
                    if self.steps > 1 and self.random.random() < 0.2:
                        self.connection.rollback()
                        continue
                    self.connection.commit()
                    self.lines = [a + b for a, b in zip(self.lines, lines)]
                    self.count["commit"] = self.count.get("commit", 0) + 1
                except psycopg2.Error as e:
                    self.connection.rollback()
                    self.count[e.pgcode] = self.count.get(e.pgcode, 0) + 1
                    if e.pgcode not in RETRY:
                        raise
        except Exception as e:  # shown with the verdict
            self.fault = "%s: %s" % (type(e).__name__, e)
        finally:
            self.connection.close()

    def transaction_step(self, lines):
        if self.steps > 1 and self.random.random() < 0.3:
            self.cursor.execute("SAVEPOINT s")
            self.step([0] * (WORKSPACES + 1))
            self.cursor.execute("ROLLBACK TO s")
        else:
            self.step(lines)

    def step(self, lines):
        """One statement; adds to lines what it writes to the log of each workspace."""
        what = self.random.choice(range(10) if self.steps == 1 else (0, 1, 2, 5, 6, 10) if self.settings else (0, 1, 2))
        w = self.random.randrange(WORKSPACES) + 1 if self.steps == 1 else self.workspace
        c = self.cursor
        if what <= 1:
            c.execute("SELECT log_activity(%s, 'server_action', %s)", (w, self.new_serial()))
            lines[w] += 1
        elif what == 2:
            c.execute("INSERT INTO security_key (workspace_id, kind, serial) VALUES (%s, 'smartphone', %s)", (w, self.new_serial()))
            lines[w] += 1
        elif what == 3:  # many workspaces, in an order of its own
            spread = self.random.sample(range(1, WORKSPACES + 1), 4)
            c.execute("INSERT INTO security_key (workspace_id, kind, serial) SELECT w, 'contactless_card', %s FROM unnest(%s) w",
                      (self.new_serial(), spread))
            for x in spread:
                lines[x] += 1
        elif what == 4:  # its own keys of all workspaces
            c.execute("WITH d AS (DELETE FROM security_key WHERE serial = %s RETURNING workspace_id) SELECT DISTINCT workspace_id FROM d",
                      ("c%d-%d-%d" % (self.steps, self.number, self.random.randrange(self.serial + 1)),))
            for (x,) in c.fetchall():
                lines[x] += 1
        elif what == 5:
            c.execute("UPDATE workspace SET address = %s WHERE workspace_id = %s", (self.new_serial(), w))
            lines[w] += 1
        elif what == 6:  # soft, so that nobody is in the way
            c.execute("UPDATE workspace SET key_limit = coalesce(key_limit, 0) + 1, tax_id = %s WHERE workspace_id = %s", (self.new_serial(), w))
            lines[w] += 2
        elif what == 7:
            c.execute("UPDATE member SET role = CASE role WHEN 'member' THEN 'guest' ELSE 'member' END WHERE account_id = %s", (self.account,))
            for x in range(1, WORKSPACES + 1):
                lines[x] += 1
        elif what == 8:
            c.execute("UPDATE account SET name = %s WHERE account_id = %s", (self.new_serial(), self.account))
            for x in range(1, WORKSPACES + 1):
                lines[x] += 1
        elif what == 10:
            role = one(c, "SELECT role FROM member WHERE workspace_id = %s AND account_id = %s", w, self.account)[0]
            c.execute("SELECT set_member_role(%s, %s, %s)", (w, self.account, "guest" if role == "member" else "member"))
            lines[w] += 1
        else:
            w = max(w, 2)
            c.execute("INSERT INTO staff (workspace_id, account_id, partner_key, role) VALUES (%s, %s, 1, 'account_owner')"
                      " ON CONFLICT (workspace_id, account_id) DO UPDATE SET role ="
                      " CASE staff.role WHEN 'account_owner' THEN 'system_administrator' ELSE 'account_owner' END", (w, self.account))
            lines[w] += 1


class Verifier(threading.Thread):
    """Verifies the chains all the time, forgets old lines and erases people."""

    def __init__(self, erasable):
        super().__init__()
        self.erasable = erasable
        self.stop = False
        self.broken = None
        self.looks = 0
        self.fault = None

    def run(self):
        try:
            connection, cursor = connect()
            while not self.stop and self.broken is None:
                cursor.execute("SELECT workspace_id, p.* FROM workspace w, LATERAL activity_problem(w.workspace_id) p WHERE NOT p.ok")
                self.broken = cursor.fetchone()
                self.looks += 1
                if self.looks % 5 == 0:
                    cursor.execute("SELECT forget_activity(clock_timestamp() - interval '1 second')")
                if self.looks % 7 == 0 and self.erasable:
                    cursor.execute("SELECT erase_activity(%s, NULL)", (self.erasable.pop(),))
            connection.close()
        except psycopg2.Error as e:
            self.fault = str(e)


def phase(cursor, name, accounts, steps):
    cursor.execute("SELECT log_id FROM workspace_usage ORDER BY workspace_id")
    before = [0] + [row[0] for row in cursor.fetchall()]
    clients = [Client(i, accounts[i], steps, time.time() + options.seconds) for i in range(options.clients)]
    verifier = Verifier(list(accounts))
    for c in clients + [verifier]:
        c.start()
    for c in clients:
        c.join()
    verifier.stop = True
    verifier.join()

    total = {}
    for c in clients:
        for k, v in c.count.items():
            total[k] = total.get(k, 0) + v
    faults = [c.fault for c in clients + [verifier] if c.fault]
    verdict(not faults, "%s: no other error (%s)%s" %
            (name, ", ".join("%s %d" % i for i in sorted(total.items())), "".join("\n#   " + f.strip() for f in faults[:3])))
    verdict("40P01" not in total, "%s: no deadlock" % name)
    verdict(verifier.broken is None and verifier.looks > 0, "%s: %d times verified%s" % (name, verifier.looks, "" if verifier.broken is None else ": %s" % (verifier.broken,)))
    cursor.execute("SELECT log_id FROM workspace_usage ORDER BY workspace_id")
    after = [0] + [row[0] for row in cursor.fetchall()]
    written = [a - b for a, b in zip(after, before)]
    expected = [sum(c.lines[w] for c in clients) for w in range(WORKSPACES + 1)]
    verdict(written == expected, "%s: as many lines as were committed (%s)" % (name, written[1:] if written == expected else "%s, not %s" % (written, expected)))
    bad = one(cursor, "SELECT count(*) FROM (SELECT a.activity_id - lag(a.activity_id) OVER w AS step, a.at < lag(a.at) OVER w AS back, a.prev_hash <> lag(a.hash) OVER w AS fork"
              " FROM activity a WINDOW w AS (PARTITION BY a.workspace_id ORDER BY a.activity_id)) s WHERE step <> 1 OR back OR fork")[0]
    verdict(bad == 0, "%s: no gap, no fork, no step back" % name)
    cursor.execute("SELECT * FROM verify()")
    problems = cursor.fetchall()
    verdict(not problems, "%s: verify() finds nothing%s" % (name, "".join("\n#   %s" % (p,) for p in problems[:5])))


def main():
    print("# seed %d" % options.seed)
    harness.make_database(DATABASE).close()
    connection, cursor = connect()
    cursor.execute("SELECT create_workspace('Partner', 'p@example.com'); SELECT promote_to_partner(1)")
    for w in range(2, WORKSPACES + 1):
        cursor.execute("SELECT register_workspace((SELECT registration_code FROM partner), 'Customer', 'o%d@example.com')" % w)
    cursor.execute("UPDATE workspace SET limit_mode = 'soft'")
    cursor.execute("INSERT INTO account (email) SELECT 'c' || i || '@example.com' FROM generate_series(1, %s) i RETURNING account_id", (options.clients,))
    accounts = [row[0] for row in cursor.fetchall()]
    cursor.execute("INSERT INTO member (workspace_id, account_id, partner_key, role, accepted_at) SELECT w.workspace_id, a, w.partner_key, 'member', now()"
                   " FROM workspace w, unnest(%s) a", (accounts,))
    phase(cursor, "P1", accounts, 1)
    phase(cursor, "P2", accounts, 4)
    connection.close()
    harness.drop_database(DATABASE)
    sys.exit(harness.finish())


main()
