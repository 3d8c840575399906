"""partner_panel: against its own query with constants in the place of who is asking, and with ten times the keys."""
import re
import statistics

from bench import cpu_of, figure, pairs


def run(bench):
    def panel_of(account):
        cursor = bench.connect()
        cursor.execute('BEGIN; SELECT partner_portal.login_as(%d); SET LOCAL ROLE bench_app' % account)
        cursor.execute('PREPARE panel AS SELECT * FROM partner_portal.partner_panel')
        return cursor

    def spent(cursor, times):
        return cpu_of(cursor, lambda: cursor.execute('EXECUTE panel'), times) / 1000

    bench.fill_keys()
    bench.close_periods()
    bench.settle()
    large = panel_of(1)
    large.execute('EXECUTE panel')
    assert large.rowcount == bench.customers
    spent(large, 3)
    many = [spent(large, 3) for _ in range(bench.times(9))]
    large.connection.close()

    small = panel_of(2)
    explicit = bench.connect()
    explicit.execute("SELECT pg_get_viewdef('partner_portal.partner_panel')")
    query = explicit.fetchone()[0]
    query = re.sub(r'\( ?SELECT partner_portal\.(lowest|highest)_partner_key\(\)[^()]*\)', '%d::bigint' % bench.small_partner, query)
    query = re.sub(r'\( ?SELECT partner_portal\.current_partner_id\(\)[^()]*\)', '%d::bigint' % bench.small_partner, query)
    query = re.sub(r'\( ?SELECT partner_portal\.granted_workspaces\([^()]*\)[^()]*\)', 'NULL', query)
    assert not re.search('_partner_key\\(|current_partner|granted_workspaces', query), query
    explicit.execute('PREPARE panel AS ' + query)
    for cursor in (small, explicit):
        cursor.execute('EXECUTE panel')
        assert cursor.rowcount == 45
        spent(cursor, 5)
    yield figure('partner_panel of 45 customers, signed in', 'its query with constants',
                 pairs(bench.times(9), lambda: spent(explicit, 20), lambda: spent(small, 20)), 1.5, unit='ms CPU')
    small.connection.close()
    explicit.connection.close()

    bench.fill_keys(0.1)
    bench.close_periods()
    bench.settle()
    large = panel_of(1)
    spent(large, 3)
    few = [spent(large, 3) for _ in range(bench.times(9))]
    large.connection.close()
    yield figure('partner_panel of {:,} customers, {:,} keys'.format(bench.customers, bench.keys), 'with {:,}'.format(bench.keys // 10),
                 list(zip(sorted(few), sorted(many))), 1.3, unit='ms CPU')
