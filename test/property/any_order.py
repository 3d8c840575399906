#!/usr/bin/python3
# packages: python3-psycopg2
"""any_order.py: every function, by anybody, in any order, in any transaction.

Random people, and nobody, call random functions that a role enrolled as operator
may execute, with arguments that are there, of whatever tenant, in whatever state:
deleted, suspended and purged workspaces, removed people, used tokens, finished
documents, twice in a row, in a savepoint that is rolled back, in a transaction
that is read only, at each isolation level.  Whatever comes of it, it is an error
that the reference knows, and verify() finds nothing wrong.

  any_order.py [--seconds N] [--seed N]
"""
import argparse
import random
import sys
import time
from collections import Counter

import psycopg2

from lib import harness

DATABASE = "pp_any_order"
# what a caller may be told; all else is a fault of ours
KNOWN = {"42501", "P0002", "PP001", "PP002", "PP003", "PP004", "PP005", "22023", "22004", "22001", "22003", "22008", "23505", "23P01", "28000", "25001", "25006",
         "40001", "53400", "54000", "55000"}
# not of this world: they change who one is, files, other sessions, or the application's tables
LEFT_OUT = ("login", "login_as", "login_role", "act_in", "act_in_portal", "logout", "enroll_role", "map_role", "isolate", "release", "schedule_jobs", "unschedule_jobs",
            "check_isolation", "repair")

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=25)
parser.add_argument("--seed", type=int, default=int(time.time()))
options = parser.parse_args()


