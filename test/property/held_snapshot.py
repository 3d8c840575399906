#!/usr/bin/python3
# packages: python3-psycopg2
"""held_snapshot.py: a snapshot held open does not make each activation walk the dead versions of its counter.

One session holds a snapshot while another disables and activates a key again and again. The blocks of workspace_usage and
its indexes that one more activation visits are few and do not grow.
"""
import sys

import psycopg2

DATABASE = 'pp_held_snapshot'
CHANGES = 4000


def connect(database=DATABASE):
    connection = psycopg2.connect(dbname=database, options='-c client_min_messages=warning -c synchronous_commit=off')
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


admin = connect('postgres')
admin.execute('DROP DATABASE IF EXISTS %s WITH (FORCE)' % DATABASE)
admin.execute('CREATE DATABASE %s' % DATABASE)
worker = connect()
worker.execute('CREATE EXTENSION partner_portal')
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
admin.execute('DROP DATABASE %s WITH (FORCE)' % DATABASE)
print('%s 1 - %.1f blocks for each change, %.1f after %d with a snapshot held' % ('ok' if held < 2 * free + 10 else 'not ok', free, held, CHANGES))
print('%s 2 - the counter is the count' % ('ok' if counted else 'not ok'))
print('1..2')
sys.exit(0 if held < 2 * free + 10 and counted else 1)
