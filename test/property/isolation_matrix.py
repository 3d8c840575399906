#!/usr/bin/python3
# packages: python3-psycopg2
"""isolation_matrix.py: every kind of enrolled role x every relation x every command x whoever is signed in.

What is expected is in test/isolation_matrix.txt, told without the extension's policies and readers; what there is to
try is read from the catalog, and a relation without a line there is a failure, as is a line without a relation.

SELECT and COPY TO must give exactly the rows expected, whatever else there is.  SELECT FOR UPDATE, UPDATE and DELETE are
tried on every row there is, one at a time: they touch it, or say that there is none.  INSERT, ON CONFLICT and MERGE are
tried for every workspace, and for one that is not: what may not be is refused in the same words for both.  COPY FROM
and TRUNCATE are refused always, and sequences are nobody's.

Workspaces: 1 and 2 partners; 3, 6 (suspended), 7 (deleted) and 9 customers of 1; 4 a customer of 2; 5 direct; 8 moved from
2 to 1; 10 a partner that 5 granted everything and 3 everything to read, and 4 the products of one category; what 9 granted has
ended, and what 6 granted has expired.
"""
import io
import os
import re
import sys
import time
from collections import Counter

import psycopg2

from lib import harness
from lib.harness import verdict

DATABASE = "pp_isolation_matrix"
WORKSPACES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
ABSENT = 999
ROLES = {"a": "regress_app", "t": "regress_trusted", "r": "regress_report", "o": "regress_ops", "n": "regress_nobody"}
KINDS = (("a", "application"), ("t", "trusted_application"), ("r", "reporting"), ("o", "operator"))
SECRET = b"a secret of the isolation matrix, 32 bytes or more"
VIEW_REFUSED = ("42501", "55000", "42809", "0A000", "428C9")

class Who:
    """Somebody, and how they stand: own and staff map workspaces to a role."""

    def __init__(self, name, email=None, acting=None, own=None, staff=None, partner=None, acts=None, portal=None, shared=(),
                 granted=None, limited=(), everything=False, how="login"):
        self.name, self.email, self.acting, self.how = name, email, acting, how
        self.own, self.staff, self.granted, self.limited = own or {}, staff or {}, granted or {}, list(limited)
        self.partner, self.acts = partner, acts
        self.portal, self.shared, self.everything = portal, list(shared), everything
        self.account = None


PEOPLE = [
    Who("nobody", how="nobody"),
    Who("customer's owner", "c3@example.com", own={3: "o"}),
    Who("customer's administrator", "a3@example.com", own={3: "a"}),
    Who("customer's member", "m3@example.com", own={3: "m"}),
    Who("customer's guest", "g3@example.com", own={3: "g"}),
    Who("partner's owner", "p1@example.com", own={1: "o"}, partner=1, acts=1),
    Who("partner's member", "m1@example.com", own={1: "m"}, acts=1),
    Who("account owner", "ao@example.com", own={1: "m"}, staff={3: "AO", 8: "AO"}, acts=1),
    Who("system administrator", "sa@example.com", own={1: "m"}, staff={3: "SA", 8: "SA"}, acts=1),
    Who("foreign partner", "p2@example.com", own={2: "o"}, partner=2, acts=2),
    Who("granted partner", "p10@example.com", own={10: "o"}, granted={5: "R W", 3: "R"}, limited=[4], partner=10, acts=10),
    Who("granted partner's member", "m10@example.com", own={10: "m"}, acts=10),
    Who("foreign customer", "c4@example.com", own={4: "o"}),
    Who("direct owner", "d5@example.com", own={5: "o"}),
    Who("suspended owner", "s6@example.com", own={6: "o"}),
    Who("deleted owner", "x7@example.com"),
    Who("moved owner", "t8@example.com", own={8: "o"}),
    Who("of two, acting in none", "both@example.com"),
    Who("of two, acting in the other", "both@example.com", acting=4, own={4: "m"}),
    Who("invited, not accepted", "pending@example.com"),
    Who("portal user", "viewer@example.com", portal=1),
    Who("operator's account", "operator@example.com", everything=True),
    Who("disabled meanwhile", "gone@example.com", how="disabled"),
    Who("expired token", "c3@example.com", how="expired"),
]


