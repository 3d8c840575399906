#!/usr/bin/python3
# packages: python3-psycopg2
"""billing_model.py: billing against a naive model, over random histories.

A story has a few workspaces with random zones, anchors, steps, plans, versions,
facts, late facts, moves between partners, void and reissued invoices, tax,
payments, credit notes and auto_finalize; it is billed in random steps.  After every step the periods, the
invoices and each of their lines are compared with what the model says, and
before every step the preview of the next invoice with the invoice it becomes.
The model counts with fractions, from the specification alone: it knows nothing
of how the extension stores or batches anything, and rounds by itself (src/rate.c).

  billing_model.py [--seconds N] [--seed N] [--stories N]

A story is known by its seed, which is printed when it differs; the seeds in
KEPT are told first, those of PLAIN without tax, payments and credit notes.  Each story is one transaction, rolled back at the end.
"""
import argparse
import calendar
import random
import sys
import time
from collections import defaultdict
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from zoneinfo import ZoneInfo

import psycopg2

from lib import harness

PLAIN = (1, 2, 3, 4, 5, 17, 42, 158, 190, 205, 1001, 2026, 1795367507)
KEPT = (1, 2, 3)
DATABASE = "pp_billing_model"
UTC = timezone.utc
ZONES = ("UTC", "Europe/Zurich", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Santiago", "Pacific/Apia", "Africa/Cairo")
MEASURES = ("distinct_keys", "distinct_keys", "peak_keys", "end_keys", "start_keys", "key_days", "key_seconds")
STEPS = {"month": 1, "quarter": 3, "half_year": 6}
DIGITS = {"CHF": 2, "JPY": 0, "BHD": 3}
GRACE = timedelta(hours=1)

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=30)
parser.add_argument("--seed", type=int, default=int(time.time()))
parser.add_argument("--stories", type=int, default=0)
options = parser.parse_args()


class Different(Exception):
    pass


def same(what, got, expected):
    if got != expected:
        raise Different("%s:\n  got      %r\n  expected %r" % (what, got, expected))


