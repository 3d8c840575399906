"""Single activations by 8 clients: spread over the direct workspaces, and in one limited workspace."""
from bench import figure, insert_script, pairs, pgbench


def run(bench):
    if bench.row('SELECT NOT EXISTS (SELECT FROM floor.security_key)')[0]:
        bench.fill_keys()
    for what, low, high, goal in (('single activation, 8 clients, spread', bench.first_direct, bench.last, 0.85),
                                  ('single activation, 8 clients, one limited workspace', bench.hot, bench.hot, 0.6)):
        bench.settle()

        def floor():
            return pgbench(insert_script('floor.security_key', low, high, True), 8, bench.seconds(3))

        def product():
            return pgbench(insert_script('partner_portal.security_key', low, high), 8, bench.seconds(3))

        floor()
        product()
        yield figure(what, 'no triggers', pairs(bench.times(7), floor, product), goal, high=True, unit='tps')
