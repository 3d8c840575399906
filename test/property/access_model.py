#!/usr/bin/env python3
# packages: python3-psycopg2
"""access_model: what anybody may do, against a model of the specification's matrix.

One session changes roles, acceptances, staff, grants, consents, accounts and workspaces at random, in transactions that commit or not, with
savepoints. Three others, one for each isolation level, stay in open transactions with generic plans and are asked after
every change. Whatever they see and may do must be what the model says of the state last committed.

ACCESS_SEED and ACCESS_STEPS choose the run.
"""

import os
import random
import sys

import psycopg2

from lib import harness
from lib.harness import verdict

SEED = int(os.environ.get("ACCESS_SEED", "1"))
STEPS = int(os.environ.get("ACCESS_STEPS", "400"))
DATABASE = "pp_access_model"

MATRIX = {
    "read": {"owner", "administrator", "member", "partner", "account_owner", "system_administrator", "grant_read"},
    "manage_keys": {"owner", "administrator", "partner", "system_administrator", "grant_manage"},
    "set_limit": {"partner"},
    "manage_settings": {"owner", "administrator", "partner", "account_owner"},
    "manage_billing": {"owner", "partner"},
    "manage_people": {"owner", "administrator", "account_owner"},
    "manage_products": {"owner", "administrator", "system_administrator", "grant_manage"},
    "grant_access": {"owner"},
    "delete_workspace": {"owner", "partner"},
    "restore_workspace": {"partner"},
    "purge": set(),
    "suspend": {"partner"},
    "bill": {"partner", "own_partner"},
    "manage_portals": {"own_partner"},
    "read_activity": {"owner", "administrator", "partner", "account_owner"},
}
PARTNERS = (1, 2)
CUSTOMERS = (3, 4, 5, 6)
WORKSPACES = PARTNERS + CUSTOMERS
PEOPLE = tuple(range(1, 9))  # the owners that every workspace keeps come after them
ROLES = ("owner", "administrator", "member", "guest")
STAFF = ("account_owner", "system_administrator")
CATEGORIES = ("server", "domain")
# two products of every customer, one in each category: product -> (workspace, category)
PRODUCTS = {2 * i + j + 1: (w, c) for i, w in enumerate(CUSTOMERS) for j, c in enumerate(CATEGORIES)}


class Model:
    """The state that decides access, as last committed."""

    def __init__(self):
        self.disabled = set()
        self.operators = set()
        self.deleted = set()
        self.partner = {3: 1, 4: 1, 5: 2, 6: None}
        self.members = {}
        self.staff = {}
        self.grants = {}  # (workspace, partner) -> (complete, manage, products, categories)
        self.opened = set()  # products with partner_access

    def copy(self):
        other = Model()
        for name, value in vars(self).items():
            setattr(other, name, value.copy())
        return other

    def acting(self, account, chosen):
        """The workspace an account acts in."""
        counting = [w for (w, a), (_, accepted) in self.members.items() if a == account and accepted and w not in self.deleted]
        if chosen is not None:
            return chosen if chosen in counting else None
        return counting[0] if len(counting) == 1 else None

    def standing(self, account, acting, workspace):
        if acting is None or workspace not in WORKSPACES:
            return set()
        role = self.members[acting, account][0]
        runs = acting in PARTNERS and role in ("owner", "administrator")
        if acting == workspace:
            return {role} | ({"own_partner"} if runs else set())
        found = set()
        if self.partner.get(workspace) == acting:
            if runs:
                found.add("partner")
            if (workspace, account) in self.staff:
                found.add(self.staff[workspace, account])
        if runs and (workspace, acting) in self.grants:
            complete, manage, _, _ = self.grants[workspace, acting]
            found |= ({"grant_read"} | ({"grant_manage"} if manage else set())) if complete else {"grant_limited"}
        return found

    def product_standing(self, account, acting, product):
        workspace, category = PRODUCTS[product]
        found = self.standing(account, acting, workspace)
        if product not in self.opened:
            found -= {"partner", "account_owner", "system_administrator"}
        if "grant_limited" in found:
            _, manage, products, categories = self.grants[workspace, acting]
            if product in products or category in categories:
                found |= {"grant_read"} | ({"grant_manage"} if manage else set())
        return found

    def answer(self, account, chosen):
        """What the reader's query returns: account, acting workspace, operator, workspaces seen, permissions held, products seen
        and managed."""
        if account in self.disabled:
            return None, None, False, [], [], [], []
        acting = self.acting(account, chosen)
        operator = account in self.operators
        may = [f"{p} {w}" for p, who in MATRIX.items() for w in WORKSPACES
               if operator or who & self.standing(account, acting, w)]
        seen = [w for w in WORKSPACES if operator or MATRIX["read"] & self.standing(account, acting, w)]
        products = [[p for p in PRODUCTS if operator or MATRIX[permission] & self.product_standing(account, acting, p)]
                    for permission in ("read", "manage_products")]
        return account, acting, operator, seen, sorted(may), products[0], products[1]


