"""UPDATE that disables a tenth of the keys: every tenth of every workspace, the rows of a page being of many workspaces; and
all of a tenth of the workspaces, whose rows lie together. CPU time of the server, and elapsed time of the same statements."""
import time

from bench import cpu, figure, pairs

CASES = (('every tenth', 'n', 'key_id %% 10 = %s'),
         ('whole workspaces', 'w.workspace_id', 'workspace_id BETWEEN %s * {0} / 10 AND (%s + 1) * {0} / 10 - 1'))


def run(bench):
    for what, order, which in CASES:
        bench.fill_keys(order=order)
        bench.settle()
        turns = {'floor': iter(range(10)), 'product': iter(range(10))}

        def disable(world, statement):
            turn = next(turns[world])
            statement += " WHERE status = 'active' AND " + which.format(bench.last)
            bench.db.execute('CHECKPOINT')
            start = time.perf_counter(), cpu(bench.db)
            bench.db.execute(statement, (turn,) * which.count('%s'))
            assert bench.db.rowcount > bench.keys // 11, bench.db.rowcount
            return time.perf_counter() - start[0], (cpu(bench.db) - start[1]) / 1e6

        def floor():
            return disable('floor', "UPDATE floor.security_key SET status = 'disabled', disabled_reason = 'partner', disabled_at = clock_timestamp()")

        def product():
            return disable('product', "UPDATE partner_portal.security_key SET status = 'disabled'")

        measured = pairs(bench.times(5), floor, product)
        name = 'mass disable of {:,} keys, {}'.format(bench.keys // 10, what)
        yield figure(name, 'no triggers', [(f[1], p[1]) for f, p in measured], 1.3, unit='s CPU')
        yield figure(name, 'no triggers', [(f[0], p[0]) for f, p in measured], 1.3, unit='s elapsed')
