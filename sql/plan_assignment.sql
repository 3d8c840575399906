-- plan_assignment.sql: which plan a workspace has from when on, who pays, and what keeps plans in use as they are.

CREATE TABLE partner_portal.plan_assignment (
	workspace_id bigint NOT NULL,
	valid_from timestamptz NOT NULL,
	partner_key bigint NOT NULL,
	family_id bigint,
	assigned_at timestamptz NOT NULL DEFAULT now(),
	assigned_by bigint,
	CONSTRAINT plan_assignment_pkey PRIMARY KEY (workspace_id, valid_from),
	CONSTRAINT plan_assignment_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT plan_assignment_plan FOREIGN KEY (partner_key, family_id) REFERENCES partner_portal.price_plan (partner_key, plan_id),
	CONSTRAINT plan_assignment_valid_from CHECK (isfinite(valid_from))
);
CREATE INDEX plan_assignment_plan_idx ON partner_portal.plan_assignment (partner_key, family_id);
COMMENT ON TABLE partner_portal.plan_assignment IS
'Price plan of a workspace for periods that start at or after valid_from, until a later row. partner_key is the plan''s owner, who issues the invoices (0 the platform); it does not follow a transfer.';
COMMENT ON COLUMN partner_portal.plan_assignment.family_id IS 'plan_id of the plan''s first version; NULL is no plan from then on.';

ALTER TABLE partner_portal.plan_assignment ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.plan_assignment AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.plan_assignment FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.plan_assignment', '');

CREATE FUNCTION partner_portal.plan_in_use(plan partner_portal.price_plan) RETURNS boolean
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT ((plan).in_force_from <= now() AND (plan).created_at <> now()
			AND EXISTS (SELECT FROM partner_portal.plan_assignment a WHERE a.partner_key = (plan).partner_key AND a.family_id = (plan).family_id))
		OR EXISTS (SELECT FROM partner_portal.invoice i WHERE i.issuer_key = (plan).partner_key AND i.plan_id = (plan).plan_id);
END;
COMMENT ON FUNCTION partner_portal.plan_in_use(partner_portal.price_plan) IS
'Whether a version of a plan must stay as it is: it is in force and assigned, and was not made by this transaction, or an invoice was made by it; internal.';
REVOKE ALL ON FUNCTION partner_portal.plan_in_use(partner_portal.price_plan) FROM PUBLIC;

CREATE FUNCTION partner_portal.plan_guard() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	guarded record;
	plan partner_portal.price_plan;
BEGIN
	IF TG_OP = 'TRUNCATE' THEN
		RAISE EXCEPTION USING ERRCODE = 'feature_not_supported', MESSAGE = 'price plans cannot be truncated';
	END IF;
	IF TG_OP = 'INSERT' THEN
		IF partner_portal.restoring_session() THEN
			RETURN NEW;
		END IF;
		guarded := NEW;
	ELSE
		guarded := OLD;
	END IF;
	SELECT p.* INTO plan FROM partner_portal.price_plan p WHERE p.partner_key = guarded.partner_key AND p.plan_id = guarded.plan_id;
	IF FOUND AND partner_portal.plan_in_use(plan) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('price plan %s is in use', plan.plan_id),
			DETAIL = 'A plan that workspaces have, or that an invoice was made by, never changes.',
			HINT = 'Supersede it with revise_price_plan().';
	END IF;
	RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;
COMMENT ON FUNCTION partner_portal.plan_guard() IS 'Trigger: refuses (PP005) to change or delete a price plan in use, or to add to it.';
REVOKE ALL ON FUNCTION partner_portal.plan_guard() FROM PUBLIC;

CREATE TRIGGER plan_guard BEFORE UPDATE OR DELETE ON partner_portal.price_plan
	FOR EACH ROW EXECUTE FUNCTION partner_portal.plan_guard();
