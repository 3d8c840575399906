#!/usr/bin/python3
# packages: python3-psycopg2 pgbouncer
"""graphql.py: doc/connecting.md's GraphQL server, asked over HTTP by two partners, by nobody, and with a bad token; then by all
of them at once through PgBouncer, in transaction mode and configured as the page has it.

It needs node and npm, and what npm fetches; without them it is skipped.
"""
import json
import os
import re
import select
import shutil
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from lib import harness
from lib.harness import skip, verdict

DATABASE = "pp_graphql"
ROLE = "regress_graphql"
SECRET = b"a secret of the test of GraphQL, 32 bytes or more"


def make_database():
    """Workspaces 1 and 2 are partners; 3 and 5 are customers of the first, 4 and 6 of the second. Account n owns workspace n;
    customer n has n keys."""
    connection = harness.make_database(DATABASE, ROLE)
    cursor = connection.cursor()
    for n in (1, 2):
        cursor.execute("SELECT workspace_id FROM partner_portal.create_workspace(%s, %s)", ("Partner %d" % n, "owner%d@example.com" % n))
        assert cursor.fetchone()[0] == n
    cursor.execute("SELECT partner_portal.promote_to_partner(n) FROM generate_series(1, 2) n")
    for n in (3, 4, 5, 6):
        cursor.execute("""SELECT w.workspace_id FROM partner_portal.partner p,
            LATERAL partner_portal.register_workspace(p.registration_code, %s, %s) w WHERE p.partner_id = %s""",
                       ("Customer %d" % n, "owner%d@example.com" % n, (n - 1) % 2 + 1))
        assert cursor.fetchone()[0] == n
        cursor.execute("""INSERT INTO partner_portal.security_key (workspace_id, kind, serial)
            SELECT %s, 'smartphone', 'of %s number ' || i FROM generate_series(1, %s) i""", (n, n, n))
    return connection


def start_server(directory, settings=None):
    """doc/connecting.md's server on a port that is free, and that port; with these environment variables."""
    with open(os.path.join(directory, "server.js"), "w") as file:
        file.write(harness.page_block("doc/connecting.md", "GraphQL over the schema", "js"))
    environment = dict(os.environ, PGHOST=os.environ.get("PGHOST", "/var/run/postgresql"), PGUSER=ROLE, PGDATABASE=DATABASE, PORT="0")
    environment.pop("DATABASE_URL", None)
    environment.update(settings or {})
    server = subprocess.Popen(["node", "server.js"], cwd=directory, env=environment, stdout=subprocess.PIPE, text=True)
    line = server.stdout.readline() if select.select([server.stdout], [], [], 30)[0] else ""
    found = re.match(r"listening on port (\d+)$", line)
    return server, int(found.group(1)) if found else None


