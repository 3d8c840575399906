"""COPY of keys into all workspaces in turn, into the empty table."""
import io

from bench import cpu_of, figure, pairs


def run(bench):
    partner_keys = dict(bench.db.execute('SELECT workspace_id, partner_key FROM partner_portal.workspace') or bench.db.fetchall())
    targets = [w for w in sorted(partner_keys) if w not in (bench.large_partner, bench.small_partner)]
    floor_rows = io.StringIO()
    product_rows = io.StringIO()
    for i in range(bench.keys):
        workspace = targets[i % len(targets)]
        kind = 'smartphone' if i % 3 else 'contactless_card'
        floor_rows.write('%d\t%d\t%s\tS-%d\n' % (workspace, partner_keys[workspace], kind, i))
        product_rows.write('%d\t%s\tS-%d\n' % (workspace, kind, i))

    def load(table, columns, rows):
        bench.db.execute('CHECKPOINT')
        rows.seek(0)
        return cpu_of(bench.db, lambda: bench.db.copy_expert('COPY %s (%s) FROM STDIN' % (table, columns), rows)) / 1e6

    def floor():
        bench.db.execute('TRUNCATE floor.security_key')
        return load('floor.security_key', 'workspace_id, partner_key, kind, serial', floor_rows)

    def product():
        bench.db.execute('SET session_replication_role = replica; TRUNCATE partner_portal.security_key, partner_portal.key_history; RESET session_replication_role')
        bench.db.execute('UPDATE partner_portal.workspace_usage SET total_keys = 0, active_keys = 0, total_smartphones = 0, active_smartphones = 0,'
                         ' total_contactless_cards = 0, active_contactless_cards = 0')
        bench.db.execute('VACUUM (FULL, ANALYZE) partner_portal.workspace_usage')
        return load('partner_portal.security_key', 'workspace_id, kind, serial', product_rows)

    yield figure('COPY of {:,} keys, limit and meter'.format(bench.keys), 'no triggers', pairs(bench.times(3), floor, product), 1.25, unit='s CPU')
