"""An application's table under isolate(), of 1,000,000 rows: a portal user's list by its attribute, in the order of the key with
a limit, and counted; a row by its key; a member's list. Against an explicit WHERE by who bypasses row level security. In one table
the rows of a tenant are scattered, in the other they are adjacent. CPU time of the server for each execution."""
from bench import cpu_of, figure, pairs_on_one_core

QUERIES = (('list', 1.3, 60, 'SELECT id, amount FROM bench_%s WHERE %s'),
           ('first 50 of it in the order of the key', 1.3, 60, 'SELECT id, amount FROM bench_%s WHERE %s ORDER BY id LIMIT 50'),
           ('count of it', 1.3, 200, 'SELECT count(*) FROM bench_%s WHERE %s'),
           ('one row by its key', 1.3, 600, 'SELECT id, amount FROM bench_%s WHERE %s AND id = KEY'))

# each workspace's own rows and those of the large partner's tenants, who have 1,000 rows each
FILL = """
DROP TABLE IF EXISTS bench_scattered, bench_adjacent;
CREATE TABLE bench_scattered (id bigint PRIMARY KEY, workspace_id bigint NOT NULL, tenant text NOT NULL, amount integer, note text);
INSERT INTO bench_scattered SELECT n, CASE n %% 2 WHEN 0 THEN %(partner)s ELSE %(first)s + (n::bigint * 7919 / 2) %% 1000 END,
    't' || (n::bigint * 104729 / 2) %% greatest(%(rows)s / 2000, 5), n %% 1000, 'note of ' || n FROM generate_series(1, %(rows)s) n;
CREATE TABLE bench_adjacent (LIKE bench_scattered);
INSERT INTO bench_adjacent SELECT row_number() OVER (ORDER BY workspace_id, tenant, id), workspace_id, tenant, amount, note FROM bench_scattered ORDER BY 1;
ALTER TABLE bench_adjacent ADD PRIMARY KEY (id);
CREATE INDEX ON bench_scattered (workspace_id, tenant, id);
CREATE INDEX ON bench_adjacent (workspace_id, tenant, id);
GRANT SELECT ON bench_scattered, bench_adjacent TO bench_app;
SELECT partner_portal.isolate(t, 'workspace_id', '["tenant"]') FROM unnest(ARRAY['bench_scattered', 'bench_adjacent']::regclass[]) AS t;
VACUUM ANALYZE bench_scattered, bench_adjacent;
DELETE FROM partner_portal.portal;
DELETE FROM partner_portal.account WHERE email LIKE '%%@portal.bench.example';
INSERT INTO partner_portal.account (email) VALUES ('user@portal.bench.example');
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at)
SELECT w.workspace_id, a.account_id, w.partner_key, 'member', now() FROM partner_portal.workspace w, partner_portal.account a
WHERE w.workspace_id = %(first)s AND a.email = 'user@portal.bench.example';
SELECT partner_portal.create_portal(%(partner)s, 'Bench', 'bench', '#123456', 'https://bench.example/');
INSERT INTO partner_portal.portal_account (workspace_id, portal_id, account_id, role, attributes)
SELECT p.workspace_id, p.portal_id, a.account_id, 'viewer', '{"tenant": "t3"}' FROM partner_portal.portal p, partner_portal.account a
WHERE a.email = 'user@portal.bench.example'
"""


def run(bench):
    for statement in (FILL % {'partner': bench.large_partner, 'first': bench.first_direct, 'rows': bench.keys}).split(';\n'):
        bench.db.execute(statement)
    portal, user = bench.row('SELECT portal_id, account_id FROM partner_portal.portal_account')
    sorts = (('portal user', "workspace_id = %d AND tenant = ANY ('{t3}')" % bench.large_partner, 'SELECT partner_portal.act_in_portal(%d)' % portal, QUERIES),
             ('member', 'workspace_id = %d' % bench.first_direct, 'SELECT 1', QUERIES[:2]))
    for table in ('scattered', 'adjacent'):
        for sort, condition, choice, queries in sorts:
            key = str(bench.row('SELECT min(id) FROM bench_%s WHERE %s' % (table, condition))[0])
            owner = bench.connect()
            signed_in = bench.connect()
            signed_in.execute('BEGIN; SELECT partner_portal.login_as(%d); SET LOCAL ROLE bench_app; %s' % (user, choice))
            for number, (what, goal, times, query) in enumerate(queries):
                statement = 'EXECUTE q%d' % number
                owner.execute('PREPARE q%d AS %s' % (number, query.replace('KEY', key) % (table, condition)))
                signed_in.execute('PREPARE q%d AS %s' % (number, query.replace('KEY', key) % (table, 'true')))
                owner.execute(statement)
                signed_in.execute(statement)
                assert sorted(owner.fetchall()) == sorted(signed_in.fetchall()), (table, sort, what)

                def floor():
                    return cpu_of(owner, lambda: owner.execute(statement), times)

                def product():
                    return cpu_of(signed_in, lambda: signed_in.execute(statement), times)

                yield figure('%s, %s, isolated table' % (sort, what) + (', scattered' if table == 'scattered' else ', adjacent'),
                             'explicit WHERE', pairs_on_one_core(bench.times(9), floor, product, owner, signed_in), goal, unit='µs CPU')
            owner.connection.close()
            signed_in.connection.close()
