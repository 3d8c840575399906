#!/usr/bin/python3
# packages: python3-psycopg2
"""shared_role.py: what two tenants with SQL of their own can do to each other when the application connects both as one role.

PostgreSQL tells sessions apart by role: what it lets a session see of, or do to, another of its role is shown here as it is
("open"), with what closes it (README, security); and that it ends nowhere near the other's rows.  It also holds src/own_lock.c
to its word: no lock that a tenant takes stops tick() or delivery.
"""
import os
import subprocess
import sys
import tempfile
import threading
import time

import psycopg2
import psycopg2.extensions

from lib import harness
from lib.harness import verdict

DATABASE = "pp_shared_role"
SIGNALS = "FUNCTION pg_catalog.pg_cancel_backend(integer), pg_catalog.pg_terminate_backend(integer, bigint)"
OBJECTS = "FUNCTION pg_catalog.lo_creat(integer), pg_catalog.lo_create(oid), pg_catalog.lo_from_bytea(oid, bytea)"


def session(role="regress_app"):
    connection = psycopg2.connect(dbname=DATABASE, user=role)
    connection.autocommit = True
    return connection, connection.cursor()


def result(cursor, statement, *arguments):
    """The first value, or the SQLSTATE."""
    try:
        cursor.execute(statement, arguments)
        return cursor.fetchone()[0] if cursor.description else None
    except psycopg2.Error as error:
        return error.pgcode


def until(condition, seconds=30):
    end = time.time() + seconds
    while time.time() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def sleeping(cursor, what):
    """Whether a session is at a statement with this in it; waits for it."""
    def look():
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()", ("%" + what + "%",))
        return cursor.fetchone()[0] > 0
    return until(look)


def in_background(connection, account, statement):
    """Signs in, inserts a key and runs a statement in one transaction; the thread's outcome is the SQLSTATE, or None."""
    outcome = []

    def work():
        try:
            cursor = connection.cursor()
            cursor.execute("BEGIN; SELECT partner_portal.login_role()")
            cursor.execute("INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (%s, 'smartphone', 'never')", (account,))
            cursor.execute(statement)
            outcome.append(None)
        except psycopg2.Error as error:
            outcome.append(error.pgcode or "lost")
    thread = threading.Thread(target=work)
    thread.start()
    return thread, outcome


def queries(superuser):
    theirs, _ = session()
    thread, outcome = in_background(theirs, 2, "SELECT pg_sleep(60), 'a literal of theirs'")
    sleeping(superuser, "literal of theirs")
    look = "SELECT query FROM pg_stat_activity WHERE pid = %s"
    mine = session()[1]
    other = session("regress_app2")[1]
    pid = theirs.info.backend_pid
    verdict("literal of theirs" in result(mine, look, pid), "32, open: sessions of the same role show their statements")
    verdict(result(other, look, pid) == "<insufficient privilege>", "32: those of another role do not")
    superuser.execute("SELECT pg_cancel_backend(%s)", (pid,))
    thread.join()
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write("SELECT pg_sleep(60), :what::text;\n")
        script.flush()
        os.chmod(script.name, 0o644)
        bench = subprocess.Popen(["pgbench", "-n", "-M", "extended", "-t", "1", "-D", "what='a parameter'", "-f", script.name, "-U", "regress_app", DATABASE],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        there = sleeping(superuser, "SELECT pg_sleep(60), $1")
        superuser.execute("SELECT query FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60), $1%'")
        text = superuser.fetchone()
        verdict(there and text and "a parameter" not in text[0], "32: a parameter of the protocol is in no statement's text", [text])
        superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60), $1%'")
        bench.wait()


