#!/usr/bin/python3
"""tenant_queries.py SECONDS SEED: runs the queries that sqlsmith makes as a tenant, and watches what the server does.

The data is that of the isolation matrix (workspaces 1 to 10).  Every text that belongs to workspaces 2, 4, 5 and 10, or to
8 in the time of its old partner, is replaced by one with a mark in it; the tenants are owner of customer 3, owner of its
partner 1, and a user of the partner's portal.  None of them may see the mark: not in a row, an error, a detail, a notice; and
nothing that a query does may change a row of those workspaces.

sqlsmith chooses among all functions with the same weight, makes a mess of those with polymorphic types, calls none that returns
a set, and has hardly any values of its own; so it is shown a catalog without the former (schema "fewer"), there are functions that return text for each of ours (schemas "call_N"), and tables with everybody's ids to take
arguments from (schema "guess").  Each query runs in a transaction of its own, signed in by login_role(), and is taken back.
"""
import collections
import concurrent.futures
import os
import re
import subprocess
import sys
import time

import psycopg2

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "property"))
import isolation_matrix  # noqa: E402
from lib import harness  # noqa: E402

MARK = "kanarie"
COPIES = 15
FOREIGN = "(workspace_id IN (2, 4, 5, 10)%s)"
SOURCES = set(os.listdir(os.path.join(here, "..", "..", "src")))

# what may be known: the name and entrance of a partner
PUBLIC = {("workspace", "company_name"): "kind <> 'partner'", ("portal", "name"): "false", ("portal", "technical_name"): "false",
          ("portal", "color"): "false", ("portal", "logout_url"): "false", ("portal", "home_cover_url"): "false"}


def foreign_rows(cursor):
    """Table -> the condition that a row is none of the tenants' business."""
    cursor.execute("""SELECT c.relname, array_agg(a.attname::text) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = 'partner_portal'::regnamespace AND c.relkind = 'r' GROUP BY 1""")
    conditions = {}
    for table, columns in cursor.fetchall():
        if "workspace_id" in columns:
            conditions[table] = FOREIGN % (" OR workspace_id = 8 AND partner_key = 2" if "partner_key" in columns else "")
        elif "partner_key" in columns or "issuer_key" in columns or "partner_id" in columns:
            conditions[table] = "%s IN (2, 10)" % next(c for c in ("issuer_key", "partner_key", "partner_id") if c in columns)
        elif table == "account":
            conditions[table] = """account_id IN (SELECT account_id FROM partner_portal.member WHERE workspace_id IN (2, 4, 5, 10))
                AND account_id NOT IN (SELECT account_id FROM partner_portal.member WHERE workspace_id NOT IN (2, 4, 5, 10))"""
    return conditions


def mark(cursor, conditions):
    """Puts the mark into every column that takes it; returns how many values have it."""
    marked = 0
    cursor.execute("SET session_replication_role = replica")
    for table, condition in sorted(conditions.items()):
        cursor.execute("""SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0
            AND attgenerated = '' AND format_type(atttypid, NULL) IN ('text', 'jsonb', 'text[]') ORDER BY attnum""", ("partner_portal." + table,))
        for column, kind in cursor.fetchall():
            cursor.execute("SELECT ctid FROM partner_portal.%s WHERE %s AND %s" % (table, condition, PUBLIC.get((table, column), "true")))
            for number, (row,) in enumerate(cursor.fetchall()):
                # as addresses and host names go, and as they are not
                for value in {"text": ("'%s %d'", "'%s%d@example.com'", "'https://%s%d.example/'", "'%s-%d'"), "jsonb": ("coalesce(" + column + ", '{}') || '{\"%s\": %d}'",),
                              "text[]": ("ARRAY['%s %d']", "ARRAY['%s%d']")}[kind]:
                    try:
                        cursor.execute("UPDATE partner_portal.%s SET %s = %s WHERE ctid = '%s'" % (table, column, value % (MARK, number), row))
                        marked += 1
                        break
                    except psycopg2.Error as error:
                        if error.pgcode not in ("23514", "23505", "23503", "22023"):
                            raise
    cursor.execute("RESET session_replication_role")
    return marked


