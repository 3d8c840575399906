#!/usr/bin/env python3
"""usage_model.py: usage() and the billing periods against a naive model, over random histories.

The model knows stretches of time alone: it counts what the specification defines, instant by instant where that is
needed, with Python's own time zones. It shares no code with src/usage.c and src/billing_period.c. One difference fails
the test and prints the seed and the case.

    PP_SEEDS=1,2,3   seeds (default: those kept below)
    PP_CASES=60      workspaces per seed
"""
import os
import random
import sys
from calendar import monthrange
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo


from lib import harness

SEEDS = [int(s) for s in os.environ.get('PP_SEEDS', '1,20260228,745').split(',')]
CASES = int(os.environ.get('PP_CASES', '60'))
DATABASE = 'pp_usage_model'
UTC = timezone.utc
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
ZONES = ['UTC', 'Europe/Zurich', 'America/Sao_Paulo', 'Pacific/Apia', 'America/New_York', 'Asia/Kolkata', 'Asia/Kathmandu',
         'Australia/Lord_Howe', 'America/Havana', 'America/Asuncion', 'Africa/Casablanca', 'Pacific/Kiritimati',
         'America/St_Johns', 'Asia/Tehran', 'Asia/Beirut', 'Antarctica/Troll']
STEPS = {'month': 1, 'quarter': 3, 'half_year': 6, 'year': 12}
FOREVER = datetime(9999, 1, 1, tzinfo=UTC)


def boundary(anchor, months, zone):
    """Local midnight of the anchor, so many months on; a missing one after the gap, of two the second."""
    month = anchor.year * 12 + anchor.month - 1 + months
    year, month = divmod(month, 12)
    day = min(anchor.day, monthrange(year, month + 1)[1])
    early = datetime(year, month + 1, day, tzinfo=zone, fold=0)
    late = datetime(year, month + 1, day, tzinfo=zone, fold=1)
    return (late if early.utcoffset() > late.utcoffset() else early).astimezone(UTC)


def formula(anchor, step, zone, at):
    """The period of an instant, found by walking."""
    n = 0
    while boundary(anchor, n * step, zone) > at:
        n -= 1
    while boundary(anchor, (n + 1) * step, zone) <= at:
        n += 1
    return boundary(anchor, n * step, zone), boundary(anchor, (n + 1) * step, zone)


def dates(start, end, zone):
    """Local dates touched: a look at the calendar every few hours and just before the end."""
    touched = set()
    at = start
    while at < end:
        touched.add(at.astimezone(zone).date())
        at += timedelta(hours=5)
    touched.add((end - MICROSECOND).astimezone(zone).date())
    return touched


