"""Single activations in one limited workspace while a snapshot is held open, against none."""
from bench import figure, insert_script, pairs, pgbench


def run(bench):
    script = insert_script('partner_portal.security_key', bench.hot, bench.hot)
    spread = insert_script('partner_portal.security_key', bench.first_direct, bench.last)

    def free(script):
        bench.db.execute('VACUUM partner_portal.workspace_usage')
        return pgbench(script, 8, bench.seconds(10))

    def held(script):
        bench.db.execute('VACUUM partner_portal.workspace_usage')
        holder = bench.connect()
        holder.execute('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1')
        try:
            return pgbench(script, 8, bench.seconds(10))
        finally:
            holder.connection.close()

    bench.settle()
    yield figure('the same with a snapshot held open %d s' % bench.seconds(10), 'without it',
                 pairs(bench.times(3), lambda: free(script), lambda: held(script)), 0.5, high=True, unit='tps')
    yield figure('spread, with a snapshot held open %d s' % bench.seconds(10), 'without it',
                 pairs(2, lambda: free(spread), lambda: held(spread)), 0.5, high=True, unit='tps')