CREATE TRIGGER plan_guard_truncate BEFORE TRUNCATE ON partner_portal.price_plan
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.plan_guard();
CREATE TRIGGER plan_guard BEFORE INSERT OR UPDATE OR DELETE ON partner_portal.plan_component
	FOR EACH ROW EXECUTE FUNCTION partner_portal.plan_guard();
CREATE TRIGGER plan_guard_truncate BEFORE TRUNCATE ON partner_portal.plan_component
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.plan_guard();

CREATE FUNCTION partner_portal.assign_price_plan(workspace_id bigint, plan_id bigint, valid_from timestamptz DEFAULT NULL) RETURNS partner_portal.plan_assignment
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	customer partner_portal.workspace;
	plan partner_portal.price_plan;
	made partner_portal.plan_assignment;
BEGIN
	PERFORM partner_portal.authorize('bill', workspace_id);
	SELECT w.* INTO customer FROM partner_portal.workspace w WHERE w.workspace_id = assign_price_plan.workspace_id FOR NO KEY UPDATE;
	IF customer.deleted_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is deleted', workspace_id);
	END IF;
	IF plan_id IS NULL THEN
		-- Who ends a plan must be its owner; the partner of a direct workspace is the platform.
		SELECT p.* INTO plan FROM partner_portal.plan_at(workspace_id, customer.partner_key, 'infinity') p;
		PERFORM partner_portal.authorize_issuer(coalesce(plan.partner_key, customer.partner_key));
		plan.partner_key := coalesce(plan.partner_key, customer.partner_key);
		plan.family_id := NULL;
	ELSE
		plan := partner_portal.visible_plan(plan_id);
		IF plan.partner_key NOT IN (0, customer.partner_key) THEN
			RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is no customer of the owner of price plan %s', workspace_id, plan_id);
		END IF;
		-- and who puts its own in its place ends it as well
		PERFORM partner_portal.authorize_issuer(p.partner_key) FROM partner_portal.plan_at(workspace_id, customer.partner_key, 'infinity') p
		WHERE p.partner_key <> plan.partner_key;
		PERFORM FROM partner_portal.price_plan p WHERE p.partner_key = plan.partner_key AND p.plan_id = plan.family_id FOR SHARE;
	END IF;
	IF valid_from IS NULL THEN
		valid_from := upper(partner_portal.find_period(workspace_id, clock_timestamp()));
	ELSIF NOT isfinite(valid_from) OR valid_from NOT BETWEEN timestamptz '1900-01-01 00:00+00' AND timestamptz '3000-01-01 00:00+00' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'valid_from is out of range';
	ELSIF valid_from < upper(partner_portal.find_period(workspace_id, clock_timestamp())) THEN
		IF NOT partner_portal.is_operator() THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a plan comes into force with the next period at the earliest',
				HINT = 'Only the operator, who loads history from elsewhere, may say otherwise.';
		END IF;
		IF EXISTS (SELECT FROM partner_portal.invoice i WHERE i.workspace_id = assign_price_plan.workspace_id AND i.document = 'invoice' AND i.status <> 'draft' AND i.period_start >= valid_from) THEN
			RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is billed beyond %s already', workspace_id, valid_from);
		END IF;
		-- the next run makes them again, by the plan that is theirs then
		DELETE FROM partner_portal.invoice i
		WHERE i.workspace_id = assign_price_plan.workspace_id AND i.document = 'invoice' AND i.status = 'draft' AND i.period_start >= valid_from;
		UPDATE partner_portal.billing_period p SET billed_at = NULL
		WHERE p.workspace_id = assign_price_plan.workspace_id AND p.period_start >= valid_from AND p.billed_at IS NOT NULL;
	END IF;
	DELETE FROM partner_portal.plan_assignment a WHERE a.workspace_id = assign_price_plan.workspace_id AND a.valid_from > assign_price_plan.valid_from;
	INSERT INTO partner_portal.plan_assignment AS a (workspace_id, valid_from, partner_key, family_id, assigned_by)
	VALUES (workspace_id, valid_from, plan.partner_key, plan.family_id, partner_portal.current_account_id())
	ON CONFLICT ON CONSTRAINT plan_assignment_pkey DO UPDATE SET partner_key = excluded.partner_key, family_id = excluded.family_id,
		assigned_at = excluded.assigned_at, assigned_by = excluded.assigned_by
	RETURNING a.* INTO made;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.assign_price_plan(bigint, bigint, timestamptz) IS