def measure(stretches, start, end, zone, known_at, whole):
    """Every measure, from stretches (key, kind, holder, from, until, recorded)."""
    cut = []
    for key, kind, holder, begin, until, recorded in stretches:
        if known_at is not None:
            if recorded > known_at:
                continue
            if until > known_at:
                until = FOREVER
        begin, until = max(begin, start), min(until, end)
        if begin < until:
            cut.append((key, holder, begin, until))
    keys = {c[0] for c in cut}
    peak, peak_at = 0, None
    for at in sorted({c[2] for c in cut}):
        running = sum(1 for c in cut if c[2] <= at < c[3])
        if running > peak:
            peak, peak_at = running, at
    touched = 0
    for key in keys:
        touched += len(set().union(*(dates(c[2], c[3], zone) for c in cut if c[0] == key)))
    return {
        'distinct_keys': len(keys), 'peak_keys': peak, 'peak_at': peak_at,
        'end_keys': sum(1 for c in cut if c[2] <= end - MICROSECOND < c[3]),
        'start_keys': sum(1 for c in cut if c[2] <= start < c[3]),
        'key_days': Fraction(touched, whole),
        'key_seconds': sum(((c[3] - c[2]) // MICROSECOND for c in cut), 0),
        'users': len({c[1] for c in cut if c[1] is not None}),
    }


def equal(expected, got):
    for name, value in expected.items():
        other = got[name]
        if name == 'key_days':
            if abs(Fraction(other) - value) > Fraction(1, 10 ** 15):
                return False
        elif name == 'key_seconds':
            if Decimal(other) * 1000000 != value:
                return False
        elif other != value:
            return False
    return True


def random_history(rnd, created, bounds):
    """Stretches of a few keys that never overlap within a key; some run on, some were imported late."""
    stretches, live = [], {}
    now = datetime.now(UTC)
    for key in range(rnd.randint(0, 8)):
        kind = rnd.choice(['smartphone', 'contactless_card'])
        at = created + timedelta(microseconds=rnd.randrange(0, 60 * 86400 * 10 ** 6))
        if rnd.random() < .3:
            at = rnd.choice(bounds)
        for _ in range(rnd.randint(1, 6)):
            holder = rnd.choice([None, 1, 2, 3])
            if rnd.random() < .2:
                until = min((b for b in bounds if b > at), default=at + timedelta(days=1))
            else:
                until = at + rnd.choice([MICROSECOND, timedelta(seconds=rnd.randint(1, 86400)),
                                         timedelta(microseconds=rnd.randrange(1, 45 * 86400 * 10 ** 6))])
            if until >= now:
                break
            recorded = at if rnd.random() < .8 else until + timedelta(days=rnd.randint(0, 40))
            stretches.append((key, kind, holder, at, until, recorded))
            at = until + rnd.choice([timedelta(0), MICROSECOND, timedelta(hours=rnd.randint(1, 40)), timedelta(days=rnd.randint(1, 20))])
        else:
            if at < now and rnd.random() < .4:
                live[key] = (kind, None, at)
                stretches.append((key, kind, None, at, FOREVER, at))
    return stretches, live


def one_case(db, rnd, workspace, problems):
    zone_name = rnd.choice(ZONES)
    zone = ZoneInfo(zone_name)
    step_name = rnd.choice(list(STEPS))
    step = STEPS[step_name]
    created = datetime(2012, 3, 1, tzinfo=UTC) + timedelta(microseconds=rnd.randrange(0, 14 * 365 * 86400 * 10 ** 6))
    if zone_name == 'Pacific/Apia' and rnd.random() < .7:
        created = datetime(2011, 12, 20, tzinfo=UTC) + timedelta(hours=rnd.randrange(0, 300))
    anchor = (created.astimezone(zone).date() + timedelta(days=rnd.randint(-400, 400)))
    db.execute('INSERT INTO partner_portal.workspace (company_name, slug, time_zone, anchor_date, billing_step, created_at) '
               'VALUES (%s, %s, %s, %s, %s, %s) RETURNING workspace_id',
               ('W', 'w%d' % workspace, zone_name, anchor, step_name, created))
    workspace_id = db.fetchone()[0]
    periods = [formula(anchor, step, zone, created)]
    for _ in range(3):
        periods.append(formula(anchor, step, zone, periods[-1][1]))
    stretches, live = random_history(rnd, created, [b for p in periods for b in p])
    db.execute('SET partner_portal.restoring = on')
    for key, kind, holder, begin, until, recorded in stretches:
        if until != FOREVER:
            db.execute('INSERT INTO partner_portal.key_history (workspace_id, key_id, kind, account_id, active_from, active_until, recorded_at, partner_key) '
                       'VALUES (%s, %s, %s, %s, %s, %s, %s, 0)', (workspace_id, workspace * 100 + key, kind, holder, begin, until, recorded))
    for key, (kind, holder, begin) in live.items():
        db.execute('INSERT INTO partner_portal.security_key (workspace_id, key_id, kind, serial, account_id, activated_at) OVERRIDING SYSTEM VALUE '
                   'VALUES (%s, %s, %s, %s, %s, %s)', (workspace_id, workspace * 100 + key, kind, 'S%d' % key, holder, begin))
    db.execute('RESET partner_portal.restoring')

    # periods: stored and by formula, at random instants and at the boundaries themselves
    for at in [created, periods[1][0], periods[1][0] - MICROSECOND, created + timedelta(days=rnd.randint(-3000, 3000))]:
        db.execute('SELECT lower(p), upper(p) FROM partner_portal.billing_period_at(%s, %s) p', (workspace_id, at))
        got = db.fetchone()
        expected = formula(anchor, step, zone, at)
        if (got[0].astimezone(UTC), got[1].astimezone(UTC)) != expected:
            problems.append(f'period of {at} in {zone_name}, {anchor}, {step_name}: {got}, expected {expected}')

    asked = list(periods)
    for _ in range(2):
        begin = created + timedelta(microseconds=rnd.randrange(0, 80 * 86400 * 10 ** 6))
        asked.append((begin, begin + timedelta(microseconds=rnd.randrange(1, 60 * 86400 * 10 ** 6))))
    # closed, a period answers from what was stored
    if rnd.random() < .5:
        db.execute('SELECT count(*) FROM partner_portal.close_periods(%s)', (periods[2][1],))
    for start, end in asked:
        whole = len(dates(start, end, zone))
        for known_at in (None, start + (end - start) * rnd.random() * 2):
            if known_at is not None and rnd.random() < .5:
                continue
            db.execute('SELECT kind, distinct_keys, peak_keys, peak_at, end_keys, start_keys, key_days, key_seconds, users '
                       'FROM partner_portal.usage(%s, tstzrange(%s, %s), %s)', (workspace_id, start, end, known_at))
            names = [c.name for c in db.description]
            rows = [dict(zip(names, row)) for row in db.fetchall()]
            if [r['kind'] for r in rows] != ['contactless_card', 'smartphone', None]:
                problems.append(f'rows of usage: {rows}')
            for row in rows:
                expected = measure([s for s in stretches if row['kind'] in (None, s[1])], start, end, zone, known_at, whole)
                if not equal(expected, row):
                    problems.append(f'workspace {workspace} ({zone_name}) [{start}, {end}) known {known_at} {row["kind"]}:\n'
                                    f'  got      {row}\n  expected {expected}\n  of       {stretches}')


def main():
    problems = []
    connection = harness.make_database(DATABASE)
    try:
        db = connection.cursor()
        db.execute("SET timezone = 'UTC'")
        workspace = 0
        for seed in SEEDS:
            rnd = random.Random(seed)
            before = len(problems)
            for _ in range(CASES):
                workspace += 1
                one_case(db, rnd, workspace, problems)
            harness.verdict(len(problems) == before, f'seed {seed}: {CASES} histories', problems[before:])
    finally:
        connection.close()
        harness.drop_database(DATABASE)
    return harness.finish()


if __name__ == '__main__':
    sys.exit(main())
