#!/usr/bin/python3
# packages: python3-psycopg2
"""key_hammer.py: many clients at one workspace, at each isolation level.
About src/usage_row.c and src/usage_change.c.

  P1  fill up to 50: ends at exactly 50
  P2  16 clients that each hold at most one of 16 keys: nobody is ever refused
  P3  a limit of 8 under inserts, swaps, MERGE, COPY, disabling, deleting, rollbacks and closed periods
  P4  the same in single statements, while the limit itself moves between 3 and 8
  P5  statements over many workspaces, each in an order of its own: no deadlock

After each: the counters are the counts, no key's stretches overlap, the facts
never show more active at once than the highest limit, and an observer never saw
more than the limit in force.  40001 is a retry; so is 40P01 in P3, where a
transaction has several statements.

About src/usage_counter.c, src/usage_change.c and src/usage_row.c, and what they
write through: src/row_writer.c and src/our_relation.c.

  key_hammer.py [--seconds N] [--clients N] [--seed N]      N seconds for each P3 and P4; the seed is printed
"""
import argparse
import io
import random
import sys
import threading
import time

import psycopg2
from psycopg2 import errors
from psycopg2.extensions import (ISOLATION_LEVEL_READ_COMMITTED, ISOLATION_LEVEL_REPEATABLE_READ,
                                 ISOLATION_LEVEL_SERIALIZABLE)

from lib import harness
from lib.harness import one, verdict

DATABASE = "pp_key_hammer"
SETTINGS = "SET search_path = partner_portal, public; SET deadlock_timeout = '200ms'; SET enable_seqscan = off"
LEVELS = (("READ COMMITTED", ISOLATION_LEVEL_READ_COMMITTED),
          ("REPEATABLE READ", ISOLATION_LEVEL_REPEATABLE_READ),
          ("SERIALIZABLE", ISOLATION_LEVEL_SERIALIZABLE))
LIMIT_REACHED = "PP001"
RETRY = ("40001", "40P01")

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=2.5)
parser.add_argument("--clients", type=int, default=16)
parser.add_argument("--seed", type=int, default=int(time.time()))
options = parser.parse_args()


def connect(level=None):
    return harness.connect_at(DATABASE, level, SETTINGS)


class Client(threading.Thread):
    """One session that repeats a transaction until its time is over or it says it is done."""

    def __init__(self, number, level, workspace, body, until):
        super().__init__()
        self.random = random.Random("%d %d %d" % (options.seed, workspace, number))
        self.number = number
        self.workspace = workspace
        self.body = body
        self.until = until
        self.count = {"commit": 0, "rollback": 0}
        self.fault = None
        self.connection, self.cursor = connect(level)
        self.held = None
        self.serial = 0

    def new_serial(self):
        self.serial += 1
        return "c%d-%d" % (self.number, self.serial)

    def run(self):
        try:
            while time.time() < self.until:
                try:
                    self.cursor.execute("BEGIN")
                    again = self.body(self)
                    if again is None:
                        self.connection.rollback()
                        self.count["rollback"] += 1
                        continue
                    self.connection.commit()
                    self.count["commit"] += 1
                    if not again:
                        return
                except psycopg2.Error as e:
                    self.connection.rollback()
                    self.count[e.pgcode] = self.count.get(e.pgcode, 0) + 1
                    if e.pgcode == LIMIT_REACHED and self.body is fill:
                        return
                    if e.pgcode not in RETRY + (LIMIT_REACHED,):
                        raise
        except Exception as e:  # shown with the verdict
            self.fault = "%s: %s" % (type(e).__name__, e)
        finally:
            self.connection.close()


def fill(c):
    c.cursor.execute("INSERT INTO security_key (workspace_id, kind, serial) VALUES (%s, %s, %s)",
                     (c.workspace, c.random.choice(("smartphone", "contactless_card")), c.new_serial()))
    return True


def hold_one(c):
    if c.held is None:
        serial = c.new_serial()
        c.cursor.execute("INSERT INTO security_key (workspace_id, kind, serial) VALUES (%s, 'smartphone', %s) RETURNING key_id",
                         (c.workspace, serial))
        c.held = (c.cursor.fetchone()[0], True)
        try:
            c.connection.commit()
        except psycopg2.Error:
            c.held = None
            raise
        return True
    key, active = c.held
    c.cursor.execute("UPDATE security_key SET status = %s WHERE workspace_id = %s AND key_id = %s",
                     ("disabled" if active else "active", c.workspace, key))
    c.connection.commit()
    c.held = (key, not active)
    return True


def some_key(c, status):
    c.cursor.execute("SELECT key_id FROM security_key WHERE workspace_id = %s AND status = %s ORDER BY key_id OFFSET %s LIMIT 1",
                     (c.workspace, status, c.random.randrange(4)))
    row = c.cursor.fetchone()
    return row and row[0]