'Gives a workspace a price plan (NULL: none) from its next period on, or later; any version of a plan stands for the plan. A partner gives its own customers its own plans, in the place of its own; the operator the platform''s, and in the place of any. The operator may date it back to periods not billed yet; drafts of theirs, tax and all, go, and the next billing run makes them anew. 42501, P0002 as authorize(); 42501 the workspace has a plan of the platform, which is the operator''s to end; PP005 another partner''s customer, deleted, or billed already.';
REVOKE ALL ON FUNCTION partner_portal.assign_price_plan(bigint, bigint, timestamptz) FROM PUBLIC;

-- One SELECT, taken into the query that bills a thousand periods.
CREATE FUNCTION partner_portal.plan_at(workspace_id bigint, partner_key bigint, at timestamptz) RETURNS SETOF partner_portal.price_plan
	LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
	SELECT v.*
	FROM (SELECT a.partner_key, a.family_id FROM partner_portal.plan_assignment a
		WHERE a.workspace_id = plan_at.workspace_id AND a.valid_from <= plan_at.at ORDER BY a.valid_from DESC LIMIT 1) assigned
	CROSS JOIN LATERAL (SELECT p.* FROM partner_portal.price_plan p
		WHERE p.partner_key = assigned.partner_key AND p.family_id = assigned.family_id AND p.in_force_from <= plan_at.at
		ORDER BY p.in_force_from DESC LIMIT 1) v
	WHERE assigned.partner_key IN (0, plan_at.partner_key);
