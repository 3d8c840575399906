#!/usr/bin/env python3
# packages: python3-psycopg2
"""invitation_race: one invitation, 20 sessions that accept it at once, in each isolation level.

Exactly one gets in: one account, one membership or workspace is made, and everybody else is told PP002, or to try again
(40001), which is then PP002. The cap of an hour is as exact.
"""

import sys
import threading

import psycopg2

from lib import harness
from lib.harness import verdict

DATABASE = "pp_invitation_race"
SESSIONS = 20


def at_once(work):
    """Runs work(cursor, n) in as many sessions, which start together; what each returns."""
    barrier = threading.Barrier(SESSIONS)
    results = [None] * SESSIONS

    def run(n):
        connection = harness.connect(DATABASE)
        cursor = connection.cursor()
        barrier.wait()
        results[n] = work(cursor, n)
        connection.close()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def accept(isolation, token):
    def work(cursor, _):
        while True:
            try:
                cursor.execute(f"BEGIN ISOLATION LEVEL {isolation}")
                cursor.execute("SELECT count(*) FROM partner_portal.member")
                cursor.execute("SELECT account_id FROM partner_portal.accept_invitation(%s, company_name => 'New', owner_name => 'New')", (token,))
                account = cursor.fetchone()[0]
                cursor.execute("COMMIT")
                return account
            except psycopg2.Error as error:
                cursor.execute("ROLLBACK")
                if error.pgcode not in ("40001", "40P01"):
                    return error.pgcode
    return work


def main():
    cursor = harness.make_database(DATABASE).cursor()
    cursor.execute("SELECT (partner_portal.create_workspace('Partner', 'p@example.com')).workspace_id")
    cursor.execute("SELECT (partner_portal.promote_to_partner(1)).partner_id")
    test = 0
    for isolation in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        for kind, invite in (("member", "invite_member(1, %s, 'member')"), ("customer", "invite_customer(%s, partner_id => 1)"),
                             ("partner", "invite_partner(%s, 'New')")):
            test += 1
            email = f"new{test}@example.com"
            cursor.execute(f"SELECT token FROM partner_portal.{invite}", (email,))
            results = at_once(accept(isolation, cursor.fetchone()[0]))
            cursor.execute("SELECT count(*) FROM partner_portal.member m JOIN partner_portal.account a USING (account_id) WHERE a.email = %s", (email,))
            members = cursor.fetchone()[0]
            got_in = [r for r in results if isinstance(r, int)]
            good = len(got_in) == 1 and members == 1 and results.count("PP002") == SESSIONS - 1
            verdict(good, f"{kind}, {isolation.lower()}: {len(got_in)} of {SESSIONS} got in, {members} membership", results)

    def invite(cursor, n):
        try:
            cursor.execute("BEGIN")
            cursor.execute("SET LOCAL partner_portal.invitations_per_hour = 7")
            cursor.execute("SELECT partner_portal.login_as(1), partner_portal.act_in(1)")
            cursor.execute("SELECT invitation_id FROM partner_portal.invite_member(1, %s, 'member')", (f"capped{n}@example.com",))
            cursor.execute("COMMIT")
            return "sent"
        except psycopg2.Error as error:
            cursor.execute("ROLLBACK")
            return error.pgcode

    results = at_once(invite)
    verdict(results.count("sent") == 7 and results.count("53400") == SESSIONS - 7,
            f"the cap of an hour: {results.count('sent')} of {SESSIONS} sent", results)
    cursor.connection.close()
    harness.drop_database(DATABASE)
    return harness.finish()


if __name__ == "__main__":
    sys.exit(main())