def ask(port, bearer, query):
    headers = {"Content-Type": "application/json"}
    if bearer:
        headers["Authorization"] = "Bearer " + bearer
    request = urllib.request.Request("http://127.0.0.1:%d/graphql" % port, json.dumps({"query": query}).encode(), headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as response:
        return json.load(response)


def codes(answer):
    return [error["extensions"].get("code") for error in answer.get("errors", [])]


def listed(answer):
    """Workspaces in an answer to LIST, and how many keys of each."""
    if answer.get("errors"):
        return answer
    keys = [int(key["workspaceId"]) for key in answer["data"]["allSecurityKeys"]["nodes"]]
    return sorted(int(w["workspaceId"]) for w in answer["data"]["allWorkspaces"]["nodes"]), {n: keys.count(n) for n in sorted(set(keys))}


LIST = "{ allWorkspaces { nodes { workspaceId } } allSecurityKeys { nodes { workspaceId } } }"
LIMIT = 'mutation { setUsageLimit(input: {workspaceId: "%d", keyLimit: %d}) { clientMutationId } }'
KEY = 'createSecurityKey(input: {securityKey: {workspaceId: "%d", kind: "smartphone", serial: "%s"}}) { securityKey { workspaceId status } }'


def ask_all(port, cursor):
    answer = ask(port, None, "{ __schema { queryType { fields { name } } } }")
    fields = {field["name"] for field in answer["data"]["__schema"]["queryType"]["fields"]}
    verdict({"allWorkspaces", "allSecurityKeys"} <= fields and "allRoleGrants" not in fields, "the schema has what the role may use, and not what it may not", [fields])
    for account, expected in ((1, ([1, 3, 5], {3: 3, 5: 5})), (2, ([2, 4, 6], {4: 4, 6: 6})), (3, ([3], {3: 3}))):
        answer = listed(ask(port, harness.token(SECRET, account), LIST))
        verdict(answer == expected, "account %d lists its own workspaces and keys" % account, [answer])
        answer = listed(ask(port, None, LIST))
        verdict(answer == ([], {}), "nobody, on the connection after it, lists nothing", [answer])
    for text, bad in (("signed by another", harness.token(b"another secret, also of 32 bytes or more", 1)), ("that is none", "nonsense")):
        answer = ask(port, bad, LIST)
        verdict(codes(answer) == ["28000"] and not answer.get("data"), "a token %s is an error, and shows nothing" % text, [answer])
    answer = ask(port, harness.token(SECRET, 1), LIMIT % (3, 4))
    verdict("errors" not in answer, "a partner sets its customer's limit", [answer])
    answer = ask(port, harness.token(SECRET, 1), "mutation { within: %s beyond: %s }" % (KEY % (3, "the fourth"), KEY % (3, "the fifth")))
    verdict(codes(answer) == ["PP001"] and answer["errors"][0]["path"] == ["beyond"], "a key beyond the limit is refused with PP001", [answer])
    verdict((answer.get("data") or {}).get("within") == {"securityKey": {"workspaceId": "3", "status": "active"}}, "a key within it, beside that, is made", [answer])
    answer = ask(port, harness.token(SECRET, 1), "mutation { %s }" % KEY % (4, "of another's"))
    verdict(codes(answer) == ["42501"], "a key of another partner's customer is refused with 42501", [answer])
    answer = ask(port, None, LIMIT % (4, 1))
    verdict(codes(answer) == ["42501"], "and a limit set by nobody", [answer])
    cursor.execute("SELECT workspace_id, count(*) FROM partner_portal.security_key WHERE status = 'active' GROUP BY 1 ORDER BY 1")
    rows = cursor.fetchall()
    verdict(rows == [(3, 4), (4, 4), (5, 5), (6, 6)], "nothing else has changed", [rows])


def ask_through_pooler(directory):
    """60 queries at once, of three accounts and of nobody, on a few connections that everyone gets in turn."""
    pgbouncer, bouncer_port = harness.start_pgbouncer(directory, DATABASE, ROLE)
    server = None
    try:
        with open(os.path.join(harness.TOP, "doc", "connecting.md")) as page:
            settings = re.search(r"POSTGRAPHILE_PREPARED_STATEMENT_CACHE_SIZE=(\d+)", page.read())
        server, port = start_server(directory, {"PGHOST": directory, "PGPORT": str(bouncer_port), "PGDATABASE": "portal",
                                                settings.group(0).split("=")[0]: settings.group(1)})
        verdict(port is not None, "it listens when it connects through PgBouncer")
        if port is None:
            return
        people = [(1, ([1, 3, 5], {3: 4, 5: 5})), (2, ([2, 4, 6], {4: 4, 6: 6})), (3, ([3], {3: 4})), (None, ([], {}))] * 15
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda person: listed(ask(port, person[0] and harness.token(SECRET, person[0]), LIST)), people))
        wrong = [(person, answer) for person, answer in zip(people, answers) if answer != person[1]]
        verdict(not wrong, "60 queries at once through PgBouncer, of three accounts and of nobody, each list what is theirs", wrong)
        answer = ask(port, harness.token(SECRET, 1), "mutation { within: %s beyond: %s }" % (KEY % (5, "the sixth"), KEY % (4, "of another's")))
        verdict(codes(answer) == ["42501"] and answer["errors"][0]["path"] == ["beyond"] and answer["data"]["within"],
                "a key is made through it, and another's refused", [answer])
        answer = listed(ask(port, harness.token(SECRET, 1), LIST))
        verdict(answer == ([1, 3, 5], {3: 4, 5: 6}), "and is there", [answer])
    finally:
        for process in (server, pgbouncer):
            if process is not None:
                process.terminate()
                process.wait()


def fetch(directory):
    """What the server needs, from npm; why it cannot be had, if so."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "there is no node here"
    try:
        done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--fetch-retries=1", "--fetch-retry-mintimeout=1000",
                               "--prefix", directory, "--cache", directory + "/cache", "postgraphile@4", "pg@8"],
                              cwd=directory, capture_output=True, text=True, timeout=45)
    except subprocess.TimeoutExpired:
        return "npm fetches nothing"
    return done.returncode and "npm cannot fetch it: " + " ".join(re.findall(r"^npm error (.*)", done.stderr, re.M)[:1])


def main():
    superuser = make_database()
    cursor = superuser.cursor()
    server = None
    with harness.signing(cursor, SECRET) as directory:
        missing = fetch(directory)
        if missing:
            skip("doc/connecting.md's GraphQL server: " + missing)
        else:
            try:
                server, port = start_server(directory)
                verdict(port is not None, "doc/connecting.md's GraphQL server listens")
                if port is not None:
                    ask_all(port, cursor)
            finally:
                if server is not None:
                    server.terminate()
                    server.wait()
            ask_through_pooler(directory)
    superuser.close()
    harness.drop_database(DATABASE)
    sys.exit(harness.finish())


main()