def change(rng, model):
    """A random change: the statements, and the model after it. None if there is nothing to change."""
    after = model.copy()
    account = rng.choice(PEOPLE)
    workspace = rng.choice(WORKSPACES)
    kind = rng.choice(("member", "member", "member", "leave", "accept", "staff", "staff", "unassign", "disable", "operator", "delete", "transfer",
                       "grant", "grant", "grant", "revoke", "consent"))
    if kind == "member":
        role = rng.choice(ROLES)
        accepted = rng.random() < 0.8
        after.members[workspace, account] = (role, accepted)
        return after, kind, [("INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at) "
                              "SELECT workspace_id, %s, partner_key, %s, CASE WHEN %s THEN now() END FROM partner_portal.workspace WHERE workspace_id = %s "
                              "ON CONFLICT (workspace_id, account_id) DO UPDATE SET role = excluded.role, accepted_at = excluded.accepted_at",
                              (account, role, accepted, workspace))]
    if kind in ("leave", "accept"):
        if not model.members:
            return None
        workspace, account = rng.choice(sorted(model.members))
        if kind == "accept":
            after.members[workspace, account] = (model.members[workspace, account][0], True)
            return after, kind, [("UPDATE partner_portal.member SET accepted_at = now() WHERE workspace_id = %s AND account_id = %s", (workspace, account))]
        del after.members[workspace, account]
        after.staff = {(w, a): r for (w, a), r in model.staff.items() if not (a == account and model.partner[w] == workspace)}
        return after, kind, [("DELETE FROM partner_portal.member WHERE workspace_id = %s AND account_id = %s", (workspace, account))]
    if kind == "staff":
        possible = [(w, a) for w, p in model.partner.items() for (m, a) in model.members if p == m]
        if not possible:
            return None
        workspace, account = rng.choice(sorted(possible))
        role = rng.choice(STAFF)
        after.staff[workspace, account] = role
        return after, kind, [("INSERT INTO partner_portal.staff (workspace_id, account_id, partner_key, role) VALUES (%s, %s, %s, %s) "
                              "ON CONFLICT (workspace_id, account_id) DO UPDATE SET role = excluded.role", (workspace, account, model.partner[workspace], role))]
    if kind == "unassign":
        if not model.staff:
            return None
        workspace, account = rng.choice(sorted(model.staff))
        del after.staff[workspace, account]
        return after, kind, [("DELETE FROM partner_portal.staff WHERE workspace_id = %s AND account_id = %s", (workspace, account))]
    if kind == "grant":
        partner = rng.choice([p for p in PARTNERS if p != workspace])
        complete, manage = rng.random() < 0.5, rng.random() < 0.5
        own = [p for p, (w, _) in PRODUCTS.items() if w == workspace]
        products = [] if complete else [p for p in own if rng.random() < 0.5]
        categories = [] if complete else [c for c in CATEGORIES if rng.random() < 0.3]
        if not complete and not products and not categories:
            categories = [rng.choice(CATEGORIES)]
        after.grants[workspace, partner] = (complete, manage, tuple(products), tuple(categories))
        return after, kind, [("INSERT INTO partner_portal.access_grant AS g (workspace_id, partner_id, scope, products, categories, wallet, rights, state, accepted_at) "
                              "VALUES (%s, %s, %s, %s::bigint[], %s::text[], %s, %s, 'active', now()) "
                              "ON CONFLICT (workspace_id, partner_id) WHERE state = 'active' DO UPDATE "
                              "SET scope = excluded.scope, products = excluded.products, categories = excluded.categories, wallet = excluded.wallet, rights = excluded.rights",
                              (workspace, partner, "complete" if complete else "limited", products, categories, False if complete else None,
                               ["manage", "read"] if manage else ["read"]))]
    if kind == "revoke":
        if not model.grants:
            return None
        workspace, partner = rng.choice(sorted(model.grants))
        del after.grants[workspace, partner]
        return after, kind, [("SELECT partner_portal.end_access(grant_id) FROM partner_portal.access_grant WHERE workspace_id = %s AND partner_id = %s AND state = 'active'", (workspace, partner))]
    if kind == "consent":
        product = rng.choice(sorted(PRODUCTS))
        after.opened ^= {product}
        return after, kind, [("UPDATE partner_portal.product SET partner_access = NOT partner_access WHERE product_id = %s", (product,))]
    if kind == "disable":
        after.disabled ^= {account}
        return after, kind, [("UPDATE partner_portal.account SET disabled_at = CASE WHEN disabled_at IS NULL THEN now() END WHERE account_id = %s", (account,))]
    if kind == "operator":
        after.operators = (model.operators - {account}) if account in model.operators else model.operators | ({account} if rng.random() < 0.3 else set())
        return after, kind, [("UPDATE partner_portal.account SET is_operator = %s WHERE account_id = %s", (account in after.operators, account))]
    workspace = rng.choice(CUSTOMERS)
    if kind == "delete":
        after.deleted ^= {workspace}
        return after, kind, [("SET LOCAL session_replication_role = replica", ()),
                             ("UPDATE partner_portal.workspace SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END WHERE workspace_id = %s", (workspace,))]
    after.partner[workspace] = rng.choice([p for p in (1, 2, None) if p != model.partner[workspace]])
    after.staff = {(w, a): r for (w, a), r in model.staff.items() if w != workspace}
    after.grants = {(w, p): g for (w, p), g in model.grants.items() if (w, p) != (workspace, model.partner[workspace])}
    after.opened = {p for p in model.opened if PRODUCTS[p][0] != workspace}
    return after, kind, [("DELETE FROM partner_portal.staff WHERE workspace_id = %s", (workspace,)),
                         ("UPDATE partner_portal.workspace SET partner_id = %s WHERE workspace_id = %s", (after.partner[workspace], workspace))]


