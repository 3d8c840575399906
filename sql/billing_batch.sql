-- billing_batch.sql: the billing run: who is due, in bounded batches, and what becomes of a workspace that fails.

CREATE INDEX billing_period_late ON partner_portal.billing_period (workspace_id) WHERE late_facts_at IS NOT NULL;

-- Drafts are recomputed when they are due, and when facts of their period have come in.
CREATE FUNCTION partner_portal.due_periods(workspace_ids bigint[], as_of timestamptz)
	RETURNS TABLE (period partner_portal.billing_period, missing boolean, invoiced boolean)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT p, true, p.period_end > w.billing_from
	FROM partner_portal.billing_period p
	JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
	WHERE p.workspace_id = ANY (due_periods.workspace_ids) AND p.billed_at IS NULL AND p.closed_at IS NOT NULL AND p.period_end <= due_periods.as_of
	UNION ALL
	SELECT p, false, true
	FROM partner_portal.invoice i
	JOIN partner_portal.billing_period p ON p.workspace_id = i.workspace_id AND p.period_start = i.period_start
	JOIN partner_portal.workspace w ON w.workspace_id = i.workspace_id
	WHERE i.workspace_id = ANY (due_periods.workspace_ids) AND i.status = 'draft' AND i.document = 'invoice'
		AND ((i.finalize_after <= due_periods.as_of AND w.auto_finalize) OR p.late_facts_at > i.known_at);