def fixture(cursor):
    """Something in every relation, of every side."""
    run = cursor.execute
    for kind, what in KINDS:
        run("SELECT partner_portal.enroll_role(%s, %s)", (ROLES[kind], what))
    run("SET search_path = partner_portal, public")
    run("INSERT INTO account (email, is_operator) VALUES ('operator@example.com', true)")
    for n, name in ((1, "p1"), (2, "p2")):
        run("SELECT workspace_id FROM create_workspace(%s, %s)", (name, name + "@example.com"))
        assert cursor.fetchone()[0] == n
        run("SELECT promote_to_partner(%s)", (n,))
        run("UPDATE workspace SET created_at = '2026-01-01', anchor_date = '2026-01-01', billing_from = '2026-01-01' WHERE workspace_id = %s", (n,))
        run("UPDATE partner SET registration_code = %s WHERE partner_id = %s", ("code-of-%d" % n, n))
    for n, name, partner in ((3, "c3", 1), (4, "c4", 2), (5, "d5", None), (6, "s6", 1), (7, "x7", 1), (8, "t8", 2), (9, "u9", 1)):
        run("""INSERT INTO workspace (company_name, slug, partner_id, created_at, anchor_date, billing_from, notify_new_keys, notify_billing)
            VALUES (%s, %s, %s, '2026-01-01', '2026-01-01', '2026-01-01', true, true) RETURNING workspace_id""", (name, name, partner))
        assert cursor.fetchone()[0] == n
        run("SELECT add_member(%s, %s, 'owner')", (n, name + "@example.com"))
    run("SELECT promote_to_partner(workspace_id) FROM create_workspace('p10', 'p10@example.com')")
    run("UPDATE workspace SET created_at = '2026-01-01', anchor_date = '2026-01-01', billing_from = '2026-01-01' WHERE workspace_id = 10")
    for n, email, role in ((10, "m10", "member"), (3, "a3", "administrator"), (3, "m3", "member"), (3, "g3", "guest"), (1, "m1", "member"), (1, "ao", "member"),
                           (1, "sa", "member"), (3, "both", "member"), (4, "both", "member"), (3, "gone", "administrator")):
        run("SELECT add_member(%s, %s, %s)", (n, email + "@example.com", role))
    run("UPDATE member SET accepted_at = now() WHERE accepted_at IS NULL")
    run("SELECT add_member(3, 'pending@example.com', 'member')")
    run("INSERT INTO account (email) SELECT 'pending@example.com' WHERE NOT EXISTS (SELECT FROM account WHERE email = 'pending@example.com')")
    run("UPDATE member m SET accepted_at = NULL FROM account a WHERE a.account_id = m.account_id AND a.email = 'pending@example.com'")

    # keys, limits and alerts, in every workspace
    run("""INSERT INTO security_key (workspace_id, kind, serial, status) SELECT w, CASE WHEN i % 2 = 0 THEN 'smartphone' ELSE 'contactless_card' END,
        'key ' || i, 'disabled' FROM generate_series(1, 10) w, generate_series(1, 3) i""")
    run("SELECT import_key_activity(workspace_id, key_id, '[2026-01-05, 2026-02-10)', 'moved in') FROM security_key")
    run("SELECT set_usage_limit(w, 2) FROM generate_series(1, 10) w")
    run("UPDATE security_key SET status = 'active' WHERE serial <> 'key 1'")

    # plans and invoices: of partner 1, of partner 2, of the platform
    for plan, partner in ((1, 1), (2, 2), (3, None)):
        run("SELECT create_price_plan(%s, 'Standard', 'CHF', 'per_unit', unit_price => 5, minimum_minor => 100)", (partner,))
    for n, plan in ((1, 3), (2, 3), (3, 1), (4, 2), (5, 3), (6, 1), (7, 1), (8, 2), (9, 1)):
        run("SELECT assign_price_plan(%s, %s, '2026-01-01')", (n, plan))
    for n in (1, 2):
        run("SELECT set_invoice_issuer(%s, name => 'Issuer')", (n,))
    run("SELECT count(*) FROM run_billing('2026-03-15 00:00+00')")
    run("SELECT count(*) FROM run_billing('2026-03-15 02:00+00')")

    # people of the partner look after customers; 8 moves from 2 to 1 with all that it had
    run("UPDATE workspace SET partner_id = partner_id")
    run("""INSERT INTO staff (workspace_id, account_id, partner_key, role) SELECT 4, account_id, 2, 'account_owner' FROM account WHERE email = 'p2@example.com'""")
    run("SELECT invite_member(w, 'someone' || w || '@example.com', 'member') FROM generate_series(3, 9) w")
    run("BEGIN")
    run("SELECT login_as(account_id) FROM account WHERE email = 't8@example.com'")
    run("SELECT transfer_workspace(8, 'code-of-1')")
    run("COMMIT")
    for n in (3, 8):
        for email, role in (("ao", "account_owner"), ("sa", "system_administrator")):
            run("SELECT assign_staff(%s, account_id, %s) FROM account WHERE email = %s", (n, role, email + "@example.com"))
    run("SELECT invite_member(8, 'someone88@example.com', 'member')")
    run("UPDATE security_key SET status = 'disabled' WHERE workspace_id = 8 AND serial = 'key 2'")

    # messages, of both partners' time in 8
    run("SET session_replication_role = replica")
    for n, partner in ((1, 0), (2, 0), (3, 1), (4, 2), (5, 0), (6, 1), (7, 1), (8, 2), (8, 1), (9, 1), (10, 0)):
        run("""INSERT INTO notification (workspace_id, partner_key, kind, dedupe_key, recipient, locale, subject, text_body)
            VALUES (%s, %s, 'test', 'of ' || %s, 'x@example.com', 'en', 's', 't') RETURNING notification_id""", (n, partner, partner))
        message = cursor.fetchone()[0]
        run("INSERT INTO delivery_queue (workspace_id, notification_id, destination) VALUES (%s, %s, 0)", (n, message))
        run("INSERT INTO delivery_attempt (workspace_id, notification_id, partner_key, outcome) VALUES (%s, %s, %s, 'retry')", (n, message, partner))
        run("INSERT INTO limit_alert VALUES (%s, %s, 80, now(), 1, 1, %s)", (n, "2020-01-%02d" % (partner + 1), partner))
    run("RESET session_replication_role")
    for n in WORKSPACES:
        run("""INSERT INTO webhook_endpoint (workspace_id, partner_key, url, events, nonce, key_version)
            SELECT workspace_id, partner_key, 'https://example.com/', '{*}', gen_random_uuid(), 1 FROM workspace WHERE workspace_id = %s""", (n,))
        run("INSERT INTO billing_failure VALUES (%s, 0, now(), 'XX000', 'test')", (n,))
        run("SELECT log_activity(%s, 'sign_in', 'test')", (n,))
        run("INSERT INTO folder (workspace_id, name) VALUES (%s, 'first') RETURNING folder_id", (n,))
        folder = cursor.fetchone()[0]
        run("INSERT INTO report (workspace_id, folder_id, title) VALUES (%s, %s, 'first')", (n, folder))
        run("INSERT INTO product (workspace_id, category, name) VALUES (%s, 'server', 'web'), (%s, 'domain', 'example.com')", (n, n))
    # the second consent is the workspace's own to give
    for n, email in ((3, "c3"), (4, "c4"), (8, "t8"), (9, "u9")):
        run("BEGIN")
        run("SELECT login_as(account_id) FROM account WHERE email = %s", (email + "@example.com",))
        run("UPDATE product SET partner_access = true WHERE workspace_id = %s AND category = 'server'", (n,))
        run("COMMIT")
    for n, scope, categories, rights, state, expires in (
            (5, "complete", [], ["manage", "read"], "active", None), (3, "complete", [], ["read"], "active", None),
            (4, "limited", ["server"], ["manage", "read"], "active", None), (9, "complete", [], ["manage", "read"], "ended", None),
            (6, "complete", [], ["manage", "read"], "active", "2026-02-01"), (8, "complete", [], ["manage", "read"], "offered", None)):
        run("""INSERT INTO access_grant (workspace_id, partner_id, scope, categories, wallet, rights, state, accepted_at, ended_at, expires_at)
            VALUES (%s, 10, %s, %s, %s, %s, %s, CASE WHEN %s <> 'offered' THEN now() END, CASE WHEN %s = 'ended' THEN now() END, %s)""",
            (n, scope, categories, False if scope == "complete" else None, rights, state, state, state, expires))
    for n in (1, 2):
        run("SELECT portal_id FROM create_portal(%s, %s, %s, '#112233', 'https://example.com/')", (n, "Portal %d" % n, "portal-%d" % n))
        assert cursor.fetchone()[0] == n
        run("SELECT share_folder(folder_id, %s) FROM folder WHERE workspace_id = %s", (n, n))
        run("SELECT define_attribute(%s, 'region', 'Region', 'string')", (n,))
        run("INSERT INTO account (email) VALUES (%s) RETURNING account_id", ("viewer@example.com" if n == 1 else "viewer2@example.com",))
        run("INSERT INTO portal_account (workspace_id, portal_id, account_id, role) VALUES (%s, %s, %s, 'viewer')", (n, n, cursor.fetchone()[0]))
        run("SELECT invite_portal_user(%s, %s, 'viewer')", (n, "v%d@example.com" % n))
    run("SELECT suspend_workspace(6, 'test')")
    run("SELECT delete_workspace(7)")
    run("INSERT INTO mail_opt_out (workspace_id, account_id, list) SELECT workspace_id, account_id, 'new_keys' FROM member")
    run("INSERT INTO account_identity VALUES ('issuer', 'subject', 1)")
    run("INSERT INTO revoked_token VALUES ('x', 'infinity')")
    run("SELECT map_role('regress_nobody', 1)")
    run("RESET search_path")


