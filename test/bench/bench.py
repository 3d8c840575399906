#!/usr/bin/python3
"""bench.py: runs the rows of the benchmark and prints their table; run by test/bench/run.

A row is a file beside this one with a function run(bench), which yields Figures.
"""
import importlib
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import namedtuple

import psycopg2

DATABASE = 'pp_bench'
ROWS = ('copy_keys', 'mass_disable', 'activate', 'held_snapshot', 'row_security', 'isolated', 'panel', 'usage', 'login', 'delivery')
HERE = os.path.dirname(os.path.abspath(__file__))

# ratios: one for each pair; goal: the bound that the median is held to; faster: whether the ratio is to be high
Figure = namedtuple('Figure', 'what floor ratios goal high unit detail')


class Bench:
    """A database with workspaces and what rows need to measure in it."""

    def __init__(self, scale):
        self.scale = scale
        self.workspaces = max(int(10000 * scale), 100)
        self.customers = max(int(1000 * scale), 50)
        self.keys = int(1000000 * scale)
        self.psql = self.connect('postgres')
        self.psql.execute('DROP DATABASE IF EXISTS ' + DATABASE + ' WITH (FORCE)')
        self.psql.execute('CREATE DATABASE ' + DATABASE + " TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
        for setting in ('jit = off', 'synchronous_commit = off', 'max_parallel_workers_per_gather = 0'):
            self.psql.execute('ALTER DATABASE ' + DATABASE + ' SET ' + setting)
        self.db = self.connect()
        with open(os.path.join(HERE, 'setup.sql')) as script:
            self.db.execute(script.read(), {'workspaces': self.workspaces, 'customers': self.customers})
        self.large_partner, self.small_partner, self.first_direct, self.hot, self.big = self.row(
            "SELECT max(workspace_id) FILTER (WHERE slug = 'large'), max(workspace_id) FILTER (WHERE slug = 'small'),"
            " min(workspace_id) FILTER (WHERE kind = 'business' AND partner_key = 0), max(workspace_id) FILTER (WHERE slug = 'hot'),"
            " max(workspace_id) FILTER (WHERE slug = 'big') FROM partner_portal.workspace")
        self.last = self.row('SELECT max(workspace_id) FROM partner_portal.workspace')[0]

    @staticmethod
    def connect(database=DATABASE):
        connection = psycopg2.connect(dbname=database, options='-c client_min_messages=warning -c timezone=UTC')
        connection.autocommit = True
        return connection.cursor()

    def row(self, statement, values=None):
        self.db.execute(statement, values)
        return self.db.fetchone()

    def seconds(self, seconds):
        """A time to measure for, shorter in a small run."""
        return max(1, round(seconds * min(1, self.scale * 3)))

    def times(self, times):
        """How often to repeat, less in a small run."""
        return times if self.scale >= 1 else max(2, times // 2)

    def empty_keys(self):
        """No keys and no facts, in both worlds."""
        self.db.execute("SET session_replication_role = replica;"
                        "TRUNCATE floor.security_key, partner_portal.security_key, partner_portal.key_history, partner_portal.limit_alert;"
                        "UPDATE partner_portal.workspace_usage SET total_keys = 0, active_keys = 0, total_smartphones = 0, active_smartphones = 0,"
                        " total_contactless_cards = 0, active_contactless_cards = 0;"
                        "RESET session_replication_role")
        self.db.execute('VACUUM (FULL, ANALYZE) partner_portal.workspace_usage')

    def fill_keys(self, part=1, facts=0, order='n'):
        """Active keys in every workspace, in both worlds, straight into the tables; or a part of them.

        With facts, so many in one workspace, and activations over the last five weeks, half of them not the key's first.
        In order of n, each workspace gets one key in turn; in order of w.workspace_id, all of one before the next.
        """
        self.empty_keys()
        since = "now() - interval '1 hour'" if not facts else "now() - interval '10 minutes' * ((n * 7919 + w.workspace_id * 104729) %% 5040)"
        self.db.execute("SET partner_portal.restoring = on;"
                        "INSERT INTO partner_portal.security_key (workspace_id, partner_key, kind, serial, status, created_at, activated_at)"
                        " SELECT w.workspace_id, w.partner_key, (ARRAY['contactless_card', 'smartphone', 'smartphone'])[n %% 3 + 1],"
                        " 'S-' || n, 'active', now() - interval '40 days', " + since +
                        " FROM generate_series(1, %(each)s) n, partner_portal.workspace w WHERE w.kind = 'business' ORDER BY " + order + ", n;"
                        "INSERT INTO partner_portal.security_key (workspace_id, partner_key, kind, serial, status, created_at, activated_at)"
                        " SELECT w.workspace_id, w.partner_key, (ARRAY['contactless_card', 'smartphone', 'smartphone'])[n %% 3 + 1],"
                        " 'S-' || n, 'active', now() - interval '40 days', " + since +
                        " FROM generate_series(%(each)s + 1, %(facts)s) n, partner_portal.workspace w WHERE w.workspace_id = %(big)s",
                        {'each': int(self.keys * part) // self.workspaces, 'facts': facts, 'big': self.big})
        if facts:
            self.db.execute("INSERT INTO partner_portal.key_history (workspace_id, key_id, active_from, active_until, kind, recorded_at, partner_key)"
                            " SELECT workspace_id, key_id, activated_at - interval '100 hours', activated_at - interval '50 hours', kind,"
                            " activated_at - interval '100 hours', partner_key FROM partner_portal.security_key WHERE key_id % 2 = 0")
        self.db.execute("RESET partner_portal.restoring;"
                        "INSERT INTO floor.security_key SELECT * FROM partner_portal.security_key;"
                        "SELECT setval('floor.key_id', max(key_id)) FROM floor.security_key")

    def close_periods(self):
        """Every period that has ended is closed, by the facts as they are."""
        self.db.execute("SET session_replication_role = replica; TRUNCATE partner_portal.usage_period;"
                        "UPDATE partner_portal.billing_period SET closed_at = NULL; RESET session_replication_role")
        self.db.execute('SELECT count(*) FROM partner_portal.close_periods()')
        self.db.execute('SELECT partner_portal.refresh_usage()')

    def settle(self):
        """What a measurement left behind is written and cleaned up before the next."""
        for table in ('floor.security_key', 'partner_portal.security_key', 'partner_portal.key_history', 'partner_portal.workspace_usage',
                      'partner_portal.workspace', 'partner_portal.usage_period', 'partner_portal.billing_period'):
            self.db.execute('VACUUM ANALYZE ' + table)
        self.db.execute('CHECKPOINT')


def cpu(cursor):
    """Microseconds of CPU that a session's server process has used so far."""
    with open('/proc/%d/schedstat' % cursor.connection.get_backend_pid()) as file:
        return int(file.read().split()[0]) / 1000


def cpu_of(cursor, work, times=1):
    """Microseconds of CPU that each of some repetitions took the server."""
    before = cpu(cursor)
    for _ in range(times):
        work()
    return (cpu(cursor) - before) / times


def pairs(times, floor, product):
    """The measurements of both in turn: floor, product, product, floor, ..."""
    result = []
    for i in range(times):
        if i % 2 == 0:
            low = floor()
            result.append((low, product()))
        else:
            high = product()
            result.append((floor(), high))
    return result


def pairs_on_one_core(times, floor, product, *cursors):
    """pairs() of what takes microseconds, after two to warm up, while this process and the server processes of these sessions
    share a core: between two cores such a round trip is mostly their waking up, which takes CPU time too and swings by a factor."""
    before = {process: os.sched_getaffinity(process) for process in [0] + [c.connection.get_backend_pid() for c in cursors]}
    try:
        for process in before:
            os.sched_setaffinity(process, {max(before[0])})
        pairs(2, floor, product)
        return pairs(times, floor, product)
    finally:
        for process, cores in before.items():
            os.sched_setaffinity(process, cores)


def pgbench(script, clients, seconds, database=DATABASE):
    """Transactions in a second of a script by so many clients, prepared."""
    with tempfile.NamedTemporaryFile('w', suffix='.sql') as file:
        file.write(script)
        file.flush()
        output = subprocess.run(['pgbench', '-n', '-M', 'prepared', '-c', str(clients), '-j', str(min(clients, 2)), '-T', str(seconds),
                                 '-f', file.name, database], capture_output=True, text=True, check=False)
    found = re.search(r'^tps = ([0-9.]+)', output.stdout, re.MULTILINE)
    if output.returncode != 0 or not found:
        sys.exit('pgbench failed:\n' + output.stdout + output.stderr)
    return float(found.group(1))


def insert_script(table, low, high, partner_key=False):
    """A pgbench script: one activation, the key being a new one."""
    return ('\\set workspace random(%d, %d)\n\\set serial random(1, 9000000000000000000)\n'
            'INSERT INTO %s (workspace_id, kind, serial%s) VALUES (:workspace, \'smartphone\', :serial::text%s);\n'
            % (low, high, table, ', partner_key' if partner_key else '', ', 0' if partner_key else ''))


def figure(what, floor, measured, goal, high=False, unit='', detail='', invert=False):
    """The figure of some pairs (floor, product): product over floor, or the other way round."""
    ratios = sorted((f / p if invert else p / f) for f, p in measured)
    if not detail and unit:
        detail = '%s against %s %s' % (number(statistics.median(p for f, p in measured)), number(statistics.median(f for f, p in measured)), unit)
    return Figure(what, floor, ratios, goal, high, unit, detail)


def number(value):
    return '%.3g' % value if value < 100 else '{:,.0f}'.format(value)


def machine():
    model = re.search(r'^model name\s*:\s*(.*)$', open('/proc/cpuinfo').read(), re.MULTILINE)
    memory = re.search(r'MemTotal:\s*(\d+)', open('/proc/meminfo').read())
    return '%s, %d cores, %d GB, Linux %s' % (model.group(1) if model else platform.machine(), os.cpu_count(),
                                            round(int(memory.group(1)) / 1048576), platform.release())


def main():
    scale = float(os.environ.get('BENCH_SCALE', '1'))
    rows = sys.argv[1:] or ROWS
    for name in rows:
        if name not in ROWS:
            sys.exit('no such row: %s; there are %s' % (name, ' '.join(ROWS)))
    start = time.time()
    bench = Bench(scale)
    print('-- set up %d workspaces in %.0f s' % (bench.workspaces, time.time() - start), file=sys.stderr, flush=True)
    lines = []
    load = []
    for name in rows:
        began = time.time()
        for f in importlib.import_module(name).run(bench):
            median = statistics.median(f.ratios)
            good = median >= f.goal if f.high else median <= f.goal
            lines.append('| %s | %s | %.2f | %.2f to %.2f | %s %g | %s | %s |' % (
                f.what, f.floor, median, f.ratios[0], f.ratios[-1], '≥' if f.high else '≤', f.goal, 'yes' if good else '**no**', f.detail))
            print(lines[-1], file=sys.stderr, flush=True)
        load.append(os.getloadavg()[0])
        print('-- %s took %.0f s' % (name, time.time() - began), file=sys.stderr, flush=True)
    version = bench.row("SELECT current_setting('server_version')")[0]
    print('PostgreSQL %s; %s; scale %g; load %.1f to %.1f' % (version.split()[0], machine(), scale, min(load), max(load)))
    print()
    print('| what | floor | ratio | spread | goal | met | medians |')
    print('|---|---|---|---|---|---|---|')
    print('\n'.join(lines))
    print('\n-- %.0f s altogether' % (time.time() - start), file=sys.stderr)
    bench.db.connection.close()
    bench.psql.execute('DROP DATABASE ' + DATABASE + ' WITH (FORCE)')


if __name__ == '__main__':
    sys.modules['bench'] = sys.modules['__main__']
    main()