END;
COMMENT ON FUNCTION partner_portal.due_periods(bigint[], timestamptz) IS
'Closed periods of workspaces that are still to be billed (missing; invoiced unless they are before billing_from), and those whose drafts are to be recomputed. Internal.';
REVOKE ALL ON FUNCTION partner_portal.due_periods(bigint[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.bill_periods(missing partner_portal.billing_period[], periods partner_portal.billing_period[], as_of timestamptz)
	RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.draft_invoices(periods, as_of);
	UPDATE partner_portal.billing_period p SET billed_at = clock_timestamp()
	FROM unnest(missing) m
	WHERE p.workspace_id = m.workspace_id AND p.period_start = m.period_start;
	RETURN QUERY
	SELECT p.workspace_id, tstzrange(p.period_start, p.period_end), i.invoice_id,
		CASE WHEN i.invoice_id IS NULL THEN 'closed' WHEN p.billed_at IS NULL THEN 'drafted' ELSE 'refreshed' END, NULL::text
	FROM (SELECT m.* FROM unnest(missing) m UNION SELECT o.* FROM unnest(periods) o) p
	LEFT JOIN partner_portal.invoice i ON i.workspace_id = p.workspace_id AND i.period_start = p.period_start AND i.document = 'invoice' AND i.status = 'draft'
	ORDER BY p.workspace_id, p.period_start;
END
$$;
COMMENT ON FUNCTION partner_portal.bill_periods(partner_portal.billing_period[], partner_portal.billing_period[], timestamptz) IS
'Drafts or recomputes the invoices of periods, and notes those that were missing as billed. The caller holds the workspaces'' locks. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_periods(partner_portal.billing_period[], partner_portal.billing_period[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.bill_workspaces(workspace_ids bigint[], as_of timestamptz) RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	missing partner_portal.billing_period[];
	periods partner_portal.billing_period[];
BEGIN
	PERFORM FROM partner_portal.close_claimed(workspace_ids, as_of);
	SELECT array_agg(d.period) FILTER (WHERE d.missing), array_agg(d.period) FILTER (WHERE d.invoiced) INTO missing, periods
	FROM partner_portal.due_periods(workspace_ids, as_of) d;
	IF missing IS NULL AND periods IS NULL THEN
		RETURN;
	END IF;
	RETURN QUERY SELECT * FROM partner_portal.bill_periods(missing, periods, as_of);
END
$$;
COMMENT ON FUNCTION partner_portal.bill_workspaces(bigint[], timestamptz) IS
'Closes what has ended, and drafts or recomputes the invoices of every missing period of workspaces, in order. The caller holds their locks. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_workspaces(bigint[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.is_own_fault(sqlstate text) RETURNS boolean
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT NOT (left(is_own_fault.sqlstate, 2) IN ('25', '40', '53', '57', '58') OR is_own_fault.sqlstate = '55P03');
END;
COMMENT ON FUNCTION partner_portal.is_own_fault(text) IS
'Whether an error is the fault of the workspace that is billed: not a conflict with another session, nor one of the whole server. Internal.';
REVOKE ALL ON FUNCTION partner_portal.is_own_fault(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.note_billing_failure(workspace_id bigint, period tstzrange, sqlstate text, message text) RETURNS partner_portal.billing_action
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	INSERT INTO partner_portal.billing_failure (workspace_id, partner_key, failed_at, sqlstate, message)
	SELECT w.workspace_id, w.partner_key, clock_timestamp(), note_billing_failure.sqlstate, note_billing_failure.message
	FROM partner_portal.workspace w WHERE w.workspace_id = note_billing_failure.workspace_id
	ON CONFLICT ON CONSTRAINT billing_failure_pkey DO UPDATE SET failed_at = excluded.failed_at, sqlstate = excluded.sqlstate, message = excluded.message;
	RETURN ROW(workspace_id, period, NULL, 'failed', sqlstate || ': ' || message)::partner_portal.billing_action;
END
$$;
COMMENT ON FUNCTION partner_portal.note_billing_failure(bigint, tstzrange, text, text) IS 'Records why a workspace could not be billed, and returns it as what a run did. Internal.';
REVOKE ALL ON FUNCTION partner_portal.note_billing_failure(bigint, tstzrange, text, text) FROM PUBLIC;

-- In order, so that whoever mends the plan of a period finds nothing billed after it.
CREATE FUNCTION partner_portal.bill_alone(workspace_id bigint, as_of timestamptz) RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	due record;
	done partner_portal.billing_action[];
	fault text;
BEGIN
	BEGIN
		PERFORM FROM partner_portal.close_claimed(ARRAY[workspace_id], as_of);
	EXCEPTION WHEN OTHERS THEN
		IF NOT partner_portal.is_own_fault(SQLSTATE) THEN
			RAISE;
		END IF;
		GET STACKED DIAGNOSTICS fault = MESSAGE_TEXT;
		RETURN NEXT partner_portal.note_billing_failure(workspace_id, NULL, SQLSTATE, fault);
		RETURN;
	END;
	FOR due IN SELECT d.* FROM partner_portal.due_periods(ARRAY[workspace_id], as_of) d ORDER BY (d.period).period_start LOOP
		BEGIN
			done := ARRAY(SELECT a FROM partner_portal.bill_periods(CASE WHEN due.missing THEN ARRAY[due.period] END, CASE WHEN due.invoiced THEN ARRAY[due.period] END, as_of) a);
		EXCEPTION WHEN OTHERS THEN
			IF NOT partner_portal.is_own_fault(SQLSTATE) THEN
				RAISE;
			END IF;
			GET STACKED DIAGNOSTICS fault = MESSAGE_TEXT;
			RETURN NEXT partner_portal.note_billing_failure(workspace_id, tstzrange((due.period).period_start, (due.period).period_end), SQLSTATE,
				format('period %s%s: %s%s', (due.period).label,
					(SELECT format(', by price plan %s', v.plan_id) FROM partner_portal.plan_at(workspace_id, (due.period).partner_key, (due.period).period_start) v), fault,
					CASE SQLSTATE WHEN '22003' THEN format('; the operator may assign another plan from %s on, with assign_price_plan()', (due.period).period_start) END));
			RETURN;
		END;
		RETURN QUERY SELECT * FROM unnest(done);
	END LOOP;
	DELETE FROM partner_portal.billing_failure f WHERE f.workspace_id = bill_alone.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.bill_alone(bigint, timestamptz) IS
'What bill_workspaces() does, for one workspace that failed there: its periods one after the other, up to the one that fails, which is recorded and stays to be billed with those after it. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_alone(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.due_documents(workspace_ids bigint[], as_of timestamptz) RETURNS bigint[]
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT array_agg(i.invoice_id ORDER BY i.workspace_id, i.period_start)
	FROM partner_portal.invoice i
	JOIN partner_portal.workspace w ON w.workspace_id = i.workspace_id
	JOIN partner_portal.billing_period p ON p.workspace_id = i.workspace_id AND p.period_start = i.period_start
	WHERE i.workspace_id = ANY (due_documents.workspace_ids) AND i.status = 'draft' AND i.document = 'invoice'
		AND i.finalize_after <= due_documents.as_of AND w.auto_finalize AND coalesce(i.taxed_subtotal_minor = i.subtotal_minor, true)
		AND (p.late_facts_at > i.known_at) IS NOT TRUE;
END;
COMMENT ON FUNCTION partner_portal.due_documents(bigint[], timestamptz) IS
'Drafts of workspaces whose grace is over and that finalize by themselves; not those that could not be recomputed after facts of their period came in. Internal.';
REVOKE ALL ON FUNCTION partner_portal.due_documents(bigint[], timestamptz) FROM PUBLIC;

-- A batch that fails is taken back and halved, down to the workspace that fails alone.
CREATE FUNCTION partner_portal.bill_batch(workspace_ids bigint[], as_of timestamptz, finalize boolean) RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	done partner_portal.billing_action[];
	half integer := cardinality(workspace_ids) / 2;
	state text;
	fault text;
BEGIN
	BEGIN
		IF finalize THEN
			SELECT array_agg(a) INTO done FROM partner_portal.finalize_documents(partner_portal.due_documents(workspace_ids, as_of), as_of) a;
		ELSE
			SELECT array_agg(a) INTO done FROM partner_portal.bill_workspaces(workspace_ids, as_of) a;
			DELETE FROM partner_portal.billing_failure f WHERE f.workspace_id = ANY (workspace_ids);
		END IF;
		RETURN QUERY SELECT * FROM unnest(done);
		RETURN;
	EXCEPTION WHEN OTHERS THEN
		IF NOT partner_portal.is_own_fault(SQLSTATE) THEN
			RAISE;
		END IF;
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, fault = MESSAGE_TEXT;
	END;
	IF half > 0 THEN
		RETURN QUERY SELECT * FROM partner_portal.bill_batch(workspace_ids[:half], as_of, finalize);
		RETURN QUERY SELECT * FROM partner_portal.bill_batch(workspace_ids[half + 1:], as_of, finalize);
	ELSIF finalize THEN
		RETURN NEXT partner_portal.note_billing_failure(workspace_ids[1], NULL, state, fault);
	ELSE
		RETURN QUERY SELECT * FROM partner_portal.bill_alone(workspace_ids[1], as_of);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.bill_batch(bigint[], timestamptz, boolean) IS
'Drafts (or finalizes) for a batch of workspaces; when it fails, for its halves, in sub-transactions; a workspace that fails alone is billed as far as it can be (bill_alone()), recorded in billing_failure and returned with its problem. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_batch(bigint[], timestamptz, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.claim_due(after bigint, as_of timestamptz, how_many integer) RETURNS bigint[]
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	claimed bigint[];
BEGIN
	SELECT array_agg(c.workspace_id) INTO claimed FROM (
		SELECT w.workspace_id FROM partner_portal.workspace w
		JOIN partner_portal.workspace_usage u ON u.workspace_id = w.workspace_id
		WHERE w.workspace_id > after
			AND (EXISTS (SELECT FROM partner_portal.billing_period p WHERE p.workspace_id = w.workspace_id AND p.billed_at IS NULL AND p.period_end <= as_of)
				OR EXISTS (SELECT FROM partner_portal.invoice i
					JOIN partner_portal.billing_period p ON p.workspace_id = i.workspace_id AND p.period_start = i.period_start
					WHERE i.workspace_id = w.workspace_id AND i.status = 'draft'
						AND ((i.finalize_after <= as_of AND w.auto_finalize AND coalesce(i.taxed_subtotal_minor = i.subtotal_minor, true)) OR p.late_facts_at > i.known_at)))
		ORDER BY w.workspace_id LIMIT how_many
		FOR NO KEY UPDATE OF w SKIP LOCKED FOR UPDATE OF u SKIP LOCKED) c;
	RETURN claimed;
END
$$;
COMMENT ON FUNCTION partner_portal.claim_due(bigint, timestamptz, integer) IS
'Locks and returns the next workspaces after an id that have something to bill; those that another session is busy with are left to it, or to the next run. Internal.';
REVOKE ALL ON FUNCTION partner_portal.claim_due(bigint, timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_as_of(as_of timestamptz) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.require_operator();
	IF as_of IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'as_of must not be null';
	ELSIF as_of NOT BETWEEN timestamptz '1900-01-01 00:00+00' AND timestamptz '2999-12-31 00:00+00' THEN
		RAISE EXCEPTION USING ERRCODE = 'datetime_field_overflow', MESSAGE = 'as_of is out of range';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.check_as_of(timestamptz) IS 'Returns for the operator and an instant of the years 1900 to 2999; else 42501, 22004, 22008. Internal.';
REVOKE ALL ON FUNCTION partner_portal.check_as_of(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.run_billing(as_of timestamptz DEFAULT now(), max_workspaces integer DEFAULT NULL) RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	claimed bigint[];
	billed bigint[] := '{}';
	counted integer := 0;
	actions partner_portal.billing_action[];
	drafted partner_portal.billing_action[] := '{}';
	finished partner_portal.billing_action[] := '{}';
BEGIN
	PERFORM partner_portal.check_as_of(as_of);
	IF max_workspaces < 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'max_workspaces must be at least 1';
	END IF;
	LOOP
		claimed := partner_portal.claim_due(coalesce(billed[cardinality(billed)], 0), as_of, least(500, max_workspaces - counted));
		EXIT WHEN claimed IS NULL;
		actions := ARRAY(SELECT a FROM partner_portal.bill_batch(claimed, as_of, false) a);
		drafted := drafted || actions;
		billed := billed || claimed;
		-- those that fail, however many, do not stand before the others
		counted := counted + cardinality(claimed) - (SELECT count(*) FROM unnest(actions) a WHERE a.action = 'failed');
		EXIT WHEN counted >= max_workspaces;
	END LOOP;
	IF billed <> '{}' THEN
		finished := ARRAY(SELECT a FROM partner_portal.bill_batch(billed, as_of, true) a);
	END IF;
	RETURN QUERY
	SELECT d.workspace_id, d.period, d.invoice_id, coalesce(f.action, d.action), coalesce(f.problem, d.problem)
	FROM unnest(drafted) d
	LEFT JOIN unnest(finished) f ON f.workspace_id = d.workspace_id AND f.invoice_id = d.invoice_id
	UNION ALL
	SELECT f.* FROM unnest(finished) f WHERE NOT EXISTS (SELECT FROM unnest(drafted) d WHERE d.workspace_id = f.workspace_id AND d.invoice_id = f.invoice_id)
	ORDER BY 1, 2;
END
$$;
COMMENT ON FUNCTION partner_portal.run_billing(timestamptz, integer) IS
'Closes every billing period that ended by as_of, drafts every missing invoice in order, finalizes what is past its grace, and returns what it did: closed (no document), drafted, refreshed, finalized, empty or failed, with the problem. A workspace that fails does not stop the others: its periods before the one that fails are billed, those from there on wait until it is mended (see billing_health()). One that another session is busy with is left to the next run. Safe to repeat. max_workspaces bounds how many are billed, those that fail apart. In one transaction: for many workspaces CALL run_due_billing(). Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.run_billing(timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.bill_next(as_of timestamptz, after bigint, how_many integer) RETURNS bigint
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	claimed bigint[];
	failed record;
BEGIN
	PERFORM partner_portal.check_as_of(as_of);
	IF how_many IS NULL OR how_many NOT BETWEEN 1 AND 100000 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'batch_size must be from 1 to 100000';
	END IF;
	claimed := partner_portal.claim_due(after, as_of, how_many);
	IF claimed IS NULL THEN
		RETURN NULL;
	END IF;
	FOR failed IN SELECT a.* FROM partner_portal.bill_batch(claimed, as_of, false) a WHERE a.action = 'failed'
		UNION ALL SELECT a.* FROM partner_portal.bill_batch(claimed, as_of, true) a WHERE a.action = 'failed'
	LOOP
		RAISE WARNING USING MESSAGE = format('workspace %s could not be billed', failed.workspace_id), DETAIL = failed.problem, HINT = 'See billing_health().';
	END LOOP;
	RETURN claimed[cardinality(claimed)];
END
$$;
COMMENT ON FUNCTION partner_portal.bill_next(timestamptz, bigint, integer) IS
'Bills the next batch of workspaces after an id as run_billing() does, and returns the last one''s id, NULL when none is left. Operator only (42501); for run_due_billing().';
REVOKE ALL ON FUNCTION partner_portal.bill_next(timestamptz, bigint, integer) FROM PUBLIC;

CREATE PROCEDURE partner_portal.run_due_billing(as_of timestamptz DEFAULT now(), batch_size integer DEFAULT 500)
	LANGUAGE plpgsql AS $$
DECLARE
	billed bigint := 0;
BEGIN
	LOOP
		billed := partner_portal.bill_next(as_of, billed, batch_size);
		COMMIT;
		EXIT WHEN billed IS NULL;
	END LOOP;
END
$$;
COMMENT ON PROCEDURE partner_portal.run_due_billing(timestamptz, integer) IS
'Does what run_billing() does in batches of workspaces with a commit each; sessions that call it at once share the work, and it may be killed anywhere and called again. Failures are warnings, and in billing_health(). By a superuser with nobody signed in (42501), since an identity ends with each commit.';
REVOKE ALL ON PROCEDURE partner_portal.run_due_billing(timestamptz, integer) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'EXECUTE', 'FUNCTION partner_portal.run_billing(timestamptz, integer)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.bill_next(timestamptz, bigint, integer)'),
	('operator', 'EXECUTE', 'PROCEDURE partner_portal.run_due_billing(timestamptz, integer)');