def read_expectations(path):
    """relation -> (kinds, query, {command: (what, predicate)})"""
    lines = []
    with open(path) as file:
        for line in file:
            if line.startswith("#") or not line.strip():
                continue
            if line[0] == " ":
                lines[-1] += " " + line.strip()
            else:
                lines.append(line.strip())
    expectations = {}
    for line in lines:
        parts = [part.strip() for part in line.split(" | ")]
        changes = {}
        for part in parts[3:]:
            left, predicate = part.split(" : ")
            command, _, what = left.partition(" ")
            changes[command] = (what, predicate)
        if parts[0] in expectations:
            raise SystemExit("%s: twice in %s" % (parts[0], path))
        expectations[parts[0]] = (parts[1], parts[2] if len(parts) > 2 else None, changes)
    return expectations


def literal(value):
    if value is None:
        return "NULL::bigint"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "'{%s}'::bigint[]" % ",".join(map(str, value))
    return "%d::bigint" % value


def told(text, who, kind):
    """The predicate or query for somebody, in plain SQL."""
    def having(standings, letters):
        return literal([w for w, roles in standings.items() if set(roles.split()) & set(letters.split())])

    text = re.sub(r"\blive\(([\w ]+)\)", r"(workspace_id = ANY (own(\1)) OR partner_key = :partner OR workspace_id = ANY (staff(\1)) OR workspace_id = ANY (granted(\1)) OR :everything)", text)
    text = re.sub(r"\bpast\(([\w ]+)\)", r"(workspace_id = ANY (own(\1)) OR partner_key = :partner OR workspace_id = ANY (staff(\1)) AND partner_key = :acts OR workspace_id = ANY (granted(\1)) OR :everything)", text)
    text = re.sub(r"\bown\(([\w ]+)\)", lambda m: having(who.own, m.group(1)), text)
    text = re.sub(r"\bstaff\(([\w ]+)\)", lambda m: having(who.staff, m.group(1)), text)
    text = re.sub(r"\bgranted\(([\w ]+)\)", lambda m: having(who.granted, m.group(1)), text)
    in_force = who.how == "login"
    values = {"account": who.account if in_force else None, "partner": who.partner if in_force else None, "acts": who.acts if in_force else None,
              "portal": who.portal if in_force else None, "shared": who.shared if in_force else [], "limited": who.limited, "everything": who.everything and in_force,
              "somebody": in_force, "reports": (who.everything and in_force) or (kind == "r" and not in_force)}
    return re.sub(r"(?<!:):(\w+)", lambda m: literal(values[m.group(1)]) if m.group(1) in values else m.group(0), text)