def signals(superuser):
    other = session("regress_app2")[1]
    mine = session()[1]
    for call, ended in (("pg_cancel_backend(%s)", ("57014",)), ("pg_terminate_backend(%s)", ("57P01", "lost"))):
        theirs, _ = session()
        thread, outcome = in_background(theirs, 2, "SELECT pg_sleep(60)")
        sleeping(superuser, "pg_sleep(60)")
        pid = theirs.info.backend_pid
        verdict(result(other, "SELECT " + call, pid) == "42501", "33: %s of another role's session is refused" % call[:-4])
        superuser.execute("REVOKE EXECUTE ON %s FROM PUBLIC" % SIGNALS)
        verdict(result(mine, "SELECT " + call, pid) == "42501", "33: and of the same role's once the right is revoked")
        superuser.execute("GRANT EXECUTE ON %s TO PUBLIC" % SIGNALS)
        verdict(result(mine, "SELECT " + call, pid) is True, "33, open: before that it is not")
        thread.join()
        verdict(outcome[0] in ended, "33: the other loses its transaction", outcome)
    until(lambda: result(superuser, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(60)%%' AND pid <> pg_backend_pid()") == 0)
    verdict(result(superuser, "SELECT count(*) FROM partner_portal.security_key WHERE serial = 'never'") == 0 and
            result(superuser, "SELECT count(*) FROM partner_portal.verify()") == 0, "33: of which nothing is left")


def locks(superuser):
    mine = session()[1]
    other = session("regress_app2")[1]
    mine.execute("SELECT pg_advisory_lock(1)")
    verdict(result(other, "SELECT pg_try_advisory_lock(1)") is False, "34, open: advisory locks are one space for all roles")
    # of tick() and of the engines that deliver: by the classes that src/own_lock.c and 1.0 know them by
    for class_number in (1886413925, 1886413926):
        mine.execute("SELECT count(pg_advisory_lock(%s, i)), count(pg_advisory_lock((%s::bigint << 32) + i)) FROM generate_series(1, 200) i", (class_number, class_number))
    superuser.execute("UPDATE partner_portal.job_step SET last_run_at = NULL")
    superuser.execute("CALL partner_portal.tick(now())")
    superuser.execute("SELECT step FROM partner_portal.job_step WHERE last_run_at IS NULL OR failures > 0")
    verdict(not superuser.fetchall(), "34: but no lock that a tenant takes keeps tick() from a step")
    superuser.execute("""INSERT INTO partner_portal.notification (workspace_id, partner_key, kind, dedupe_key, recipient, locale, subject, text_body)
        VALUES (2, 1, 'test', 'test', 'x@example.com', 'en', 's', 't') RETURNING notification_id""")
    number = superuser.fetchone()[0]
    superuser.execute("INSERT INTO partner_portal.delivery_queue (workspace_id, notification_id, destination, claims, lease_token, lease_until) VALUES (2, %s, 0, 1, 77, 'infinity')", (number,))
    superuser.execute("SELECT partner_portal.release_stale_deliveries(78)")
    verdict(result(superuser, "SELECT lease_token IS NULL FROM partner_portal.delivery_queue WHERE notification_id = %s", number) is True,
            "34: nor makes an engine that is gone look alive")
    mine.execute("SELECT pg_advisory_unlock_all()")
    mine.execute("BEGIN; LOCK TABLE partner_portal.security_key IN SHARE ROW EXCLUSIVE MODE")
    other.execute("BEGIN; SELECT partner_portal.login_role(); SET LOCAL lock_timeout = '100ms'; SAVEPOINT here")
    verdict(result(other, "SELECT count(*) FROM partner_portal.security_key") == 2, "34: a table that another tenant locks is read")
    verdict(result(other, "INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'late')") == "55P03",
            "34, open: and not written meanwhile; lock_timeout ends the wait")
    other.execute("ROLLBACK")
    mine.execute("ROLLBACK")


def objects(superuser):
    mine = session()[1]
    other = session("regress_app2")[1]
    peer = session()[1]
    number = result(mine, "SELECT lo_from_bytea(0, 'of mine')")
    verdict(bytes(result(peer, "SELECT lo_get(%s)", number)) == b"of mine", "34, open: a large object is read by every session of the role")
    verdict(result(other, "SELECT lo_get(%s)", number) == "42501", "34: and by none of another")
    named = "SELECT string_agg(problem, '|') FROM partner_portal.check_isolation() WHERE object = 'role \"regress_app\"'"
    found = result(superuser, named)
    verdict("large objects" in found and "sessions" in found, "check_isolation() names both holes", [found])
    for functions, word in ((OBJECTS, "large objects"), (SIGNALS, "sessions")):
        superuser.execute("REVOKE EXECUTE ON %s FROM PUBLIC" % functions)
        verdict(word not in (result(superuser, named) or ""), "and no more once closed: " + word)
    verdict([result(mine, "SELECT " + call) for call in ("lo_from_bytea(0, 'x')", "lo_create(0)", "lo_creat(-1)")] == ["42501"] * 3, "34: then nobody makes any")
    mine.execute("SELECT lo_unlink(%s)", (number,))


def notices(superuser):
    listening, cursor = session("regress_app2")
    cursor.execute("LISTEN news")
    session()[1].execute("NOTIFY news, 'of mine'")
    verdict(until(lambda: listening.poll() == psycopg2.extensions.POLL_OK and listening.notifies), "34, open: a notice reaches every role that listens, so none carries what is secret")
    superuser.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'partner_portal'::regnamespace AND prosrc ~* '\\mpg_notify\\M|\\mNOTIFY [a-z]+,'")
    verdict(not superuser.fetchall(), "34: we send none")


def prepared(superuser):
    superuser.execute("SHOW max_prepared_transactions")
    if superuser.fetchone()[0] == "0":
        harness.skip("max_prepared_transactions is 0")
        return
    theirs = session()[1]
    theirs.execute("BEGIN; SELECT partner_portal.login_role()")
    theirs.execute("INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'prepared')")
    theirs.execute("PREPARE TRANSACTION 'of theirs'")
    mine, other = session()[1], session("regress_app2")[1]
    verdict(result(mine, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()") == "of theirs", "open: everybody sees the names of prepared transactions")
    verdict(result(other, "ROLLBACK PREPARED 'of theirs'") == "42501", "another role cannot end them")
    verdict(result(mine, "ROLLBACK PREPARED 'of theirs'") is None, "open: the same role can")
    verdict(result(superuser, "SELECT count(*) FROM partner_portal.verify()") == 0, "verify() finds nothing")


def main():
    connection = harness.make_database(DATABASE)
    superuser = connection.cursor()
    for number, role in ((2, "regress_app"), (3, "regress_app2")):
        harness.make_role(superuser, role)
        superuser.execute("SELECT partner_portal.enroll_role(%s, 'application')", (role,))
    superuser.execute("""SELECT workspace_id FROM partner_portal.create_workspace('P', 'p@example.com');
        SELECT partner_portal.promote_to_partner(1)""")
    superuser.execute("""INSERT INTO partner_portal.workspace (company_name, slug, partner_id, anchor_date) VALUES ('C2', 'c2', 1, '2026-01-01'), ('C3', 'c3', 1, '2026-01-01');
        SELECT partner_portal.add_member(w, 'c' || w || '@example.com', 'owner') FROM generate_series(2, 3) w;
        INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT w, 'smartphone', i FROM generate_series(2, 3) w, generate_series(1, 2) i;
        SELECT partner_portal.map_role('regress_app', 2), partner_portal.map_role('regress_app2', 3)""")
    for part in (queries, signals, locks, prepared, objects, notices):
        part(superuser)
    connection.close()
    harness.drop_database(DATABASE)
    sys.exit(harness.finish())


main()
