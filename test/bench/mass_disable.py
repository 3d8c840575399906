"""UPDATE that disables a tenth of the keys, of every workspace, each time another tenth."""
from bench import cpu_of, figure, pairs


def run(bench):
    if bench.row('SELECT NOT EXISTS (SELECT FROM floor.security_key)')[0]:
        bench.fill_keys()
    bench.settle()
    turns = {'floor': iter(range(10)), 'product': iter(range(10))}

    def disable(world, statement):
        bench.db.execute('CHECKPOINT')
        return cpu_of(bench.db, lambda: bench.db.execute(statement, (next(turns[world]),))) / 1e6

    def floor():
        return disable('floor', "UPDATE floor.security_key SET status = 'disabled', disabled_reason = 'partner', disabled_at = clock_timestamp()"
                       " WHERE key_id %% 10 = %s AND status = 'active'")

    def product():
        return disable('product', "UPDATE partner_portal.security_key SET status = 'disabled' WHERE key_id %% 10 = %s AND status = 'active'")

    yield figure('mass disable of {:,} keys'.format(bench.keys // 10), 'no triggers', pairs(bench.times(5), floor, product), 1.3, unit='s CPU')