def prepare(cursor, conditions):
    run = cursor.execute
    for schema in ["guess", "watch"] + ["call_%d" % copy for copy in range(COPIES)]:
        run("CREATE SCHEMA %s" % schema)
        run("GRANT USAGE ON SCHEMA %s TO regress_app" % schema)
    run("""SELECT f.proname, f.proargtypes::regtype[]::text[], f.pronargdefaults FROM pg_proc f
        WHERE f.pronamespace = 'partner_portal'::regnamespace AND f.prokind = 'f' AND has_function_privilege('regress_app', f.oid, 'EXECUTE')
        AND f.proname NOT IN ('login', 'logout')""")
    functions = cursor.fetchall()
    for name, types, defaults in functions:
        for count in sorted({len(types), len(types) - defaults}):
            for copy in range(COPIES):
                run("CREATE FUNCTION call_%d.%s_%d(%s) RETURNS text LANGUAGE sql AS 'SELECT string_agg(r::text, '','') FROM partner_portal.%s(%s) r'"
                    % (copy, name, count, ", ".join(types[:count]), name, ", ".join("$%d" % (i + 1) for i in range(count))))
    for table in range(12):
        run("""CREATE TABLE guess.of_%d AS SELECT i AS id, 1 + (i * 7 + %d) %% 10 AS workspace, 1 + (i * 5 + %d) %% 40 AS other, ARRAY[i, i + 1]::bigint[] AS ids, (i %% 4)::integer AS few, i::numeric AS amount,
            (ARRAY['read', 'manage', 'complete', 'limited', 'owner', 'member', 'viewer', 'server', 'region', 'key 2', 'portal-2', 'EUR', 'flat', 'newest', 'x@example.com',
                'v2@example.com', 'p', 'm', 'disable', 'sign_in', 'C4', 'Europe/Zurich', 'account_owner', '']) [1 + (i + %d) %% 24] AS word,
            ARRAY[(ARRAY['read', 'manage', 'server', 'key.activated']) [1 + i %% 4]] AS words, '2026-01-01'::timestamptz + i * '10 days'::interval AS at, '2026-01-01'::date + i::integer * 20 AS day,
            tstzrange('2026-02-01', '2026-03-01') AS span, '{}'::jsonb AS doc, i %% 2 = 0 AS flag FROM generate_series(1, 40::bigint) i""" % (table, table, table, table))
    run("GRANT SELECT ON ALL TABLES IN SCHEMA guess TO regress_app")
    # what sqlsmith is to know of the catalog: what it makes of polymorphic types the parser refuses
    run("CREATE SCHEMA fewer")
    run("GRANT USAGE ON SCHEMA fewer TO regress_app")
    run("""CREATE VIEW fewer.pg_proc AS SELECT * FROM pg_catalog.pg_proc p WHERE p.pronamespace <> 'partner_portal'::regnamespace
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid = ANY (p.proargtypes::oid[] || p.prorettype) AND t.typtype = 'p')""")
    run("GRANT SELECT ON ALL TABLES IN SCHEMA fewer TO regress_app")
    # what theirs was before, and how much of it is not there any more
    run("CREATE TABLE watch.before (relation text, hash text)")
    parts = []
    for table, condition in sorted(conditions.items()):
        run("INSERT INTO watch.before SELECT '%s', md5(t::text) FROM partner_portal.%s t WHERE %s" % (table, table, condition))
        parts.append("SELECT b.relation FROM watch.before b WHERE b.relation = '%s' AND NOT EXISTS (SELECT FROM partner_portal.%s t WHERE md5(t::text) = b.hash)" % (table, table))
    run("""CREATE FUNCTION watch.changed() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $$ SELECT string_agg(DISTINCT relation, ', ') FROM (%s) c $$""" % " UNION ALL ".join(parts))
    run("GRANT EXECUTE ON FUNCTION watch.changed() TO regress_app")
    return len(functions)