class Session:
    """A superuser's connection that becomes somebody, as some role, for one transaction."""

    def __init__(self):
        self.connection = harness.connect(DATABASE)
        self.cursor = self.connection.cursor()

    def begin(self, who, kind):
        run = self.cursor.execute
        run("BEGIN")
        if who.how == "expired":
            # within the clock skew of 30 s, and soon not any more
            run("SELECT partner_portal.login(%s)", (harness.token(SECRET, who.account, time.time() - 29.5),))
            while True:
                run("SELECT partner_portal.current_account_id() IS NULL")
                if self.cursor.fetchone()[0]:
                    break
                time.sleep(0.02)
        elif who.account is not None:
            run("SELECT partner_portal.login_as(%s)", (who.account,))
            if who.acting:
                run("SELECT partner_portal.act_in(%s)", (who.acting,))
            if who.portal:
                run("SELECT partner_portal.act_in_portal(%s)", (who.portal,))
        if who.how == "disabled":
            run("UPDATE partner_portal.account SET disabled_at = now() WHERE account_id = %s", (who.account,))
        run("SET LOCAL SESSION AUTHORIZATION %s" % ROLES[kind])
        run("SAVEPOINT here")

    def attempt(self, statement, parameters=None, copy=None):
        """Rows, or their number, or (SQLSTATE, message); takes back what it did."""
        try:
            if copy is not None:
                self.cursor.copy_expert(statement, copy)
                result = copy.getvalue()
            else:
                self.cursor.execute(statement, parameters)
                result = self.cursor.fetchall() if self.cursor.description else self.cursor.rowcount
        except psycopg2.Error as error:
            result = (error.pgcode, str(error).splitlines()[0])
        self.cursor.execute("ROLLBACK TO here")
        return result

    def end(self):
        self.cursor.execute("ROLLBACK")


