"""A key by its id, the keys of a workspace and the keys of a partner's customers: under row level security, signed in as the
partner's owner, against an explicit WHERE by who bypasses it, which names the workspace, or the partner where the query names
no workspace. CPU time of the server for each execution."""
from bench import cpu_of, figure, pairs_on_one_core

QUERIES = (
    ('point look-up under RLS', 1.15, 1500,
     'SELECT serial, status FROM partner_portal.security_key WHERE workspace_id = %d AND key_id = %d'),
    ('list of a workspace under RLS', 1.25, 1000,
     'SELECT key_id, serial, status FROM partner_portal.security_key WHERE workspace_id = %d'),
    ('keys per customer of a partner under RLS', 1.5, 100,
     'SELECT workspace_id, count(*), count(*) FILTER (WHERE status = \'active\') FROM partner_portal.security_key WHERE true'))


def run(bench):
    if bench.row('SELECT NOT EXISTS (SELECT FROM partner_portal.security_key)')[0]:
        bench.fill_keys()
    bench.settle()
    workspace, key = bench.row('SELECT workspace_id, min(key_id) FROM partner_portal.security_key WHERE partner_key = %s GROUP BY 1 ORDER BY 1 LIMIT 1',
                               (bench.small_partner,))
    owner = bench.connect()
    signed_in = bench.connect()
    signed_in.execute('BEGIN; SELECT partner_portal.login_as(2); SET LOCAL ROLE bench_app')
    for number, (what, goal, times, query) in enumerate(QUERIES):
        query = query % (workspace, key)[:query.count('%d')]
        tail = ' GROUP BY workspace_id' if 'count' in query else ''
        statement = 'EXECUTE q%d' % number
        tenant = '' if 'workspace_id =' in query else ' AND partner_key = %d' % bench.small_partner
        owner.execute('PREPARE q%d AS %s%s%s' % (number, query, tenant, tail))
        signed_in.execute('PREPARE q%d AS %s%s' % (number, query, tail))
        owner.execute(statement)
        signed_in.execute(statement)
        assert sorted(owner.fetchall()) == sorted(signed_in.fetchall()), what
        times = max(50, int(times * bench.scale))

        def floor():
            return cpu_of(owner, lambda: owner.execute(statement), times)

        def product():
            return cpu_of(signed_in, lambda: signed_in.execute(statement), times)

        yield figure(what, 'explicit WHERE', pairs_on_one_core(bench.times(9), floor, product, owner, signed_in), goal, unit='µs CPU')
    owner.connection.close()
    signed_in.connection.close()
