"""usage() of a closed and of the running period of a workspace of 20,000 keys, and all workspaces at once, against SQL over
the facts that has every measure too (usage.sql); the results are compared first. Half of the keys have been active twice."""
import os

from bench import HERE, cpu_of, figure, pairs


def run(bench):
    big_keys = int(20000 * bench.scale)
    bench.fill_keys(facts=big_keys)
    bench.close_periods()
    bench.settle()
    with open(os.path.join(HERE, 'usage.sql')) as file:
        by_hand = file.read()
    closed = bench.row('SELECT period_start, period_end FROM partner_portal.billing_period WHERE workspace_id = %s AND closed_at IS NOT NULL'
                       ' ORDER BY period_start DESC LIMIT 1', (bench.big,))
    running = bench.row('SELECT period_start, period_end FROM partner_portal.billing_period WHERE workspace_id = %s AND closed_at IS NULL'
                        ' ORDER BY period_start LIMIT 1', (bench.big,))
    signed_in = bench.connect()
    signed_in.execute('BEGIN; SELECT partner_portal.login_as(3); SELECT partner_portal.act_in(%s); SET LOCAL ROLE bench_app', (bench.big,))

    def hand(period, workspaces):
        bench.db.execute(by_hand, {'workspaces': workspaces, 'start': period[0], 'end': period[1]})

    def usage(period):
        signed_in.execute('SELECT * FROM partner_portal.usage(%s, tstzrange(%s, %s))', (bench.big,) + period)

    def all_at_once(period, workspaces):
        n = len(workspaces)
        bench.db.execute('SELECT * FROM partner_portal.measure_usage(%s, %s, %s, %s, NULL)',
                         (workspaces, [period[0]] * n, [period[1]] * n, ['UTC'] * n))

    for what, period, goal, invert in (('closed', closed, 100, True), ('running', running, 1.2, False)):
        hand(period, [bench.big])
        expected = [(r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9]) for r in bench.db.fetchall()]
        usage(period)
        assert signed_in.fetchall() == expected, what
        times = 200 if invert else 3
        measured = pairs(bench.times(5), lambda: cpu_of(bench.db, lambda: hand(period, [bench.big]), 2) / 1000,
                         lambda: cpu_of(signed_in, lambda: usage(period), times) / 1000)
        if invert:
            yield figure('usage() of a closed period, {:,} keys: times faster'.format(big_keys), 'hand-written SQL', measured, goal, True, 'ms CPU', invert=True)
        else:
            yield figure('usage() of the running period, {:,} keys'.format(big_keys), 'hand-written SQL', measured, goal, unit='ms CPU')
    signed_in.connection.close()

    everybody = [w for w, in bench.db.execute("SELECT workspace_id FROM partner_portal.workspace WHERE kind = 'business' ORDER BY 1") or bench.db.fetchall()]
    yield figure('usage of the running period, all {:,} workspaces at once'.format(len(everybody)), 'hand-written SQL',
                 pairs(bench.times(3), lambda: cpu_of(bench.db, lambda: hand(running, everybody)) / 1e6,
                       lambda: cpu_of(bench.db, lambda: all_at_once(running, everybody)) / 1e6), 1.2, unit='s CPU')