def step(c):
    """One change of any sort."""
    what = c.random.randrange(12)
    w = c.workspace
    if what <= 2:
        c.cursor.execute("INSERT INTO security_key (workspace_id, kind, serial) VALUES (%s, 'smartphone', %s)", (w, c.new_serial()))
    elif what == 3:
        c.cursor.copy_expert("COPY security_key (workspace_id, kind, serial) FROM STDIN",
                             io.StringIO("".join("%d\tcontactless_card\t%s\n" % (w, c.new_serial()) for _ in range(2))))
    elif what == 4:
        c.cursor.execute("UPDATE security_key SET status = 'active' WHERE workspace_id = %s AND key_id = %s AND status = 'disabled'",
                         (w, some_key(c, "disabled")))
    elif what == 5:
        c.cursor.execute("UPDATE security_key SET status = 'disabled' WHERE workspace_id = %s AND key_id = %s AND status = 'active'",
                         (w, some_key(c, "active")))
    elif what == 6:
        c.cursor.execute("DELETE FROM security_key WHERE workspace_id = %s AND key_id = %s",
                         (w, some_key(c, c.random.choice(("active", "disabled")))))
    elif what == 7:  # a swap
        c.cursor.execute("UPDATE security_key SET status = CASE status WHEN 'active' THEN 'disabled' ELSE 'active' END"
                         " WHERE workspace_id = %s AND key_id IN (%s, %s)", (w, some_key(c, "active"), some_key(c, "disabled")))
    elif what == 8:  # a swap by MERGE: adds before it takes away
        c.cursor.execute("MERGE INTO security_key k USING (SELECT %s::bigint AS key_id UNION ALL SELECT NULL) v"
                         " ON k.workspace_id = %s AND k.key_id = v.key_id AND v.key_id IS NOT NULL"
                         " WHEN MATCHED THEN DELETE"
                         " WHEN NOT MATCHED AND v.key_id IS NULL THEN INSERT (workspace_id, kind, serial) VALUES (%s, 'smartphone', %s)",
                         (some_key(c, "active") or 0, w, w, c.new_serial()))
    elif what == 9:
        c.cursor.execute("INSERT INTO security_key (workspace_id, kind, serial) VALUES (%s, 'smartphone', %s)"
                         " ON CONFLICT (workspace_id, serial) DO UPDATE SET status = 'disabled'", (w, "shared%d" % c.random.randrange(4)))
    elif what == 10:
        c.cursor.execute("SELECT count(*) FROM disable_security_keys(%s, %s, %s)",
                         (w, c.random.randrange(3), c.random.choice(("newest", "oldest"))))
    else:  # a closed period: nothing is stamped before its end any more
        c.cursor.execute("SELECT lock_usage(%s)", (w,))
        c.cursor.execute("UPDATE workspace_usage SET closed_until = greatest(closed_until, clock_timestamp()) WHERE workspace_id = %s", (w,))
    return True


def mixed(c, most=2):
    for _ in range(c.random.randrange(1, most + 1)):
        if c.random.random() < 0.3:
            c.cursor.execute("SAVEPOINT s")
            try:
                step(c)
            except errors.lookup("40001"):
                raise
            except psycopg2.Error as e:
                if e.pgcode != LIMIT_REACHED:
                    raise
            c.cursor.execute("ROLLBACK TO s")
        else:
            step(c)
    return None if c.random.random() < 0.3 else True


def mixed_with_limit(c):
    if c.random.random() < 0.15:
        limit = c.random.randrange(3, 9)
        if c.random.random() < 0.5:
            c.cursor.execute("UPDATE workspace SET key_limit = %s WHERE workspace_id = %s", (limit, c.workspace))
        else:
            c.cursor.execute("SELECT count(*) FROM set_usage_limit(%s, %s, 'disable', %s, %s)",
                             (c.workspace, limit, c.random.choice(("newest", "oldest")), c.random.random() < 0.5))
        return True
    return mixed(c, 1)


def many_workspaces(c):
    spread = list(range(c.workspace - 30, c.workspace))
    c.random.shuffle(spread)
    if c.random.random() < 0.7:
        c.cursor.execute("INSERT INTO security_key (workspace_id, kind, serial) SELECT w, 'smartphone', %s || '-' || w FROM unnest(%s) w",
                         (c.new_serial(), spread[:20]))
    else:
        c.cursor.execute("DELETE FROM security_key WHERE serial = ANY (%s)", (["c%d-%d-%d" % (c.number, c.serial, w) for w in spread],))
    return True


class Observer(threading.Thread):
    """Looks all the time whether a committed state breaks the rule."""

    def __init__(self, workspace):
        super().__init__()
        self.workspace = workspace
        self.stop = False
        self.broken = None
        self.looks = 0

    def run(self):
        connection, cursor = connect()
        while not self.stop and self.broken is None:
            cursor.execute("SELECT u.key_limit, u.active_keys, count(*) FROM workspace_usage u LEFT JOIN security_key k"
                           " ON k.workspace_id = u.workspace_id AND k.status = 'active' WHERE u.workspace_id = %s"
                           " GROUP BY 1, 2 HAVING u.active_keys <> count(k.key_id) OR count(k.key_id) > u.key_limit", (self.workspace,))
            self.broken = cursor.fetchone()
            self.looks += 1
            time.sleep(0.002)
        connection.close()