END;
COMMENT ON FUNCTION partner_portal.plan_at(bigint, bigint, timestamptz) IS
'The version of the plan that prices a period of a workspace starting at an instant, under the partner of that period; no row is no plan. Internal.';
REVOKE ALL ON FUNCTION partner_portal.plan_at(bigint, bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.payer_at(workspace_id bigint, at timestamptz) RETURNS bigint
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT coalesce((
		SELECT g.partner_id FROM partner_portal.access_grant g
		WHERE g.workspace_id = payer_at.workspace_id AND g.wallet_since <= payer_at.at AND coalesce(g.wallet_until > payer_at.at, true)
			AND coalesce(g.expires_at > payer_at.at, true)
		ORDER BY g.wallet_since DESC LIMIT 1), payer_at.workspace_id)
	WHERE payer_at.at IS NOT NULL;
END;
COMMENT ON FUNCTION partner_portal.payer_at(bigint, timestamptz) IS
'Workspace that pays a platform plan''s invoice of a period of the workspace starting at an instant: the holder of its wallet then, else itself. Internal.';
REVOKE ALL ON FUNCTION partner_portal.payer_at(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.billing_period_terms() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'UPDATE' THEN
		-- cut by a transfer or a deletion
		IF NEW.period_end < OLD.period_end THEN
			NEW.whole_start := coalesce(OLD.whole_start, OLD.period_start);
			NEW.whole_end := coalesce(OLD.whole_end, OLD.period_end);
		END IF;
		RETURN NEW;
	END IF;
	IF partner_portal.restoring_session() THEN
		RETURN NEW;
	END IF;
	SELECT partner_portal.payer_at(w.workspace_id, NEW.period_start), w.invoice_visibility INTO NEW.payer_id, NEW.invoice_visibility
	FROM partner_portal.workspace w WHERE w.workspace_id = NEW.workspace_id;
	-- the second part of a split period; else what is shorter than the schedule says is a part too
	SELECT p.whole_start, p.whole_end INTO NEW.whole_start, NEW.whole_end FROM partner_portal.billing_period p
	WHERE p.workspace_id = NEW.workspace_id AND p.period_end = NEW.period_start AND p.whole_end >= NEW.period_end;
	IF NOT FOUND THEN
		SELECT b.period_start, b.period_end INTO NEW.whole_start, NEW.whole_end
		FROM partner_portal.workspace w
		CROSS JOIN LATERAL partner_portal.billing_period_bounds(w.anchor_date, w.billing_step, w.time_zone, NEW.period_start) b
		WHERE w.workspace_id = NEW.workspace_id AND b.period_start <= NEW.period_start AND b.period_end >= NEW.period_end
			AND (b.period_start < NEW.period_start OR b.period_end > NEW.period_end);
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION partner_portal.billing_period_terms() IS
'Trigger: stores with a period that opens who pays, who sees the invoice, and the whole period it is a part of.';
REVOKE ALL ON FUNCTION partner_portal.billing_period_terms() FROM PUBLIC;

CREATE TRIGGER billing_period_terms_insert BEFORE INSERT ON partner_portal.billing_period
	FOR EACH ROW EXECUTE FUNCTION partner_portal.billing_period_terms();
CREATE TRIGGER billing_period_terms_update BEFORE UPDATE OF period_end ON partner_portal.billing_period
	FOR EACH ROW EXECUTE FUNCTION partner_portal.billing_period_terms();

CREATE FUNCTION partner_portal.workspace_billing() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	-- by the clock: a period that ended while the transaction was open still is the old plan's
	ended timestamptz := clock_timestamp();
BEGIN
	IF TG_WHEN = 'BEFORE' THEN
		-- what has begun keeps the visibility it began with
		IF OLD.deleted_at IS NULL AND NOT partner_portal.restoring_session() THEN
			PERFORM partner_portal.add_periods(ARRAY[OLD.workspace_id], clock_timestamp());
		END IF;
		RETURN NEW;
	END IF;
	IF NEW.billing_from < OLD.billing_from THEN
		UPDATE partner_portal.billing_period p SET billed_at = NULL
		WHERE p.workspace_id = NEW.workspace_id AND p.period_end > NEW.billing_from AND p.period_end <= OLD.billing_from AND p.billed_at IS NOT NULL;
	END IF;
	IF NEW.partner_key <> OLD.partner_key THEN
		-- the old partner's plan ends with the transfer, and what it had planned too
		DELETE FROM partner_portal.plan_assignment a
		WHERE a.workspace_id = NEW.workspace_id AND a.partner_key = OLD.partner_key AND a.partner_key <> 0 AND a.valid_from >= ended;
		INSERT INTO partner_portal.plan_assignment (workspace_id, valid_from, partner_key)
		SELECT NEW.workspace_id, ended, OLD.partner_key
		FROM (SELECT a.partner_key, a.family_id FROM partner_portal.plan_assignment a
			WHERE a.workspace_id = NEW.workspace_id ORDER BY a.valid_from DESC LIMIT 1) latest
		WHERE latest.partner_key = OLD.partner_key AND latest.partner_key <> 0 AND latest.family_id IS NOT NULL
		ON CONFLICT ON CONSTRAINT plan_assignment_pkey DO NOTHING;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.workspace_billing() IS
'Trigger: opens the periods that have begun before invoice_visibility changes; an earlier billing_from makes periods due again; a transfer ends the old partner''s plan.';
REVOKE ALL ON FUNCTION partner_portal.workspace_billing() FROM PUBLIC;

CREATE TRIGGER workspace_visibility BEFORE UPDATE OF invoice_visibility ON partner_portal.workspace
	FOR EACH ROW WHEN (OLD.invoice_visibility IS DISTINCT FROM NEW.invoice_visibility) EXECUTE FUNCTION partner_portal.workspace_billing();
CREATE TRIGGER workspace_billing AFTER UPDATE OF billing_from, partner_id ON partner_portal.workspace
	FOR EACH ROW EXECUTE FUNCTION partner_portal.workspace_billing();

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.plan_assignment'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.assign_price_plan(bigint, bigint, timestamptz)');