class World:
    def __init__(self, connection, rng):
        self.rng, self.cursor = rng, connection.cursor()
        self.codes = Counter()
        self.faults = []
        self.done = Counter()

    def ask(self, query, *values):
        self.cursor.execute(query, values or None)
        return self.cursor.fetchall() if self.cursor.description else []

    def build(self):
        self.ask("SELECT create_workspace(n, n || '@example.com', n, anchor_date => '2026-01-01') FROM unnest('{p1,p2,d1,d2}'::text[]) n")
        self.ask("SELECT promote_to_partner(1), promote_to_partner(2)")
        for partner, name in ((1, "c1"), (1, "c2"), (2, "c3")):
            self.ask("SELECT register_workspace((SELECT registration_code FROM partner WHERE partner_id = %s), %s, %s, slug => %s)", partner, name, name + "@example.com", name)
        self.ask("SELECT add_member(w, 'staff' || w || '@example.com', r) FROM unnest('{1,2,3,5}'::bigint[], '{member,administrator,guest,member}'::text[]) t (w, r)")
        self.ask("UPDATE account SET is_operator = true WHERE email = 'd2@example.com'")
        self.ask("INSERT INTO security_key (workspace_id, kind, serial) SELECT w, CASE k WHEN 1 THEN 'contactless_card' ELSE 'smartphone' END, 'k' || k FROM generate_series(3, 7) w, generate_series(1, 3) k")
        self.ask("INSERT INTO product (workspace_id, category, name) SELECT w, 'server', 'web' FROM generate_series(3, 7) w")
        self.ask("INSERT INTO folder (workspace_id, name) SELECT w, 'first' FROM generate_series(1, 4) w")
        self.ask("SELECT create_portal(p, 'Portal', 'entrance-' || p, '#112233', 'https://example.com/') FROM generate_series(1, 2) p")
        self.ask("SELECT define_attribute(p, 'region', 'Region', 'string') FROM generate_series(1, 2) p")
        self.ask("SELECT create_price_plan(p, 'Plan', 'CHF', 'per_unit', unit_price => 2) FROM unnest(ARRAY[1, 2, NULL]) p")
        self.ask("INSERT INTO webhook_endpoint (workspace_id, partner_key, url, events, key_version) SELECT workspace_id, partner_key, 'https://example.com/', '{*}', 1 FROM workspace")
        self.ask("INSERT INTO delivery_destination (destination) SELECT endpoint_id FROM webhook_endpoint")
        self.functions = self.ask("""
            SELECT p.proname, p.oid::regprocedure::text, p.proretset, coalesce(p.proargnames[:p.pronargs], '{}'),
                ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY u (t, n) ORDER BY n), p.pronargdefaults
            FROM pg_proc p WHERE p.pronamespace = 'partner_portal'::regnamespace AND p.prokind = 'f' AND p.prorettype <> 'trigger'::regtype
                AND has_function_privilege('regress_ops', p.oid, 'EXECUTE') AND p.proname <> ALL (%s)
                AND (p.pronargs = 0 OR p.proargnames IS NOT NULL) AND NOT p.proargtypes::oid[] && '{regclass,internal}'::regtype[]::oid[] ORDER BY 2""", list(LEFT_OUT))

    def pool(self):
        """What there is now, by what arguments are called."""
        ids = lambda query: [r[0] for r in self.ask(query)] + [999]
        workspaces = ids("SELECT workspace_id FROM workspace")
        invoices = ids("SELECT invoice_id FROM invoice WHERE status <> 'empty'")
        return {
            "workspace_id": workspaces, "partner_id": ids("SELECT partner_id FROM partner"), "account_id": ids("SELECT account_id FROM account"),
            "about_account_id": ids("SELECT account_id FROM account"), "in_workspace": workspaces, "invoice_id": invoices, "plan_id": ids("SELECT plan_id FROM price_plan"),
            "portal_id": ids("SELECT portal_id FROM portal"), "folder_id": ids("SELECT folder_id FROM folder"), "group_id": ids("SELECT group_id FROM portal"),
            "grant_id": ids("SELECT grant_id FROM access_grant"), "invitation_id": ids("SELECT invitation_id FROM invitation"), "endpoint_id": ids("SELECT endpoint_id FROM webhook_endpoint"),
            "notification_id": ids("SELECT notification_id FROM notification"), "key_id": ids("SELECT key_id FROM security_key"), "key_ids": [[k] for k in ids("SELECT key_id FROM security_key")],
            "email": ids("SELECT email FROM account")[:-1] + ["new%d@example.com" % self.rng.randrange(30)], "token": self.tokens[-10:] + ["x" * 43],
            "registration_code": [r[0] for r in self.ask("SELECT registration_code FROM partner")] + ["none"], "products": [[]] + [[p] for p in ids("SELECT product_id FROM product")],
            "product_id": ids("SELECT product_id FROM product"), "period": [r[0] for r in self.ask("SELECT tstzrange(period_start, period_end)::text FROM billing_period")] + [None],
            "role": ["owner", "administrator", "member", "guest", "viewer", "editor", "account_owner", "system_administrator"], "scope": ["limited", "complete"],
            "categories": [[], ["server"]], "rights": [["read"], ["manage", "read"]], "permission": ["read", "manage_keys", "bill"], "events": [["*"]], "technical_name": ["region", "entrance-1", "gate"],
            "name": ["A name"], "label": ["A label"], "type": ["string", "number"], "color": ["#112233"], "logout_url": ["https://example.com/"], "home_cover_url": [None],
            "url": ["https://example.com/hook"], "company_name": ["A company"], "owner_name": ["Somebody"], "slug": [None, "slug-%d" % self.rng.randrange(20)], "time_zone": ["UTC", "Europe/Zurich"],
            "currency": ["CHF", "JPY"], "model": ["per_unit", "flat"], "measure": ["distinct_keys", "peak_keys"], "kind": [None, "smartphone"], "strategy": ["newest", "oldest"],
            "on_excess": ["disable", "reject"], "on_error": ["abort", "skip"], "action": ["sign_in", None], "list": ["new_keys", "billing_report"], "document": ["invoice", "credit_note"],
            "csv": ["email,role\r\nnew1@example.com,viewer\r\n", "email\r\nbad"], "lines": ['[{"line":1,"amount_minor":1}]'], "attributes": ['{}', '{"region": "north"}'], "details": ['{}'],
            "active": ["[2026-01-10, 2026-01-20)"], "month": ["2026-01-01"], "anchor_date": ["2026-01-31", None], "tiers": [None], "package_size": [None], "allowed": [None], "year": [0],
        }

    def value(self, pool, name, kind):
        if name == "workspace_id" and self.acting and self.rng.random() < 0.5:
            return self.acting
        if name in pool:
            values = pool[name]
            return self.rng.choice(values[:-1] if len(values) > 1 and values[-1] == 999 and self.rng.random() < 0.95 else values)
        if kind == "boolean":
            return self.rng.random() < 0.5
        if kind in ("bigint", "integer", "numeric"):
            return self.rng.choice((0, 1, 2, 3))
        if kind.startswith("timestamp"):
            return self.rng.choice(("2026-02-01 01:00+00", "2026-12-31 23:00+00", "2027-03-05 12:00+00"))
        return self.rng.choice(("text", "reason"))

    def call(self, pool):
        name, signature, returns_set, names, kinds, defaults = self.rng.choice(self.functions)
        given = len(names) - self.rng.randint(0, defaults)
        values = [self.value(pool, n, k) for n, k in list(zip(names, kinds))[:given]]
        text = "SELECT %s(%s)" % (name, ", ".join("%s => %%s::%s" % (n, k) for n, k in list(zip(names, kinds))[:given]))
        if name in ("invite_member", "invite_customer", "invite_partner", "invite_portal_user", "resend_invitation"):
            text = "SELECT (%s).token" % text[len("SELECT "):]
        return name, text, values

    def act(self, pool):
        """One transaction of somebody."""
        rng = self.rng
        level = rng.choice(("READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"))
        who = rng.choice(pool["account_id"][:-1] + [None, None, None])
        self.acting = None
        self.ask("BEGIN ISOLATION LEVEL " + level + (" READ ONLY" if rng.random() < 0.05 else ""))
        try:
            if who is not None:
                self.ask("SAVEPOINT s")
                try:
                    self.ask("SELECT login_as(%s)", who)
                    acts_in = [r[0] for r in self.ask("SELECT workspace_id FROM my_workspaces")]
                    if acts_in:
                        self.acting = rng.choice(acts_in)
                        self.ask("SELECT act_in(%s)", self.acting)
                except psycopg2.Error:
                    self.ask("ROLLBACK TO s")
            self.ask("SET LOCAL ROLE " + rng.choice(("regress_ops", "regress_trusted", "regress_app") if who else ("regress_app", "postgres", "postgres")))
            for _ in range(rng.choice((1, 1, 2, 3))):
                name, text, values = self.call(pool)
                for _ in range(rng.choice((1, 1, 1, 2))):
                    self.ask("SAVEPOINT s")
                    try:
                        for row in self.ask(text, *values):
                            if "token" in text and row[0] and len(row[0]) == 43:
                                self.tokens.append(row[0])
                        self.done[name] += 1
                        code = "00000"
                        if rng.random() < 0.1:
                            self.ask("ROLLBACK TO s")
                    except psycopg2.Error as fault:
                        code = fault.pgcode
                        self.ask("ROLLBACK TO s")
                        if code not in KNOWN:
                            self.faults.append("%s %s  by %s: %s %r" % (code, str(fault).split("\n")[0], who, text, values))
                    self.codes[code] += 1
            self.ask("COMMIT" if rng.random() < 0.9 else "ROLLBACK")
        except psycopg2.Error as fault:
            if fault.pgcode not in KNOWN:
                self.faults.append("%s %s at the end of a transaction" % (fault.pgcode, str(fault).split("\n")[0]))
            self.ask("ROLLBACK")

    def live(self, until):
        self.tokens, self.owned = [], set()
        self.build()
        calls = 0
        while time.time() < until and len(self.faults) < 10:
            pool = self.pool()
            for _ in range(50):
                self.act(pool)
                calls += 1
            # who was made an owner and turned it down leaves none; nobody who was one does
            self.owned |= {r[0] for r in self.ask("SELECT workspace_id FROM workspace_usage WHERE owners > 0")}
            wrong = [r for r in self.ask("SELECT workspace_id, check_name, problem FROM verify()") if r[2] != "there is no owner" or r[0] in self.owned][:5]
            if wrong:
                self.faults.append("after %d transactions verify() says %r" % (calls, wrong))
                break
        return calls


def main():
    control = harness.make_database(DATABASE)
    control.close()
    connection = psycopg2.connect(dbname=DATABASE)
    connection.autocommit = True
    cursor = connection.cursor()
    for role, kind in (("regress_ops", "operator"), ("regress_trusted", "trusted_application"), ("regress_app", "application")):
        cursor.execute("DO $$ BEGIN IF to_regrole('%s') IS NULL THEN CREATE ROLE %s LOGIN; END IF; END $$" % (role, role))
        cursor.execute("SELECT partner_portal.enroll_role(%s, %s)", (role, kind))
    cursor.execute("SET search_path = partner_portal, pg_catalog; SET timezone = 'UTC'; SET client_min_messages = error")
    cursor.execute("SET statement_timeout = '20s'")
    world = World(connection, random.Random(options.seed))
    transactions = world.live(time.time() + options.seconds)
    print("# seed %d: %d transactions, %d functions of %d did something; %s" % (options.seed, transactions, len(world.done), len(world.functions), dict(world.codes)))
    harness.verdict(not world.faults, "whatever is called in whatever order, errors are known ones and verify() finds nothing", world.faults)
    connection.close()
    if not world.faults:
        harness.drop_database(DATABASE)
    sys.exit(harness.finish())


main()