def to_utc(local, zone):
    """Local time to UTC as the specification says: what is missing is the instant after the gap, what is ambiguous the second."""
    first, second = (local.replace(tzinfo=zone, fold=f) for f in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return first.astimezone(UTC)
    gap = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local
    return (first if gap else second).astimezone(UTC)


def boundary(workspace, n):
    months = workspace.anchor.year * 12 + workspace.anchor.month - 1 + n * STEPS[workspace.step]
    year, month = divmod(months, 12)
    day = min(workspace.anchor.day, calendar.monthrange(year, month + 1)[1])
    return to_utc(datetime(year, month + 1, day), workspace.zone)


def half_away(fraction):
    sign = -1 if fraction < 0 else 1
    return sign * ((abs(fraction) * 2 + 1) // 2)


def shown(dates, whole):
    """dates / whole as numeric divides: the quantity that the line shows, from which anybody can work out its amount."""
    scale = 10 ** (20 if dates <= whole else 16)
    return Fraction(half_away(Fraction(dates, whole) * scale), scale)


class Period:
    def __init__(self, start, end, partner, whole=None):
        self.start, self.end, self.partner, self.whole = start, end, partner, whole or (start, end)
        self.billed = False


class Invoice:
    def __init__(self, period):
        self.period, self.status, self.lines = period, "draft", []
        self.tax, self.taxed, self.credits = 0, None, []

    def subtotal(self):
        return sum(l[4] for l in self.lines)

    def tax_fits(self):
        return self.taxed is None or self.taxed == self.subtotal()

    def left(self):
        """What of each line can be credited, by its number, of all of them, and of the tax."""
        lines = {n: l[4] - sum(a for _, of in self.credits for m, a in of if m == n) for n, l in enumerate(self.lines, 1) if l[4] > 0}
        return lines, self.subtotal() - sum(a for _, of in self.credits for _, a in of), self.tax - sum(tax for tax, _ in self.credits)


class Workspace:
    def __init__(self, number):
        self.number = number
        self.keys = {}
        self.periods = []
        self.invoices = []
        self.assigned = []

    def local(self, instant):
        return instant.astimezone(self.zone).date()

    def plan_at(self, period):
        before = [a for a in self.assigned if a[0] <= period.start]
        family = max(before)[1] if before else None
        if family is None or family.partner not in (0, period.partner):
            return None
        return max((v for v in family.versions if v.since <= period.start), key=lambda v: v.since)

    def measure(self, name, kind, period):
        stretches = defaultdict(list)
        for key, (key_kind, facts) in self.keys.items():
            for since, until in facts:
                since, until = max(since, period.start), min(until, period.end)
                if since < until and kind in (None, key_kind):
                    stretches[key].append((since, until))
        every = [s for of_key in stretches.values() for s in of_key]
        if name == "distinct_keys":
            return Fraction(len(stretches))
        if name == "peak_keys":
            return Fraction(max((sum(1 for a, b in every if a <= since < b) for since, _ in every), default=0))
        if name == "start_keys":
            return Fraction(sum(1 for a, _ in every if a == period.start))
        if name == "end_keys":
            return Fraction(sum(1 for _, b in every if b == period.end))
        if name == "key_seconds":
            return sum((Fraction((b - a) // timedelta(microseconds=1), 10**6) for a, b in every), Fraction(0))
        tick = timedelta(microseconds=1)
        touched = sum(len(self.dates(of_key, tick)) for of_key in stretches.values())
        return shown(touched, len(self.dates([(period.start, period.end)], tick)))

    def dates(self, stretches, tick):
        """The local dates that stretches touch; what a zone skipped is none: every hour is looked at."""
        found = set()
        for since, until in stretches:
            at = since
            while at < until:
                found.add(self.local(at))
                at += timedelta(hours=1)
            found.add(self.local(until - tick))
        return found

    def share(self, period):
        whole = max(1, (self.local(period.whole[1]) - self.local(period.whole[0])).days)
        return min((self.local(period.end) - self.local(period.start)).days, whole), whole


class Component:
    def __init__(self, rng, kind, digits):
        self.kind, self.measure = kind, rng.choice(MEASURES)
        self.model = rng.choice(("flat", "per_unit", "graduated", "volume", "package"))
        money = lambda: Fraction(rng.choice((0, 1, 5, 125, 333, 1005)), rng.choice((1, 8, 100, 1000, 10**9)))
        self.free = rng.choice((0, 0, 1, 3))
        self.minimum = rng.choice((0, 0, 1, 777))
        self.price, self.size, self.tiers = None, None, None
        if self.model in ("graduated", "volume"):
            ends = sorted(rng.sample(range(1, 12), rng.randint(0, 3))) + [None]
            if self.measure == "key_seconds":
                ends = [e and e * 86400 for e in ends]
            self.tiers = [(e, money(), rng.choice((Fraction(0), money()))) for e in ends]
        else:
            self.price = money()
            if self.model == "package":
                self.size = rng.randint(1, 4)

    def arguments(self):
        text = lambda f: None if f is None else "%.12f" % f
        tiers = self.tiers and "[" + ",".join('{"up_to":%s,"unit_price":%.12f,"flat":%.12f}' % ("null" if e is None else e, p, f) for e, p, f in self.tiers) + "]"
        return dict(kind=self.kind, model=self.model, measure=self.measure, tiers=tiers, unit_price=text(self.price), package_size=self.size,
                    minimum_minor=self.minimum, free_units=self.free)

    def amount(self, quantity, share, digits):
        """In minor units, rounded once."""
        units = max(quantity - self.free, Fraction(0))
        part = Fraction(*share)
        if self.model == "flat":
            total = self.price * part
        elif self.model == "per_unit":
            total = units * self.price
        elif self.model == "package":
            total = -(-units // self.size) * self.price
        else:
            total, below = Fraction(0), Fraction(0)
            for end, price, flat in self.tiers:
                reached = units > below and (end is None or units <= end) if self.model == "volume" else units > below
                if reached:
                    inside = units if self.model == "volume" else (units if end is None else min(units, Fraction(end))) - below
                    total += inside * price + flat * part
                below = end
                if end is None:
                    break
        return half_away(max(total * 10**digits, self.minimum * part))


class Version:
    pass


class Plan:
    def __init__(self, partner, currency):
        self.partner, self.currency, self.versions = partner, currency, []


class Story:
    def __init__(self, seed, cursor, papers):
        self.rng, self.cursor, self.workspaces, self.papers = random.Random(seed), cursor, [], papers

    def ask(self, query, *values):
        self.cursor.execute(query, values)
        return self.cursor.fetchall() if self.cursor.description else None

    def refused(self, code, query, *values):
        """A statement that must fail, and leaves nothing behind."""
        self.ask("SAVEPOINT refused")
        try:
            self.ask(query, *values)
        except psycopg2.Error as fault:
            same("error of " + query, fault.pgcode, code)
            self.ask("ROLLBACK TO refused")
        else:
            raise Different("%s %r was not refused" % (query, values))

    def instant(self, since, until):
        choice = self.rng.random()
        seconds = int((until - since).total_seconds())
        at = since + timedelta(seconds=self.rng.randint(0, max(seconds, 1)))
        if choice < 0.5:
            at = at.replace(minute=0, second=0, hour=self.rng.choice((0, 5, 12, 22, 23)))
        return max(at, since)

    def begin(self):
        rng = self.rng
        for partner in (1, 2):
            self.ask("INSERT INTO workspace (kind, company_name, slug, created_at, anchor_date, billing_from) VALUES ('partner', %s, %s, '2027-01-01', '2027-01-01', '2027-01-01')",
                     "Partner %d" % partner, "partner-%d" % partner)
        self.partners = [r[0] for r in self.ask("SELECT workspace_id FROM workspace ORDER BY 1")]
        self.ask("INSERT INTO partner (partner_id, registration_code) SELECT p, 'code-' || p FROM unnest(%s) p", self.partners)
        self.plans = []
        for partner in [0] + self.partners + self.partners:
            plan = Plan(partner, rng.choice(list(DIGITS)))
            kinds = rng.choice(((None,), (None,), ("smartphone", "contactless_card"), ("smartphone", None)))
            for number in range(rng.choice((1, 1, 2))):
                version = Version()
                version.since = datetime(1, 1, 2, tzinfo=UTC) if number == 0 else self.instant(datetime(2024, 9, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC))
                version.components = [Component(rng, kind, DIGITS[plan.currency]) for kind in kinds]
                version.zero = rng.random() < 0.3
                version.plan = plan
                first = version.components[0].arguments()
                if number == 0:
                    version.plan_id = plan.plan_id = self.ask("SELECT plan_id FROM create_price_plan(partner_id => %s, name => 'Plan', currency => %s, model => %s, measure => %s, tiers => %s,"
                        " unit_price => %s, package_size => %s, minimum_minor => %s, free_units => %s, kind => %s, zero_invoices => %s)", partner or None, plan.currency, first["model"], first["measure"],
                        first["tiers"], first["unit_price"], first["package_size"], first["minimum_minor"], first["free_units"], first["kind"], version.zero)[0][0]
                else:
                    version.plan_id = self.ask("SELECT plan_id FROM revise_price_plan(%s, model => %s, measure => %s, tiers => %s, unit_price => %s, package_size => %s, minimum_minor => %s,"
                        " free_units => %s, kind => %s, in_force_from => %s, zero_invoices => %s)", plan.plan_id, first["model"], first["measure"], first["tiers"], first["unit_price"],
                        first["package_size"], first["minimum_minor"], first["free_units"], first["kind"], version.since, version.zero)[0][0]
                for component in version.components[1:]:
                    a = component.arguments()
                    self.ask("SELECT add_plan_component(%s, %s, %s, %s, %s, %s, %s, %s, %s)", version.plan_id, a["kind"], a["model"], a["measure"], a["tiers"], a["unit_price"], a["package_size"],
                             a["minimum_minor"], a["free_units"])
                plan.versions.append(version)
            self.plans.append(plan)
        for number in range(rng.randint(2, 4)):
            w = Workspace(number)
            zone = rng.choice(ZONES)
            w.zone, w.step = ZoneInfo(zone), rng.choice(("month", "month", "month", "quarter"))
            w.created = self.instant(datetime(2024, 9, 20, tzinfo=UTC), datetime(2024, 11, 20, tzinfo=UTC))
            w.anchor = w.local(w.created) if rng.random() < 0.4 else date(2024, rng.choice((1, 5, 8)), rng.randint(1, 31))
            w.partner = rng.choice([0] + self.partners)
            w.billing_from = w.created if rng.random() < 0.7 else self.instant(w.created, w.created + timedelta(days=70))
            w.auto = rng.random() < 0.8
            w.id = self.ask("INSERT INTO workspace (company_name, slug, partner_id, created_at, anchor_date, billing_from, time_zone, billing_step, auto_finalize)"
                            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING workspace_id", "Company %d" % number, "company-%d" % number, w.partner or None, w.created, w.anchor,
                            w.billing_from, zone, w.step, w.auto)[0][0]
            n = 0
            while boundary(w, n) > w.created:
                n -= 1
            while boundary(w, n + 1) <= w.created:
                n += 1
            w.n = n
            w.periods.append(Period(boundary(w, n), boundary(w, n + 1), w.partner))
            for k in range(rng.randint(0, 7)):
                kind = rng.choice(("smartphone", "contactless_card"))
                key = self.ask("INSERT INTO security_key (workspace_id, kind, serial, status) VALUES (%s, %s, %s, 'disabled') RETURNING key_id", w.id, kind, "k%d" % k)[0][0]
                w.keys[key] = (kind, [])
            self.workspaces.append(w)
            self.assign(w, w.created - timedelta(days=100))
            self.facts(w, w.created, w.created + timedelta(days=150), rng.randint(0, 3))

    def assign(self, w, since):
        plan = self.rng.choice([p for p in self.plans if p.partner in (0, w.partner)] * 3 + [None])
        if plan is None and not [a for a in w.assigned if a[1] is not None]:
            plan = self.plans[0]
        self.ask("SELECT assign_price_plan(%s, %s, %s)", w.id, plan and plan.plan_id, since)
        w.assigned = [a for a in w.assigned if a[0] < since] + [(since, plan)]

    def facts(self, w, since, until, how_many):
        for key in w.keys:
            for _ in range(self.rng.randint(0, how_many)):
                a = self.instant(since, until)
                b = self.rng.choice((a + timedelta(seconds=self.rng.randint(1, 5)), self.instant(a + timedelta(seconds=1), a + timedelta(days=60))))
                facts = w.keys[key][1]
                if any(a < y and b > x for x, y in facts):
                    continue
                self.ask("SELECT import_key_activity(%s, %s, tstzrange(%s, %s), 'story')", w.id, key, a, b)
                facts.append((a, b))

    def line(self, w, period, component, plan):
        share = w.share(period)
        quantity = w.measure(component.measure, component.kind, period)
        return quantity, component.amount(quantity, share, DIGITS[plan.currency]), share

    def compute(self, w, invoices):
        """Lines of invoices that are made or made anew together."""
        for invoice in invoices:
            invoice.lines = [("usage", invoice.period.start, c) + self.line(w, invoice.period, c, invoice.version.plan)[:2] for c in invoice.version.components]
        others = [i for i in w.invoices if i not in invoices]
        for old in sorted(others, key=lambda i: i.period.start):
            if old.status not in ("final", "paid", "empty"):
                continue
            carrier = [i for i in w.invoices if (i in invoices or i.status == "draft") and i.period.start > old.period.start
                       and i.version.plan.partner == old.version.plan.partner and i.version.plan.currency == old.version.plan.currency]
            carrier = min(carrier, key=lambda i: i.period.start, default=None)
            if carrier not in invoices:
                continue
            for c in old.version.components:
                quantity, amount, _ = self.line(w, old.period, c, old.version.plan)
                billed = [l for i in others if i.status != "void" for l in i.lines if l[1] == old.period.start and l[2] is c]
                dq, da = quantity - sum(l[3] for l in billed), amount - sum(l[4] for l in billed)
                if dq or da:
                    carrier.lines.append(("correction", old.period.start, c, dq, da))
        for invoice in invoices:
            invoice.stale = False

    def run(self, as_of):
        for w in self.workspaces:
            while w.periods[-1].end <= as_of:
                w.n += 1
                w.periods.append(Period(w.periods[-1].end, boundary(w, w.n + 1), w.partner))
            due = [p for p in w.periods if p.end <= as_of and not p.billed]
            made = []
            for p in due:
                p.billed = True
                version = w.plan_at(p)
                if version and p.end > w.billing_from:
                    invoice = Invoice(p)
                    invoice.version, invoice.after = version, p.end + GRACE
                    made.append(invoice)
            again = [i for i in w.invoices if i.status == "draft" and ((i.after <= as_of and w.auto) or i.stale)]
            # drafts that only wait for another tax are no reason to look at a workspace
            if not due and not any(i.stale or i.tax_fits() for i in again):
                continue
            w.invoices += made
            self.compute(w, made + again)
            for invoice in w.invoices:
                if invoice.status == "draft" and invoice.after <= as_of and w.auto and invoice.tax_fits():
                    self.finalize(invoice)

    def finalize(self, invoice):
        invoice.status = "empty" if invoice.subtotal() + invoice.tax == 0 and not invoice.version.zero else "final"

    def preview(self, as_of):
        """What the next invoice of each workspace would be, before the run that makes it."""
        found = {}
        for w in self.workspaces:
            start = self.ask("SELECT min(period_start) FROM billing_period WHERE workspace_id = %s AND billed_at IS NULL", w.id)[0][0]
            period = start and [p for p in w.periods if p.start == start]
            if period and period[0].end <= as_of and period[0].end > w.billing_from:
                found[w.id] = (start, self.ask("SELECT line, type, lower(about), text, quantity, amount_minor FROM preview_invoice(%s, tstzrange(%s, %s)) ORDER BY 1", w.id, start, period[0].end))
        return found

    def check(self, as_of, previews):
        for w in self.workspaces:
            got = self.ask("SELECT period_start, period_end FROM billing_period WHERE workspace_id = %s AND period_start <= %s ORDER BY 1", w.id, as_of)
            same("periods of %d" % w.id, [(a.astimezone(UTC), b.astimezone(UTC)) for a, b in got], [(p.start, p.end) for p in w.periods if p.start <= as_of])
            got = self.ask("SELECT period_start, status, plan_id, issuer_key, tax_minor, total_minor, invoice_id FROM invoice WHERE workspace_id = %s AND document = 'invoice'"
                           " ORDER BY period_start, status <> 'void', invoice_id", w.id)
            expected = sorted(w.invoices, key=lambda i: (i.period.start, i.status != "void"))
            same("invoices of %d as of %s" % (w.id, as_of), [(r[0].astimezone(UTC),) + r[1:6] for r in got],
                 [(i.period.start, i.status, i.version.plan_id, i.version.plan.partner, i.tax, i.subtotal() + i.tax) for i in expected])
            for row, invoice in zip(got, expected):
                invoice.id = row[6]
                lines = self.ask("SELECT type, about_start, kind, measure, model, quantity, amount_minor FROM invoice_line WHERE workspace_id = %s AND invoice_id = %s ORDER BY line", w.id, invoice.id)
                same("lines of invoice %d" % invoice.id, [(l[0], l[1].astimezone(UTC)) + l[2:5] + (l[6],) for l in lines],
                     [(l[0], l[1], l[2].kind, l[2].measure, l[2].model, l[4]) for l in invoice.lines])
                for l, m in zip(lines, invoice.lines):
                    if abs(Fraction(l[5]) - m[3]) > Fraction(1, 10**10):
                        raise Different("quantity of invoice %d: got %s, expected %s" % (invoice.id, l[5], float(m[3])))
                same("credit notes of invoice %d" % invoice.id, self.ask("SELECT n.status, n.tax_minor, n.total_minor, n.plan_id, n.period_start, (SELECT array_agg(l.credits_line || ':' || l.amount_minor ORDER BY l.line)"
                     " FROM invoice_line l WHERE l.workspace_id = n.workspace_id AND l.invoice_id = n.invoice_id AND l.type = 'credit')"
                     " FROM invoice n WHERE n.workspace_id = %s AND n.credits_invoice_id = %s ORDER BY n.invoice_id", w.id, invoice.id),
                     [("final", tax, tax + sum(a for _, a in of), invoice.version.plan_id, row[0], ["%d:%d" % l for l in of]) for tax, of in invoice.credits])
            if w.id in previews:
                start, lines = previews[w.id]
                same("preview of %d" % w.id, lines, self.ask("SELECT l.line, l.type, l.about_start, l.text, l.quantity, l.amount_minor FROM invoice i JOIN invoice_line l USING (workspace_id, invoice_id)"
                     " WHERE i.workspace_id = %s AND i.period_start = %s AND i.document = 'invoice' AND i.status <> 'void' ORDER BY 1", w.id, start))
        for issuer, document, count, least, most, last in self.ask(
                "SELECT issuer_key, document, count(*), min(number), max(number), (SELECT last_number FROM invoice_series s WHERE s.issuer_key = i.issuer_key AND s.document = i.document)"
                " FROM invoice i WHERE number IS NOT NULL GROUP BY 1, 2"):
            same("numbers of %s %s" % (issuer, document), (least, most, last), (1, count, count))
        same("sums", self.ask("SELECT invoice_id FROM invoice i WHERE total_minor <> subtotal_minor + tax_minor OR subtotal_minor <> (SELECT coalesce(sum(amount_minor), 0) FROM invoice_line l"
                              " WHERE l.workspace_id = i.workspace_id AND l.invoice_id = i.invoice_id)"), [])
        same("a second run", self.ask("SELECT * FROM run_billing(%s)", as_of), [])

    def meanwhile(self, as_of):
        rng = self.rng
        for w in self.workspaces:
            if rng.random() < 0.5:
                self.facts(w, as_of, as_of + timedelta(days=60), 2)
            if rng.random() < 0.4:
                before = {k: list(f) for k, (_, f) in w.keys.items()}
                self.facts(w, max(w.created, as_of - timedelta(days=120)), as_of, 1)
                late = [f for k, (_, facts) in w.keys.items() for f in facts if f not in before[k]]
                for invoice in w.invoices:
                    invoice.stale = invoice.stale or any(a < invoice.period.end and b > invoice.period.start for a, b in late)
            final = [i for i in w.invoices if i.status == "final" and not i.credits]
            if final and rng.random() < 0.15:
                invoice, reissue = rng.choice(final), rng.random() < 0.5
                self.ask("SELECT void_invoice(%s, 'story', %s)", invoice.id, reissue)
                invoice.status = "void"
                if reissue:
                    again = Invoice(invoice.period)
                    again.version, again.after = invoice.version, datetime.now(UTC) + GRACE
                    w.invoices.append(again)
                    self.compute(w, [again])
            if self.papers:
                self.push_papers(w)
            if rng.random() < 0.2:
                self.assign(w, self.instant(as_of, as_of + timedelta(days=60)))
            if rng.random() < 0.1:
                self.move(w, as_of)

    def push_papers(self, w):
        """What people do with the documents of a workspace: tax, finalize, pay, credit; and what they may not."""
        rng = self.rng
        drafts = [i for i in w.invoices if i.status == "draft"]
        if drafts and rng.random() < 0.5:
            invoice, tax = rng.choice(drafts), rng.choice((0, 1, 77, 1005))
            self.ask("SELECT set_invoice_tax(%s, %s)", self.id_of(w, invoice), tax)
            self.compute(w, [invoice])
            invoice.tax, invoice.taxed = tax, invoice.subtotal()
        if drafts and rng.random() < 0.25:
            invoice = rng.choice(drafts)
            before = invoice.lines, invoice.stale
            self.compute(w, [invoice])
            if invoice.tax_fits():
                self.ask("SELECT finalize_invoice(%s)", self.id_of(w, invoice))
                self.finalize(invoice)
            else:
                self.refused("PP005", "SELECT finalize_invoice(%s)", self.id_of(w, invoice))
                invoice.lines, invoice.stale = before
        final = [i for i in w.invoices if i.status == "final"]
        if final and rng.random() < 0.2:
            invoice = rng.choice(final)
            self.ask("SELECT mark_paid(%s)", self.id_of(w, invoice))
            invoice.status = "paid"
        final = [i for i in w.invoices if i.status in ("final", "paid")]
        for invoice in rng.sample(final, min(len(final), rng.choice((0, 1, 2)))):
            self.credit(w, invoice)

    def id_of(self, w, invoice):
        return self.ask("SELECT invoice_id FROM invoice WHERE workspace_id = %s AND period_start = %s AND document = 'invoice' AND status <> 'void'", w.id, invoice.period.start)[0][0]

    def credit(self, w, invoice):
        rng = self.rng
        credit = "SELECT credit_invoice(%s, %s, 'story', %s)"
        text = lambda lines: "[" + ",".join('{"line":%d,"amount_minor":%d}' % l for l in lines) + "]"
        number = self.id_of(w, invoice)
        lines, total, tax = invoice.left()
        for n, most in lines.items():
            if rng.random() < 0.2:
                self.refused("22023", credit, number, text([(n, most + 1)]), 0)
        wanted = []
        for n, most in lines.items():
            amount = rng.choice((0, 1, most // 2, most, most))
            amount = min(amount, most, total - sum(a for _, a in wanted))
            if amount > 0:
                wanted.append((n, amount))
        if not wanted:
            self.refused("22023", credit, number, "[]", 0)
            return
        self.refused("22023", credit, number, text(wanted), tax + 1)
        tax = rng.choice((0, tax, tax // 2))
        self.ask(credit, number, text(wanted), tax)
        invoice.credits.append((tax, wanted))
        if invoice.status == "final":
            self.refused("PP005", "SELECT void_invoice(%s, 'story')", number)

    def move(self, w, as_of):
        """A transfer at an instant of the story: what transfer_workspace() does now, then."""
        running = w.periods[-1]
        at = self.instant(max(as_of, running.start) + timedelta(hours=1), running.end)
        if not running.start < at < running.end or running.billed:
            return
        partner = self.rng.choice([p for p in [0] + self.partners if p != w.partner])
        for trigger in ("workspace_schedule_update", "workspace_moved", "workspace_billing"):
            self.ask("ALTER TABLE workspace DISABLE TRIGGER " + trigger)
        self.ask("UPDATE workspace SET partner_id = %s WHERE workspace_id = %s", partner or None, w.id)
        for trigger in ("workspace_schedule_update", "workspace_moved", "workspace_billing"):
            self.ask("ALTER TABLE workspace ENABLE TRIGGER " + trigger)
        self.ask("SELECT split_period(%s, %s)", w.id, at)
        if w.assigned[-1][1] is not None and w.assigned[-1][1].partner == w.partner and w.partner:
            self.ask("DELETE FROM plan_assignment WHERE workspace_id = %s AND valid_from >= %s", w.id, at)
            self.ask("INSERT INTO plan_assignment (workspace_id, valid_from, partner_key) VALUES (%s, %s, %s)", w.id, at, w.partner)
            w.assigned = [a for a in w.assigned if a[0] < at] + [(at, None)]
        w.periods[-1:] = [Period(running.start, at, running.partner, running.whole), Period(at, running.end, partner, running.whole)]
        w.partner = partner

    def tell(self):
        self.begin()
        as_of = datetime(2024, 12, 1, tzinfo=UTC)
        for _ in range(self.rng.randint(2, 5)):
            as_of = self.instant(as_of + timedelta(days=1), as_of + timedelta(days=100))
            if self.rng.random() < 0.4:
                ends = [p.end for w in self.workspaces for p in w.periods if p.end >= as_of]
                as_of = min(ends) + timedelta(minutes=30) if ends else as_of
            previews = self.preview(as_of)
            self.ask("SELECT count(*) FROM run_billing(%s)", as_of)
            self.run(as_of)
            self.check(as_of, previews)
            self.meanwhile(as_of)
        return sum(len(w.invoices) for w in self.workspaces), sum(len(i.lines) for w in self.workspaces for i in w.invoices), \
            sum(1 for w in self.workspaces for i in w.invoices for l in i.lines if l[0] == "correction"), sum(len(i.credits) for w in self.workspaces for i in w.invoices)


def main():
    harness.make_database(DATABASE).close()
    connection = psycopg2.connect(dbname=DATABASE)
    cursor = connection.cursor()
    until = time.time() + options.seconds
    stories = different = 0
    totals = [0, 0, 0, 0]
    seeds = [(options.seed, True)] if options.stories == 1 else [(seed, False) for seed in PLAIN] + [(seed, True) for seed in KEPT]
    following = options.seed
    while seeds or (time.time() < until if not options.stories else stories < options.stories):
        seed, papers = seeds.pop(0) if seeds else (following, True)
        following += 1 if (seed, papers) == (following, True) else 0
        cursor.execute("SET LOCAL search_path = partner_portal, public; SET LOCAL timezone = 'UTC'")
        try:
            totals = [a + b for a, b in zip(totals, Story(seed, cursor, papers).tell())]
        except (Different, psycopg2.Error) as fault:
            different += 1
            print("# seed %d%s: %s" % (seed, "" if papers else " (plain)", fault), flush=True)
        connection.rollback()
        stories += 1
        if different >= 5:
            break
    connection.close()
    if not different:
        harness.drop_database(DATABASE)
    print("# %d stories from seed %d, %d invoices, %d lines, of them %d corrections, %d credit notes" % ((stories, options.seed) + tuple(totals)))
    harness.verdict(not different, "invoices, lines, numbers and previews are the model's: %d differences" % different)
    sys.exit(harness.finish())


main()