class Reader:
    """A session that stays in an open transaction as some account."""

    def __init__(self, isolation):
        self.isolation = isolation
        self.cursor = harness.connect(DATABASE).cursor()
        self.cursor.execute("SET plan_cache_mode = force_generic_plan")
        self.cursor.execute(
            "PREPARE look AS SELECT partner_portal.current_account_id(), partner_portal.current_workspace_id(), partner_portal.is_operator(), "
            "ARRAY(SELECT workspace_id FROM partner_portal.workspace ORDER BY 1), "
            "ARRAY(SELECT p || ' ' || w FROM unnest(%s::text[]) p, unnest(%s::bigint[]) w WHERE partner_portal.may(p, w) ORDER BY 1), "
            "ARRAY(SELECT product_id FROM partner_portal.product ORDER BY 1), "
            "ARRAY(SELECT product_id FROM partner_portal.product WHERE partner_portal.product_ok('manage_products', workspace_id, product_id) ORDER BY 1)",
            (sorted(MATRIX), list(WORKSPACES) + [99]))
        self.account = None

    def begin(self, rng, model):
        self.cursor.execute("ROLLBACK")
        account = rng.choice([a for a in PEOPLE if a not in model.disabled])
        accepted = sorted(w for (w, a), (_, yes) in model.members.items() if a == account and yes and w not in model.deleted)
        self.chosen = rng.choice(accepted) if accepted and rng.random() < 0.6 else None
        self.cursor.execute(f"BEGIN ISOLATION LEVEL {self.isolation}")
        self.cursor.execute("SELECT partner_portal.login_as(%s)", (account,))
        if self.chosen is not None:
            self.cursor.execute("SELECT partner_portal.act_in(%s)", (self.chosen,))
        self.cursor.execute("SET LOCAL ROLE regress_app")
        self.account = account

    def look(self):
        self.cursor.execute("EXECUTE look")
        account, workspace, operator, seen, may, products, managed = self.cursor.fetchone()
        return account, workspace, operator, seen, sorted(may), products, managed