def chunk(seed):
    """sqlsmith's first queries of a seed. It may never come to an end with one: then those before."""
    target = "host=%s port=%s dbname=%s user=regress_app options='-c search_path=fewer,pg_catalog'" % (os.environ["PGHOST"], os.environ.get("PGPORT", 5432), isolation_matrix.DATABASE)
    try:
        text = subprocess.run(["sqlsmith", "--target=" + target, "--dry-run", "--exclude-catalog", "--seed=%d" % seed, "--max-queries=500"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=15).stdout
    except subprocess.TimeoutExpired as late:
        text = late.stdout or b""
    text = text.decode().split("Generating indexes...done.\n", 1)[-1]
    return re.findall(r".*?;\n", text, re.S)


def generated(seed):
    """Queries without end; the next ones are made while these run."""
    with concurrent.futures.ThreadPoolExecutor(1) as maker:
        coming = maker.submit(chunk, seed)
        while True:
            queries = coming.result()
            seed += 1
            coming = maker.submit(chunk, seed)
            yield from queries


class Tenant:
    def __init__(self, portal=None):
        self.portal = portal
        self.states = collections.Counter()
        self.findings = collections.OrderedDict()
        self.rows = self.calls = self.watched = 0
        self.connect()

    def connect(self):
        self.connection = psycopg2.connect(dbname=isolation_matrix.DATABASE, user="regress_app", options="-c statement_timeout=2s -c client_min_messages=notice -c work_mem=4MB")
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()

    def find(self, what, query):
        self.findings.setdefault(what, query)

    def look(self, text, query, where):
        if MARK in text.lower():
            at = text.lower().index(MARK)
            self.find("%s shows %r" % (where, text[max(0, at - 60):at + 60]), query)

    def run(self, query):
        cursor = self.cursor
        cursor.execute("BEGIN; SELECT partner_portal.login_role()")
        if self.portal:
            cursor.execute("SELECT partner_portal.act_in_portal(%s)", (self.portal,))
        try:
            cursor.execute(query)
            self.states["ok"] += 1
            if cursor.description:
                rows = cursor.fetchmany(20000)
                self.rows += len(rows)
                self.look(repr(rows), query, "a row")
            if "call_" in query or not query.lstrip().lower().startswith("select"):
                self.calls += 1
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
                cursor.execute("SELECT watch.changed()")
                changed = cursor.fetchone()[0]
                self.watched += 1
                if changed:
                    self.find("rows of others changed in " + changed, query)
        except psycopg2.Error as error:
            self.states[error.pgcode or "lost"] += 1
            diag = error.diag
            told = "\n".join(filter(None, (diag.message_primary, diag.message_detail, diag.message_hint, diag.context, str(error))))
            self.look(told, query, "an error (%s)" % error.pgcode)
            ours = diag.source_file in SOURCES or "function partner_portal." in (diag.context or "")
            if ours and error.pgcode and error.pgcode[:2] in ("XX", "42", "P0") and error.pgcode not in ("42501", "P0002"):
                self.find("%s from ours: %s | %s" % (error.pgcode, diag.message_primary, (diag.context or "").splitlines()[:1]), query)
            elif ours:
                self.states[error.pgcode + " (ours)"] += 1
        self.look("\n".join(self.connection.notices), query, "a notice")
        del self.connection.notices[:]
        if self.connection.closed:
            self.connect()
        else:
            cursor.execute("ROLLBACK")


def main():
    seconds, seed = float(sys.argv[1]), int(sys.argv[2])
    superuser = harness.make_database(isolation_matrix.DATABASE)
    cursor = superuser.cursor()
    for role in isolation_matrix.ROLES.values():
        harness.make_role(cursor, role)
    isolation_matrix.fixture(cursor)
    cursor.execute("SELECT partner_portal.map_role('regress_nobody', NULL)")
    conditions = foreign_rows(cursor)
    marked = mark(cursor, conditions)
    functions = prepare(cursor, conditions)
    cursor.execute("SELECT pg_postmaster_start_time()")
    print("%d marks in the rows of others, %d functions of ours to call" % (marked, functions), flush=True)
    bad = marked < 200
    total = 0
    for number, (email, portal) in enumerate((("c3@example.com", None), ("p1@example.com", None), ("viewer@example.com", 1))):
        cursor.execute("SELECT partner_portal.map_role('regress_app', account_id) FROM partner_portal.account WHERE email = %s", (email,))
        tenant = Tenant(portal)
        until = time.time() + seconds * (0.4, 0.4, 0.2)[number]
        queries = 0
        source = generated(1000000 * number + 1000 * seed)
        for query in source:
            tenant.run(query)
            queries += 1
            if time.time() > until:
                break
        source.close()
        tenant.connection.close()
        total += queries
        print("%s: %d queries, %d rows read, %d calls and changes of which %d compared; %s" % (email, queries, tenant.rows, tenant.calls, tenant.watched,
              ", ".join("%s %d" % pair for pair in tenant.states.most_common())), flush=True)
        bad = bad or queries == 0 or tenant.states["ok"] == 0
        for what, query in tenant.findings.items():
            bad = True
            print("FOUND: %s\n%s" % (what, re.sub(r"\s+", " ", query)[:3000]), flush=True)
    superuser.close()
    print("%d queries" % total)
    sys.exit(1 if bad else 0)


main()
