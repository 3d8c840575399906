#!/usr/bin/python3
# packages: python3-psycopg2
"""held_snapshot.py: a snapshot held open does not make each activation walk the dead versions of its counter.

One session holds a snapshot while another disables and activates a key again and again. The blocks of workspace_usage and
its indexes that one more activation visits are few and do not grow.
"""
import sys

import psycopg2

from lib import harness

DATABASE = 'pp_held_snapshot'
CHANGES = 4000


def connect():
    connection = psycopg2.connect(dbname=DATABASE, options='-c client_min_messages=warning -c synchronous_commit=off')
    connection.autocommit = True
    return connection.cursor()


def blocks(cursor):
    cursor.execute('SELECT pg_stat_force_next_flush()')
    cursor.execute("SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read FROM pg_statio_user_tables"
                   " WHERE relid = 'partner_portal.workspace_usage'::regclass")
    return cursor.fetchone()[0]


def change(cursor, times):
    """So many changes, each in its own transaction; the blocks that each visited."""
    before = blocks(cursor)
    for i in range(times):
        cursor.execute("UPDATE partner_portal.security_key SET status = %s", (('disabled', 'active')[i % 2],))
    return (blocks(cursor) - before) / times


harness.make_database(DATABASE).close()
worker = connect()
worker.execute("INSERT INTO partner_portal.workspace (company_name, slug, anchor_date, restrict_keys, key_limit) VALUES ('A', 'a', '2026-01-01', true, 5)")
worker.execute("INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT workspace_id, 'smartphone', 'S-1' FROM partner_portal.workspace")
free = change(worker, 100)
holder = connect()
holder.execute('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1')
change(worker, CHANGES)
held = change(worker, 100)
worker.execute('SELECT active_keys = (SELECT count(*) FROM partner_portal.security_key WHERE status = \'active\') FROM partner_portal.workspace_usage')
counted = worker.fetchone()[0]
holder.connection.close()
worker.connection.close()
harness.drop_database(DATABASE)
harness.verdict(held < 2 * free + 10, '%.1f blocks for each change, %.1f after %d with a snapshot held' % (free, held, CHANGES))
harness.verdict(counted, 'the counter is the count')
sys.exit(harness.finish())