def is_error(result):
    return isinstance(result, tuple)


class Matrix:
    def __init__(self, superuser, expectations):
        self.superuser = superuser
        self.expectations = expectations
        superuser.execute("SET search_path = partner_portal")
        superuser.execute("SELECT relname, relkind FROM pg_class WHERE relnamespace = 'partner_portal'::regnamespace AND relkind NOT IN ('i', 'I', 'S', 'c', 't') ORDER BY 1")
        self.relations = dict(superuser.fetchall())
        superuser.execute("SELECT relname FROM pg_class WHERE relnamespace = 'partner_portal'::regnamespace AND relkind = 'S' ORDER BY 1")
        self.sequences = [row[0] for row in superuser.fetchall()]
        self.tried = Counter()
        self.wrong = {}

    def note(self, command, relation, kind, who, text):
        self.wrong.setdefault(command, []).append("%s as %s, %s: %s" % (relation, ROLES[kind], who.name, text))

    def expect_refusal(self, command, relation, kind, who, result, codes):
        self.tried[command] += 1
        if not is_error(result) or result[0] not in codes:
            self.note(command, relation, kind, who, "%r" % (result,))

    def query(self, statement):
        self.superuser.execute(statement)
        return self.superuser.fetchall()

    def columns(self, relation):
        """What tells its rows apart, by the expectation's own list."""
        query = self.expectations[relation][1]
        listed = re.match(r"SELECT (.*?) FROM ", query).group(1)
        return [re.sub(r"^\w+\.", "", column.strip()) for column in listed.split(",")]

    def key_columns(self, relation):
        """The primary key of a table."""
        return [row[0] for row in self.query("""SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
            WHERE i.indrelid = 'partner_portal.%s'::regclass AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)""" % relation)]

    def reading(self, session, relation, kind, who):
        kinds, query, changes = self.expectations[relation]
        if kind not in kinds:
            self.expect_refusal("SELECT", relation, kind, who, session.attempt("SELECT count(*) FROM partner_portal." + relation), ("42501",))
            self.expect_refusal("COPY TO", relation, kind, who,
                                session.attempt("COPY (SELECT count(*) FROM partner_portal.%s) TO STDOUT" % relation, copy=io.StringIO()), ("42501",))
            return
        columns = ", ".join(self.columns(relation))
        rows = session.attempt("SELECT %s FROM partner_portal.%s" % (columns, relation))
        expected = self.query(told(query, who, kind))
        self.tried["SELECT"] += 1
        if is_error(rows):
            self.note("SELECT", relation, kind, who, "%r" % (rows,))
        elif Counter(rows) != Counter(expected):
            self.note("SELECT", relation, kind, who, "too much %s, missing %s" % (
                list((Counter(rows) - Counter(expected)).elements())[:5], list((Counter(expected) - Counter(rows)).elements())[:5]))
        source = relation + " (%s)" % columns if self.relations[relation] == "r" else None
        statement = "COPY partner_portal.%s TO STDOUT" % source if source else "COPY (SELECT %s FROM partner_portal.%s) TO STDOUT" % (columns, relation)
        copied = session.attempt(statement, copy=io.StringIO())
        self.tried["COPY TO"] += 1
        if is_error(copied) or copied.count("\n") != len(expected):
            self.note("COPY TO", relation, kind, who, "%r, not %d rows" % (copied if is_error(copied) else copied.count("\n"), len(expected)))

    def refused_always(self, session, relation, kind, who):
        """What nobody may do; and what this relation's line does not name."""
        kinds, query, changes = self.expectations[relation]
        name = "partner_portal." + relation
        view = self.relations[relation] != "r"
        codes = VIEW_REFUSED if view else ("42501",)
        column = self.query("""SELECT attname FROM pg_attribute WHERE attrelid = '%s'::regclass AND attnum > 0 AND attidentity = '' AND attgenerated = ''
            ORDER BY attnum LIMIT 1""" % name)
        column = column[0][0] if column else None
        empty = column is None
        for command, statement in (
                ("TRUNCATE", "TRUNCATE %s" % name),
                ("INSERT", "INSERT INTO %s DEFAULT VALUES" % name),
                ("ON CONFLICT", "INSERT INTO %s DEFAULT VALUES ON CONFLICT DO NOTHING" % name),
                ("MERGE", "MERGE INTO %s USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT DEFAULT VALUES" % name),
                ("UPDATE", None if empty else "UPDATE %s SET %s = %s" % (name, column, column)),
                ("FOR UPDATE", "SELECT FROM %s FOR UPDATE" % name),
                ("FOR SHARE", "SELECT FROM %s FOR SHARE" % name),
                ("DELETE", "DELETE FROM %s" % name)):
            as_named = "UPDATE" if command.startswith("FOR ") else "INSERT" if command in ("ON CONFLICT", "MERGE") else command
            if statement is None or (as_named in changes and kind in kinds):
                continue
            self.expect_refusal(command, relation, kind, who, session.attempt(statement), codes)
        allowed = kind in kinds and "INSERT" in changes
        listed = changes["INSERT"][0].split(") VALUES")[0] + ")" if allowed else "(%s)" % column if column else ""
        self.expect_refusal("COPY FROM", relation, kind, who,
                            session.attempt("COPY %s %s FROM STDIN" % (name, listed), copy=io.StringIO("")),
                            ("0A000",) if allowed else codes)

    def changing(self, session, relation, kind, who):
        kinds, query, changes = self.expectations[relation]
        if kind not in kinds:
            return
        name = "partner_portal." + relation
        key = self.key_columns(relation)
        everything = self.query("SELECT %s FROM %s ORDER BY 1" % (", ".join(key), name))
        same = " AND ".join("%s = %%s" % column for column in key)
        for command in ("UPDATE", "DELETE"):
            if command not in changes:
                continue
            what, predicate = changes[command]
            mine = set(self.query("SELECT %s FROM %s WHERE %s" % (", ".join(key), name, told(predicate, who, kind))))
            seen = set(self.query(told(query, who, kind)))
            forms = [(command, "%s WHERE %s" % ("UPDATE %s SET %s = %s" % (name, what, what) if what else "DELETE FROM " + name, same)),
                     ("MERGE", "MERGE INTO %s t USING (SELECT 1) s ON %s WHEN MATCHED THEN %s" % (
                         name, " AND ".join("t.%s = %%s" % column for column in key),
                         "UPDATE SET %s = t.%s" % (what, what) if what else "DELETE"))]
            if command == "UPDATE":
                forms += [("FOR UPDATE", "SELECT FROM %s WHERE %s FOR UPDATE" % (name, same)), ("FOR SHARE", "SELECT FROM %s WHERE %s FOR SHARE" % (name, same))]
            for form, statement in forms:
                for row in everything:
                    self.tried[form] += 1
                    result = session.attempt(statement, row)
                    touched = len(result) if isinstance(result, list) else result
                    if touched == (1 if row in mine else 0):
                        continue
                    # what one may touch may fail for another reason: it is deleted, or something hangs on it; and MERGE says
                    # of a row that one sees and may not touch what the others pass over
                    if not (is_error(result) and ((row in mine and result[0] in ("PP005", "23503")) or
                                                  (form == "MERGE" and row in seen and row not in mine and result[0] == "42501"))):
                        self.note(form, "%s %r" % (relation, row), kind, who, "%r" % (result,))
        if "INSERT" not in changes:
            return
        what, predicate = changes["INSERT"]
        taken = {w: self.query("SELECT %s FROM %s WHERE workspace_id = %d LIMIT 1" % (
            {"security_key": "serial", "folder": "name", "report": "title", "product": "name"}[relation], name, w)) for w in WORKSPACES}
        for form in ("INSERT", "ON CONFLICT DO NOTHING", "ON CONFLICT DO UPDATE", "MERGE"):
            refusals = {}
            for w in WORKSPACES + (ABSENT,):
                may = bool(self.query("SELECT FROM workspace WHERE workspace_id = %d AND (%s)" % (w, told(predicate, who, kind)))) or (
                    w == ABSENT and who.everything)
                folder = self.query("SELECT folder_id FROM folder WHERE workspace_id = %d" % w)
                for text in ("new",) if w == ABSENT else ("new", taken[w][0][0]):
                    columns, values = what.split(" VALUES ")
                    values = values.replace(":w", str(w)).replace(":folder", str(folder[0][0] if folder else 999)).replace(":text", "'%s'" % text)
                    statement = "INSERT INTO %s %s VALUES %s" % (name, columns, values)
                    if form == "ON CONFLICT DO NOTHING":
                        statement += " ON CONFLICT DO NOTHING"
                    elif form == "ON CONFLICT DO UPDATE":
                        if relation in ("report", "product"):
                            continue
                        statement += " ON CONFLICT ON CONSTRAINT %s DO UPDATE SET %s" % (
                            ("security_key_serial_key", "label = 'mine'") if relation == "security_key" else ("folder_name_key", "name = 'mine'"))
                    elif form == "MERGE":
                        statement = "MERGE INTO %s t USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT %s VALUES %s" % (name, columns, values)
                    result = session.attempt(statement)
                    self.tried[form] += 1
                    if may:
                        good = (result == 1 or (result == 0 and form == "ON CONFLICT DO NOTHING" and text != "new") or
                                (is_error(result) and (result[0] == "PP005" or (w == ABSENT and result[0] == "23503") or (result[0] == "PP001" and relation == "security_key") or
                                                       (text != "new" and result[0] == "23505" and form in ("INSERT", "MERGE")))))
                        if not good:
                            self.note(form, "%s of %d" % (relation, w), kind, who, "%r" % (result,))
                    elif not is_error(result) or result[0] not in ("42501", "P0002"):
                        self.note(form, "%s of %d (%s)" % (relation, w, text), kind, who, "%r" % (result,))
                    else:
                        refusals.setdefault(result[1].replace(str(w), "N"), []).append((w, text))
            if len(refusals) > 1:
                self.note(form, relation, kind, who, "refused in several ways: %r" % (refusals,))

    def run(self, session, kind, who):
        session.begin(who, kind)
        for relation in self.expectations:
            if relation not in self.relations:
                continue
            self.reading(session, relation, kind, who)
            if who.name in ("nobody", "partner's owner", "operator's account", "expired token"):
                self.refused_always(session, relation, kind, who)
            if self.expectations[relation][2] and kind in ("a", "o"):
                self.changing(session, relation, kind, who)
        if who.name in ("nobody", "partner's owner", "operator's account"):
            for sequence in self.sequences:
                for statement in ("SELECT last_value FROM partner_portal.%s", "SELECT nextval('partner_portal.%s')", "SELECT setval('partner_portal.%s', 1)"):
                    self.expect_refusal("sequence", sequence, kind, who, session.attempt(statement % sequence), ("42501",))
        session.end()