def make_database():
    cursor = harness.make_database(DATABASE, "regress_app").cursor()
    cursor.execute("INSERT INTO partner_portal.account (email) SELECT 'a' || i || '@example.com' FROM generate_series(1, %s) i", (len(PEOPLE) + len(WORKSPACES),))
    cursor.execute("INSERT INTO partner_portal.partner (partner_id, registration_code) SELECT i, 'code-of-' || i FROM generate_series(1, 2) i")
    for workspace in WORKSPACES:
        cursor.execute("INSERT INTO partner_portal.workspace (kind, partner_id, company_name, slug, anchor_date) VALUES (%s, %s, %s, %s, '2026-01-01')",
                       ("partner" if workspace in PARTNERS else "business", Model().partner.get(workspace), f"W{workspace}", f"w{workspace}"))
        cursor.execute("INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at) "
                       "SELECT workspace_id, %s, partner_key, 'owner', now() FROM partner_portal.workspace WHERE workspace_id = %s", (len(PEOPLE) + workspace, workspace))
    for workspace, category in PRODUCTS.values():
        cursor.execute("INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (%s, %s, %s)", (workspace, category, category))
    return cursor


def main():
    rng = random.Random(SEED)
    writer = make_database()
    model = Model()
    readers = [Reader(i) for i in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")]
    for reader in readers:
        reader.begin(rng, model)
    done = {}
    refused = restarts = checks = 0
    wrong = []
    for step in range(STEPS):
        made = change(rng, model)
        if made is None:
            continue
        after, kind, statements = made
        how = rng.choice(("commit", "commit", "commit", "rollback", "savepoint"))
        writer.execute("BEGIN")
        try:
            if how == "savepoint":
                writer.execute("SAVEPOINT s")
            for statement, values in statements:
                writer.execute(statement, values)
            if how == "savepoint":
                writer.execute("ROLLBACK TO s")
            writer.execute("COMMIT" if how != "rollback" else "ROLLBACK")
        except psycopg2.Error:
            writer.execute("ROLLBACK")
            refused += 1
            how = "rollback"
        if how == "commit":
            model = after
            done[kind] = done.get(kind, 0) + 1
        for reader in readers:
            # A snapshot goes on showing whose customer a row was when it was taken.
            stale = kind == "transfer" and how == "commit" and reader.isolation != "READ COMMITTED"
            if stale or rng.random() < 0.15:
                if len(model.disabled) == len(PEOPLE):
                    break
                reader.begin(rng, model)
            expected = model.answer(reader.account, reader.chosen)
            try:
                got = reader.look()
            except psycopg2.errors.SerializationFailure:
                restarts += 1
                reader.begin(rng, model)
                expected = model.answer(reader.account, reader.chosen)
                got = reader.look()
            checks += 1
            if got != expected:
                wrong.append((step, kind, how, reader.isolation, reader.account, reader.chosen, expected, got))
    for item in wrong[:5]:
        print("# step %s %s %s, %s, account %s in %s\n#   expected %s\n#   got      %s" % item)
    print("# seed %d: %s; %d refused, %d restarts, %d checks" % (SEED, done, refused, restarts, checks))
    verdict(not wrong, "access is what the model says")
    enough = all(done.get(kind, 0) > 0 for kind in ("member", "leave", "staff", "unassign", "disable", "delete", "transfer", "grant", "revoke", "consent")) and checks > STEPS
    verdict(enough, "every kind of change was made")
    for reader in readers:
        reader.cursor.connection.close()
    writer.connection.close()
    harness.drop_database(DATABASE)
    return harness.finish()


if __name__ == "__main__":
    sys.exit(main())
