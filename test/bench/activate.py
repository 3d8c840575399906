"""Single activations by 8 clients: spread over the direct workspaces, and in one limited workspace.

An activation owes a line of the activity log. So what is spread is measured once more against clients without triggers
that write a row of the same width to such a table themselves, with no chain and no digest.
"""
from bench import figure, insert_script, pairs, pgbench

LOG_TOO = ('WITH added AS (%s RETURNING workspace_id, key_id)\n'
           'INSERT INTO floor.activity (workspace_id, activity_id, at, database_role, source, action, description, details, partner_key,'
           ' text_salt, prev_hash, hash)\n'
           "SELECT workspace_id, nextval('floor.activity_id'), clock_timestamp(), current_user, 'database', 'activate_key',"
           " 'Activated a key', jsonb_build_object('key_ids', jsonb_build_array(key_id), 'smartphone', 1), 0,"
           " '\\x00112233445566778899aabbccddeeff', repeat('0123', 8)::bytea, repeat('0123', 8)::bytea FROM added;\n")


def logged_script(low, high):
    """A pgbench script: the activation of insert_script() in the floor, and a row in its log."""
    *variables, insert = insert_script('floor.security_key', low, high, True).splitlines()
    return '\n'.join(variables) + '\n' + LOG_TOO % insert.rstrip(';')


def run(bench):
    if bench.row('SELECT NOT EXISTS (SELECT FROM floor.security_key)')[0]:
        bench.fill_keys()
    spread = (bench.first_direct, bench.last)
    hot = (bench.hot, bench.hot)
    for what, without, script, where, goal in (
            ('single activation, 8 clients, spread', 'no triggers', insert_script('floor.security_key', *spread, True), spread, 0.85),
            ('the same', 'no triggers, and a row in a log', logged_script(*spread), spread, 0.85),
            ('single activation, 8 clients, one limited workspace', 'no triggers', insert_script('floor.security_key', *hot, True), hot, 0.6)):
        bench.settle()

        def floor():
            return pgbench(script, 8, bench.seconds(3))

        def product():
            return pgbench(insert_script('partner_portal.security_key', *where), 8, bench.seconds(3))

        floor()
        product()
        yield figure(what, without, pairs(bench.times(7), floor, product), goal, high=True, unit='tps')