def check(cursor, name, workspace, highest, clients, observer):
    total = {}
    for c in clients:
        for k, v in c.count.items():
            total[k] = total.get(k, 0) + v
    text = ", ".join("%s %d" % (k, v) for k, v in sorted(total.items()) if v)
    faults = [c.fault for c in clients if c.fault]
    verdict(not faults, "%s: no other error (%s)%s" % (name, text, "".join("\n#   " + f.strip() for f in faults[:3])))
    verdict(observer.broken is None, "%s: no state beyond the limit in %d looks%s" %
            (name, observer.looks, "" if observer.broken is None else " limit, counter, count: %s" % (observer.broken,)))
    exact = one(cursor, "SELECT u.active_keys, count(*) FILTER (WHERE status = 'active'), u.total_keys, count(k.key_id),"
                " u.active_smartphones, count(*) FILTER (WHERE status = 'active' AND kind = 'smartphone'),"
                " u.total_contactless_cards, count(*) FILTER (WHERE kind = 'contactless_card')"
                " FROM workspace_usage u LEFT JOIN security_key k USING (workspace_id) WHERE u.workspace_id = %s GROUP BY u.workspace_id", workspace)
    verdict(exact[0::2] == exact[1::2], "%s: counters are the counts %s" % (name, exact))
    overlap = one(cursor, "SELECT count(*) FROM key_activity a JOIN key_activity b USING (workspace_id, key_id)"
                  " WHERE workspace_id = %s AND lower(a.active) < lower(b.active) AND a.active && b.active", workspace)[0]
    verdict(overlap == 0, "%s: no stretches of a key overlap (%d)" % (name, overlap))
    peak = one(cursor, "SELECT max(n) FROM (SELECT sum(sum(d)) OVER (ORDER BY at) AS n FROM"
               " (SELECT lower(active) AS at, 1 AS d FROM key_activity WHERE workspace_id = %s UNION ALL"
               " SELECT upper(active), -1 FROM key_activity WHERE workspace_id = %s AND upper(active) IS NOT NULL) e GROUP BY at) s",
               workspace, workspace)[0]
    verdict((peak or 0) <= highest, "%s: the facts show at most %s of %d active at once" % (name, peak or 0, highest))
    stamped = one(cursor, "SELECT count(*) FROM security_key WHERE workspace_id = %s AND disabled_at < activated_at", workspace)[0]
    verdict(stamped == 0, "%s: no key ends before it begins" % name)
    return total


def phase(cursor, name, level, limit, body, seconds):
    workspace = one(cursor, "INSERT INTO workspace (company_name, slug, anchor_date, restrict_keys, key_limit)"
                    " VALUES ('Hammer', 'hammer-' || (SELECT count(*) FROM workspace), '2026-01-01', true, %s) RETURNING workspace_id", limit)[0]
    observer = Observer(workspace)
    clients = [Client(i, level, workspace, body, time.time() + seconds) for i in range(options.clients)]
    observer.start()
    for c in clients:
        c.start()
    for c in clients:
        c.join()
    observer.stop = True
    observer.join()
    return workspace, check(cursor, name, workspace, limit, clients, observer)


def main():
    print("# seed %d" % options.seed)
    harness.make_database(DATABASE).close()
    connection, cursor = connect()
    for name, level in LEVELS:
        workspace, total = phase(cursor, "P1 " + name, level, 50, fill, 20)
        active = one(cursor, "SELECT active_keys FROM workspace_usage WHERE workspace_id = %s", workspace)[0]
        verdict(active == 50, "P1 %s: filled to exactly 50 (%d)" % (name, active))
        _, total = phase(cursor, "P2 " + name, level, options.clients, hold_one, options.seconds / 2)
        verdict(LIMIT_REACHED not in total, "P2 %s: nobody refused while there is room" % name)
        phase(cursor, "P3 " + name, level, 8, mixed, options.seconds)
        phase(cursor, "P4 " + name, level, 8, mixed_with_limit, options.seconds)
    cursor.execute("INSERT INTO workspace (company_name, slug, anchor_date) SELECT 'Many', 'many-' || i, '2026-01-01' FROM generate_series(1, 30) i")
    _, total = phase(cursor, "P5", ISOLATION_LEVEL_READ_COMMITTED, 8, many_workspaces, options.seconds / 2)
    verdict("40P01" not in total, "P5: no deadlock")
    wrong = one(cursor, "SELECT count(*) FROM workspace_usage u WHERE (active_keys, total_keys) <>"
                " (SELECT count(*) FILTER (WHERE status = 'active'), count(*) FROM security_key k WHERE k.workspace_id = u.workspace_id)")[0]
    verdict(wrong == 0, "P5: every workspace's counters are the counts")
    connection.close()
    harness.drop_database(DATABASE)
    sys.exit(harness.finish())


main()