def main():
    superuser = harness.make_database(DATABASE)
    cursor = superuser.cursor()
    for role in ROLES.values():
        harness.make_role(cursor, role)
    fixture(cursor)
    expectations = read_expectations(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "isolation_matrix.txt"))
    matrix = Matrix(cursor, expectations)
    verdict(not set(matrix.relations) - set(expectations), "every relation has an expectation", sorted(set(matrix.relations) - set(expectations)))
    verdict(not set(expectations) - set(matrix.relations), "every expectation has a relation", sorted(set(expectations) - set(matrix.relations)))
    for who in PEOPLE:
        if who.email:
            cursor.execute("SELECT account_id FROM account WHERE email = %s", (who.email,))
            who.account = cursor.fetchone()[0]
        if who.portal:
            cursor.execute("SELECT array_agg(folder_id) FROM folder WHERE workspace_id = 1")
            who.shared = cursor.fetchone()[0]

    # without rows of several tenants, seeing none would prove nothing
    everybody = Who("everything", everything=True)
    poor = []
    for relation, (kinds, query, changes) in expectations.items():
        if query is None or relation not in matrix.relations:
            continue
        rows = matrix.query(told(query, everybody, "o"))
        seen = set(map(str, {row[0] for row in rows}))
        columns = matrix.columns(relation)
        if not rows and relation not in ("account", "my_mail_lists", "my_portals", "my_workspaces"):
            poor.append("%s has no row" % relation)
        if relation not in ("my_mail_lists", "my_workspaces") and columns[0] == "workspace_id" and not {"1", "2"} & seen == {"1", "2"} and not {"3", "4", "8"} <= seen:
            poor.append("%s has rows of %s only" % (relation, ", ".join(sorted(seen)) or "nobody"))
    verdict(not poor, "every relation has rows of several tenants", poor)

    with harness.signing(cursor, SECRET):
        session = Session()
        for kind in ROLES:
            for who in PEOPLE:
                matrix.run(session, kind, who)
    for command in sorted(matrix.tried):
        wrong = matrix.wrong.get(command, [])
        verdict(not wrong, "%s: %d of %d as expected" % (command, matrix.tried[command] - len(wrong), matrix.tried[command]), wrong)
    session.connection.close()
    superuser.close()
    harness.drop_database(DATABASE)
    sys.exit(harness.finish())


if __name__ == "__main__":
    main()
