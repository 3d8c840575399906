-- access_consent.sql: how a customer and a partner come to an agreement about access, and how it ends.
--
-- Locks are taken in this order: workspace, invitation, grant, other grants, members. Who writes keys or products by a grant holds
-- it FOR SHARE (hold_grant), so that an end waits for the writes it would else overtake.

CREATE FUNCTION partner_portal.checked_terms(scope text, products bigint[], categories text[], wallet boolean, rights text[], expires_at timestamptz) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	terms partner_portal.access_grant;
	category text;
BEGIN
	IF scope IS NULL OR rights IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = CASE WHEN scope IS NULL THEN 'scope' ELSE 'rights' END || ' must not be null';
	END IF;
	IF scope NOT IN ('limited', 'complete') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown scope "%s"', left(scope, 64)), HINT = 'Scopes are limited and complete.';
	END IF;
	IF array_ndims(products) > 1 OR array_ndims(categories) > 1 OR array_ndims(rights) > 1
		OR array_position(products, NULL) IS NOT NULL OR array_position(categories, NULL) IS NOT NULL
	THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'products, categories and rights must be lists without null';
	END IF;
	IF cardinality(rights) = 0 OR NOT rights <@ '{read,manage}' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'rights must be read, manage or both';
	END IF;
	IF cardinality(products) > 1000 OR cardinality(categories) > 100 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'too many products or categories',
			DETAIL = 'A grant names at most 1000 products and 100 categories.';
	END IF;
	FOREACH category IN ARRAY coalesce(categories, '{}') LOOP
		PERFORM partner_portal.checked_text('category', category, 60);
	END LOOP;
	IF expires_at IS NOT NULL AND NOT (expires_at > clock_timestamp() AND expires_at < timestamptz '3000-01-01 00:00+00') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'expires_at must be in the future', HINT = 'Leave it out for access that lasts until it is ended.';
	END IF;
	terms.scope := scope;
	terms.rights := ARRAY(SELECT DISTINCT r FROM unnest(rights) r ORDER BY 1);
	terms.products := ARRAY(SELECT DISTINCT p FROM unnest(products) p ORDER BY 1);
	terms.categories := ARRAY(SELECT DISTINCT c FROM unnest(categories) c ORDER BY 1);
	terms.wallet := wallet;
	terms.expires_at := expires_at;
	IF scope = 'limited' THEN
		IF cardinality(terms.products) + cardinality(terms.categories) = 0 THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'limited access needs a product or a category';
		END IF;
		IF wallet THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'the wallet goes with complete access only';
		END IF;
	ELSE
		IF cardinality(terms.products) + cardinality(terms.categories) > 0 THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'complete access names no products or categories';
		END IF;
		IF wallet IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'complete access needs the wallet answered',
				HINT = 'Say wallet => true if the partner is to pay for the workspace, else false.';
		END IF;
	END IF;
	RETURN terms;
END
$$;
COMMENT ON FUNCTION partner_portal.checked_terms(text, bigint[], text[], boolean, text[], timestamptz) IS
'Returns the terms of a grant in order: 22004, 22023 what makes no sense. Whether the products exist is for the grantor''s functions. Internal.';
REVOKE ALL ON FUNCTION partner_portal.checked_terms(text, bigint[], text[], boolean, text[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.require_products(workspace_id bigint, products bigint[]) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	missing bigint;
BEGIN
	SELECT u.id INTO missing FROM unnest(products) u (id)
	WHERE NOT EXISTS (SELECT FROM partner_portal.product p WHERE p.workspace_id = require_products.workspace_id AND p.product_id = u.id)
	ORDER BY 1 LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('product %s not found', missing);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.require_products(bigint, bigint[]) IS 'Returns when a workspace has all these products; else P0002. Internal.';
REVOKE ALL ON FUNCTION partner_portal.require_products(bigint, bigint[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.people_in_charge(workspace_id bigint, roles text[]) RETURNS text[]
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT array_agg(a.email ORDER BY m.accepted_at, m.account_id)
	FROM partner_portal.member m
	JOIN partner_portal.account a ON a.account_id = m.account_id
	WHERE m.workspace_id = people_in_charge.workspace_id AND m.role = ANY (people_in_charge.roles) AND m.accepted_at IS NOT NULL AND a.disabled_at IS NULL
		AND coalesce(m.ends_at > now(), true);
END;
COMMENT ON FUNCTION partner_portal.people_in_charge(bigint, text[]) IS 'Addresses of the people of a workspace with one of these roles, the first of them first; internal.';
REVOKE ALL ON FUNCTION partner_portal.people_in_charge(bigint, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.grant_link(grant_id bigint) RETURNS text
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT rtrim(current_setting('partner_portal.link_base_url'), '/') || '/grants/' || grant_id;
END;
COMMENT ON FUNCTION partner_portal.grant_link(bigint) IS 'Where a mail about a grant points: <partner_portal.link_base_url>/grants/<grant_id>. Internal.';
REVOKE ALL ON FUNCTION partner_portal.grant_link(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_about_grant(about partner_portal.access_grant, kind text, occasion text, to_workspace bigint,
	english partner_portal.mail_content, german partner_portal.mail_content) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.enqueue_mail((about).workspace_id, mail_about_grant.kind, format('%s:%s:%s:%s', (about).grant_id, occasion, to_workspace, r.n), r.email,
		r.locale, CASE WHEN partner_portal.mail_is_german(r.locale) THEN german ELSE english END)
	FROM (SELECT u.email, u.n, (SELECT a.locale FROM partner_portal.account a WHERE lower(a.email COLLATE "C") = lower(u.email COLLATE "C")) AS locale
		FROM unnest(partner_portal.people_in_charge(to_workspace, '{owner}')) WITH ORDINALITY AS u (email, n)
		WHERE u.n <= 20) r;
END
$$;
COMMENT ON FUNCTION partner_portal.mail_about_grant(partner_portal.access_grant, text, text, bigint, partner_portal.mail_content, partner_portal.mail_content) IS
'Owes the owners of one side a mail about a grant, each in their language, once per occasion; internal.';
REVOKE ALL ON FUNCTION partner_portal.mail_about_grant(partner_portal.access_grant, text, text, bigint, partner_portal.mail_content, partner_portal.mail_content) FROM PUBLIC;

CREATE FUNCTION partner_portal.send_offer(offered partner_portal.access_grant) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wanted partner_portal.invitation;
	recipients text[] := partner_portal.people_in_charge((offered).partner_id, '{owner}');
BEGIN
	IF recipients IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has no owner who could accept', (offered).partner_id);
	END IF;
	wanted.workspace_id := (offered).workspace_id;
	wanted.partner_key := (offered).partner_id;
	wanted.kind := 'access';
	wanted.email := recipients[1];
	wanted.grant_id := (offered).grant_id;
	wanted.details := jsonb_strip_nulls(jsonb_build_object('scope', (offered).scope, 'products', nullif((offered).products, '{}'), 'categories', nullif((offered).categories, '{}'),
		'rights', (offered).rights, 'wallet', (offered).wallet, 'expires_at', (offered).expires_at));
	PERFORM partner_portal.create_invitation(wanted, recipients);
END
$$;
COMMENT ON FUNCTION partner_portal.send_offer(partner_portal.access_grant) IS 'Invites the owners of a partner to accept a grant; PP005 it has none. Internal.';
REVOKE ALL ON FUNCTION partner_portal.send_offer(partner_portal.access_grant) FROM PUBLIC;

CREATE FUNCTION partner_portal.find_partner(search text) RETURNS TABLE (partner_id bigint, company_name text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	PERFORM partner_portal.checked_text('text to search for', search, 320);
	RETURN QUERY
	SELECT w.workspace_id, w.company_name
	FROM partner_portal.partner p
	JOIN partner_portal.workspace w ON w.workspace_id = p.partner_id
	WHERE w.deleted_at IS NULL AND (starts_with(lower(w.company_name), lower(search))
		OR (position('@' IN search) > 0 AND EXISTS (
			SELECT FROM partner_portal.account a
			JOIN partner_portal.member m ON m.account_id = a.account_id
			WHERE lower(a.email COLLATE "C") = lower(search COLLATE "C") AND m.workspace_id = w.workspace_id
				AND m.role IN ('owner', 'administrator') AND m.accepted_at IS NOT NULL)))
	ORDER BY w.company_name, w.workspace_id
	LIMIT 50;
END
$$;
COMMENT ON FUNCTION partner_portal.find_partner(text) IS
'Partners whose name begins with a text, without regard to case, or of which a given e-mail address is an owner''s or administrator''s: id and name only, at most 50. For whoever is signed in (42501); 22004, 22001, 22023.';
REVOKE ALL ON FUNCTION partner_portal.find_partner(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.offer_access(workspace_id bigint, partner_id bigint, scope text, products bigint[] DEFAULT '{}', categories text[] DEFAULT '{}',
		wallet boolean DEFAULT NULL, rights text[] DEFAULT '{read,manage}', expires_at timestamptz DEFAULT NULL) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	terms partner_portal.access_grant;
	offered partner_portal.access_grant;
BEGIN
	PERFORM partner_portal.authorized_live_workspace('grant_access', workspace_id);
	terms := partner_portal.checked_terms(scope, products, categories, wallet, rights, expires_at);
	IF partner_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'partner_id must not be null';
	END IF;
	IF NOT EXISTS (SELECT FROM partner_portal.partner p JOIN partner_portal.workspace w ON w.workspace_id = p.partner_id
		WHERE p.partner_id = offer_access.partner_id AND w.deleted_at IS NULL)
	THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('partner %s not found', partner_id);
	END IF;
	IF partner_id = workspace_id THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a partner needs no access to itself';
	END IF;
	PERFORM partner_portal.require_products(workspace_id, terms.products);
	INSERT INTO partner_portal.access_grant AS g (workspace_id, partner_id, scope, products, categories, wallet, rights, expires_at, state, created_by)
	VALUES (offer_access.workspace_id, offer_access.partner_id, terms.scope, terms.products, terms.categories, terms.wallet, terms.rights, terms.expires_at,
		'offered', partner_portal.current_account_id())
	ON CONFLICT (workspace_id, partner_id) WHERE state IN ('requested', 'offered') DO NOTHING
	RETURNING g.* INTO offered;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('an offer to partner %s, or its request, is still open', partner_id),
			HINT = 'End the offer with end_access(), or answer the request with accept_access(), counter_offer() or decline_access().';
	END IF;
	PERFORM partner_portal.send_offer(offered);
	RETURN offered;
END
$$;
COMMENT ON FUNCTION partner_portal.offer_access(bigint, bigint, text, bigint[], text[], boolean, text[], timestamptz) IS
'Offers a partner access to a workspace: limited to products and categories, or complete, where the wallet must be answered. The partner''s owners get a mail with a link; access exists from acceptance on, and then takes the place of what the partner had. By the workspace''s owner. 42501; P0002 no such workspace, partner or product; 22023; PP005 the workspace is deleted, or an offer or request is open; 53400.';
REVOKE ALL ON FUNCTION partner_portal.offer_access(bigint, bigint, text, bigint[], text[], boolean, text[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.request_access(workspace_id bigint, scope text DEFAULT 'complete', products bigint[] DEFAULT '{}', categories text[] DEFAULT '{}',
		wallet boolean DEFAULT false, rights text[] DEFAULT '{read,manage}', expires_at timestamptz DEFAULT NULL, message text DEFAULT NULL,
		partner_id bigint DEFAULT NULL) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asking partner_portal.partner := partner_portal.authorized_partner(partner_id);
	terms partner_portal.access_grant := partner_portal.checked_terms(scope, products, categories, CASE WHEN scope = 'limited' THEN nullif(wallet, false) ELSE wallet END, rights, expires_at);
	requested partner_portal.access_grant;
	partner_name text;
BEGIN
	IF workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
	END IF;
	IF message IS NOT NULL THEN
		PERFORM partner_portal.checked_text('message', message, 1000);
	END IF;
	IF workspace_id = asking.partner_id THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a partner needs no access to itself';
	END IF;
	PERFORM partner_portal.use_allowance(partner_portal.current_account_id());
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = request_access.workspace_id AND w.deleted_at IS NULL FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', workspace_id);
	END IF;
	INSERT INTO partner_portal.access_grant AS g (workspace_id, partner_id, scope, products, categories, wallet, rights, expires_at, state, asked, message, created_by)
	VALUES (request_access.workspace_id, asking.partner_id, terms.scope, terms.products, terms.categories, terms.wallet, terms.rights, terms.expires_at, 'requested',
		jsonb_strip_nulls(jsonb_build_object('scope', terms.scope, 'products', nullif(terms.products, '{}'), 'categories', nullif(terms.categories, '{}'),
			'rights', terms.rights, 'wallet', terms.wallet, 'expires_at', terms.expires_at)),
		request_access.message, partner_portal.current_account_id())
	ON CONFLICT (workspace_id, partner_id) WHERE state IN ('requested', 'offered') DO NOTHING
	RETURNING g.* INTO requested;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('a request to workspace %s, or its offer, is still open', workspace_id),
			HINT = 'End the request with end_access(), or answer the offer.';
	END IF;
	SELECT w.company_name INTO partner_name FROM partner_portal.workspace w WHERE w.workspace_id = asking.partner_id;
	PERFORM partner_portal.mail_about_grant(requested, 'access_request', 'requested', requested.workspace_id,
		partner_portal.mail_access_request('en', partner_name, message, partner_portal.grant_link(requested.grant_id)),
		partner_portal.mail_access_request('de', partner_name, message, partner_portal.grant_link(requested.grant_id)));
	RETURN requested;
END
$$;
COMMENT ON FUNCTION partner_portal.request_access(bigint, text, bigint[], text[], boolean, text[], timestamptz, text, bigint) IS
'Asks a workspace for access, in the name of a partner, NULL being the identity''s own; its owners get a mail and may grant as asked (accept_access), something else (counter_offer) or nothing (decline_access). For the partner''s owner or administrator, also of a workspace that it cannot see: whoever knows its id may ask. 42501; P0002; 22023; PP005 a request or offer is open; 53400.';
REVOKE ALL ON FUNCTION partner_portal.request_access(bigint, text, bigint[], text[], boolean, text[], timestamptz, text, bigint) FROM PUBLIC;

-- Parts of the functions below; they ask nobody's permission.

CREATE FUNCTION partner_portal.end_grant(ending partner_portal.access_grant, new_state text, at timestamptz, reason text) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	ended partner_portal.access_grant;
BEGIN
	UPDATE partner_portal.access_grant g
	SET state = new_state, ended_at = at, ended_by = partner_portal.current_account_id(), end_reason = reason,
		wallet_until = CASE WHEN g.wallet_since IS NOT NULL THEN coalesce(g.wallet_until, at) END
	WHERE g.workspace_id = (ending).workspace_id AND g.grant_id = (ending).grant_id AND g.state = (ending).state
	RETURNING g.* INTO ended;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s has changed meanwhile', (ending).grant_id);
	END IF;
	DELETE FROM partner_portal.member m WHERE m.workspace_id = ended.workspace_id AND m.grant_id = ended.grant_id;
	RETURN ended;
END
$$;
COMMENT ON FUNCTION partner_portal.end_grant(partner_portal.access_grant, text, timestamptz, text) IS 'Ends a grant, and the memberships that go with it; internal.';
REVOKE ALL ON FUNCTION partner_portal.end_grant(partner_portal.access_grant, text, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.start_grant(starting partner_portal.access_grant) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	started partner_portal.access_grant;
	former partner_portal.access_grant;
	payer partner_portal.access_grant;
	customer text;
	at timestamptz := clock_timestamp();
BEGIN
	SELECT g.* INTO former FROM partner_portal.access_grant g
	WHERE g.workspace_id = (starting).workspace_id AND g.partner_id = (starting).partner_id AND g.state = 'active'
	FOR UPDATE;
	IF FOUND THEN
		-- who came by the former one stays by this one
		UPDATE partner_portal.member m SET grant_id = (starting).grant_id, ends_at = (starting).expires_at,
			role = CASE (starting).scope WHEN 'complete' THEN 'member' ELSE m.role END
		WHERE m.workspace_id = former.workspace_id AND m.grant_id = former.grant_id;
		PERFORM partner_portal.end_grant(former, 'ended', at, 'replaced');
	END IF;
	IF (starting).wallet THEN
		UPDATE partner_portal.access_grant g SET wallet_until = greatest(g.wallet_since, least(at, g.expires_at))
		WHERE g.workspace_id = (starting).workspace_id AND g.wallet_since IS NOT NULL AND g.wallet_until IS NULL
		RETURNING g.* INTO payer;
		IF payer.partner_id <> (starting).partner_id AND coalesce(payer.expires_at > at, true) THEN
			SELECT w.company_name INTO customer FROM partner_portal.workspace w WHERE w.workspace_id = payer.workspace_id;
			PERFORM partner_portal.mail_about_grant(payer, 'wallet_moved', (starting).grant_id::text, payer.partner_id,
				partner_portal.mail_wallet_moved('en', customer, partner_portal.grant_link(payer.grant_id)),
				partner_portal.mail_wallet_moved('de', customer, partner_portal.grant_link(payer.grant_id)));
		END IF;
	END IF;
	UPDATE partner_portal.access_grant g
	SET state = 'active', accepted_at = at, accepted_by = coalesce((starting).accepted_by, partner_portal.current_account_id()), wallet_since = CASE WHEN g.wallet THEN at END
	WHERE g.workspace_id = (starting).workspace_id AND g.grant_id = (starting).grant_id AND g.state = (starting).state
	RETURNING g.* INTO started;
	IF NOT FOUND OR started.expires_at <= at THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is not open any more', (starting).grant_id);
	END IF;
	-- the partner's people who were members or guests already are so by the grant from now on
	UPDATE partner_portal.member m
	SET grant_id = started.grant_id, ends_at = started.expires_at, role = CASE started.scope WHEN 'complete' THEN 'member' ELSE m.role END
	WHERE m.workspace_id = started.workspace_id AND m.role IN ('member', 'guest') AND m.accepted_at IS NOT NULL AND m.grant_id IS NULL
		AND EXISTS (SELECT FROM partner_portal.member p
			WHERE p.workspace_id = started.partner_id AND p.account_id = m.account_id AND p.role IN ('owner', 'administrator') AND p.accepted_at IS NOT NULL);
	RETURN started;
END
$$;
COMMENT ON FUNCTION partner_portal.start_grant(partner_portal.access_grant) IS
'Makes an open grant active in place of the partner''s former one; the wallet moves to it, and a partner that held it is told so by mail; owners and administrators of the partner who were members or guests of the workspace become so by the grant, and end with it. Internal.';
REVOKE ALL ON FUNCTION partner_portal.start_grant(partner_portal.access_grant) FROM PUBLIC;

CREATE FUNCTION partner_portal.close_offer(closing partner_portal.access_grant, new_state text, account_id bigint) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	closed partner_portal.invitation;
BEGIN
	UPDATE partner_portal.invitation i
	SET state = new_state, finished_at = clock_timestamp(), account_id = CASE new_state WHEN 'accepted' THEN close_offer.account_id END,
		accepted_workspace_id = CASE new_state WHEN 'accepted' THEN i.workspace_id END
	WHERE i.workspace_id = (closing).workspace_id AND i.grant_id = (closing).grant_id AND i.state = 'pending'
	RETURNING i.* INTO closed;
	IF FOUND THEN
		PERFORM partner_portal.cancel_invitation_mail(closed);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.close_offer(partner_portal.access_grant, text, bigint) IS 'Answers the invitation of an offer that was answered or taken back without its token; internal.';
REVOKE ALL ON FUNCTION partner_portal.close_offer(partner_portal.access_grant, text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.partys_grant(grant_id bigint, OUT side text, OUT found_grant partner_portal.access_grant)
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	IF grant_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'grant_id must not be null';
	END IF;
	SELECT g.* INTO found_grant FROM partner_portal.access_grant g WHERE g.grant_id = partys_grant.grant_id;
	side := CASE WHEN found_grant.grant_id IS NULL THEN NULL
		WHEN partner_portal.is_operator() THEN 'both'
		WHEN partner_portal.may('grant_access', found_grant.workspace_id) THEN 'customer'
		WHEN partner_portal.may('manage_portals', found_grant.partner_id) THEN 'partner' END;
	IF side IS NULL THEN
		IF found_grant.grant_id IS NOT NULL AND found_grant.workspace_id = partner_portal.own_workspace('read') THEN
			RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('permission "grant_access" denied on workspace %s', found_grant.workspace_id);
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('access grant %s not found', grant_id);
	END IF;
	-- an end waits for nobody but those who write by the grant
	IF found_grant.state <> 'active' THEN
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = found_grant.workspace_id FOR NO KEY UPDATE;
		PERFORM FROM partner_portal.invitation i
		WHERE i.workspace_id = found_grant.workspace_id AND i.grant_id = found_grant.grant_id AND i.state = 'pending' FOR NO KEY UPDATE;
	END IF;
	SELECT g.* INTO found_grant FROM partner_portal.access_grant g
	WHERE g.workspace_id = found_grant.workspace_id AND g.grant_id = found_grant.grant_id
	FOR UPDATE;
	IF found_grant.ended_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is %s', grant_id, found_grant.state);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.partys_grant(bigint) IS
'Returns a grant that has not ended, locked, and whose side asks: customer (its owner), partner (its owner or administrator), both (the operator). 42501, 22004, P0002; PP005 it has ended. Internal.';
REVOKE ALL ON FUNCTION partner_portal.partys_grant(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_access(grant_id bigint) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked record := partner_portal.partys_grant(grant_id);
	answered partner_portal.access_grant := asked.found_grant;
BEGIN
	IF answered.state = 'active' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is active already', grant_id);
	END IF;
	IF asked.side <> 'both' AND asked.side <> (CASE answered.state WHEN 'offered' THEN 'partner' ELSE 'customer' END) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('access grant %s is for the other side to accept', grant_id);
	END IF;
	PERFORM partner_portal.require_products(answered.workspace_id, CASE answered.state WHEN 'requested' THEN answered.products END);
	PERFORM partner_portal.close_offer(answered, CASE WHEN partner_portal.current_account_id() IS NULL THEN 'withdrawn' ELSE 'accepted' END, partner_portal.current_account_id());
	RETURN partner_portal.start_grant(answered);
END
$$;
COMMENT ON FUNCTION partner_portal.accept_access(bigint) IS
'Says yes to an offer (the partner''s owner or administrator) or to a request as it was asked (the customer''s owner): access exists from now on. 42501 the other side''s to say; P0002; PP005 it is active, or has ended.';
REVOKE ALL ON FUNCTION partner_portal.accept_access(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.terms_within(given partner_portal.access_grant, asked partner_portal.access_grant) RETURNS boolean
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT (given).rights <@ (asked).rights AND (coalesce((asked).wallet, false) OR NOT coalesce((given).wallet, false))
		AND coalesce((given).expires_at <= (asked).expires_at, (asked).expires_at IS NULL)
		AND CASE (asked).scope WHEN 'complete' THEN true
			ELSE (given).scope = 'limited' AND (given).products <@ (asked).products AND (given).categories <@ (asked).categories END;
END;
COMMENT ON FUNCTION partner_portal.terms_within(partner_portal.access_grant, partner_portal.access_grant) IS
'Whether what is given is no more than what was asked for, the wallet included; internal.';
REVOKE ALL ON FUNCTION partner_portal.terms_within(partner_portal.access_grant, partner_portal.access_grant) FROM PUBLIC;

CREATE FUNCTION partner_portal.counter_offer(grant_id bigint, scope text, products bigint[] DEFAULT '{}', categories text[] DEFAULT '{}',
		wallet boolean DEFAULT NULL, rights text[] DEFAULT '{read,manage}', expires_at timestamptz DEFAULT NULL) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked record := partner_portal.partys_grant(grant_id);
	request partner_portal.access_grant := asked.found_grant;
	terms partner_portal.access_grant := partner_portal.checked_terms(scope, products, categories, wallet, rights, expires_at);
	answered partner_portal.access_grant;
BEGIN
	IF asked.side = 'partner' THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('access grant %s is for the other side to answer', grant_id);
	END IF;
	IF request.state <> 'requested' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is no request', grant_id);
	END IF;
	PERFORM partner_portal.require_products(request.workspace_id, terms.products);
	UPDATE partner_portal.access_grant g
	SET scope = terms.scope, products = terms.products, categories = terms.categories, wallet = terms.wallet, rights = terms.rights,
		expires_at = terms.expires_at, state = 'offered'
	WHERE g.workspace_id = request.workspace_id AND g.grant_id = request.grant_id
	RETURNING g.* INTO answered;
	-- both have agreed to what lies within the request
	IF partner_portal.terms_within(terms, request) THEN
		RETURN partner_portal.start_grant(answered);
	END IF;
	PERFORM partner_portal.send_offer(answered);
	RETURN answered;
END
$$;
COMMENT ON FUNCTION partner_portal.counter_offer(bigint, text, bigint[], text[], boolean, text[], timestamptz) IS
'Answers a partner''s request with other terms. What lies within the request is active at once; anything more, the wallet say, is an offer that the partner must accept. By the customer''s owner. 42501; P0002; 22023; PP005 it is no request, or has ended.';
REVOKE ALL ON FUNCTION partner_portal.counter_offer(bigint, text, bigint[], text[], boolean, text[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.end_access(grant_id bigint, reason text DEFAULT NULL) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked record := partner_portal.partys_grant(grant_id);
	ending partner_portal.access_grant := asked.found_grant;
	new_state text;
BEGIN
	IF reason IS NOT NULL THEN
		PERFORM partner_portal.checked_reason(reason);
	END IF;
	new_state := CASE ending.state WHEN 'active' THEN 'ended'
		WHEN 'offered' THEN CASE asked.side WHEN 'partner' THEN 'declined' ELSE 'withdrawn' END
		ELSE CASE asked.side WHEN 'customer' THEN 'declined' ELSE 'withdrawn' END END;
	PERFORM partner_portal.close_offer(ending, new_state, NULL);
	RETURN partner_portal.end_grant(ending, new_state, clock_timestamp(), reason);
END
$$;
COMMENT ON FUNCTION partner_portal.end_access(bigint, text) IS
'Ends access, by the customer''s owner or the partner''s owner or administrator, at any time; an offer or request that is open is taken back or refused. It holds from the next statement of every session once it is committed, open transactions included; it waits for transactions that are writing by the grant. 42501; P0002; PP005 it has ended already.';
REVOKE ALL ON FUNCTION partner_portal.end_access(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.decline_access(grant_id bigint, reason text DEFAULT NULL) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked record := partner_portal.partys_grant(grant_id);
BEGIN
	IF (asked.found_grant).state = 'active' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is active already', grant_id), HINT = 'End it with end_access().';
	END IF;
	RETURN partner_portal.end_access(grant_id, reason);
END
$$;
COMMENT ON FUNCTION partner_portal.decline_access(bigint, text) IS
'Refuses an offer or a request; one''s own is taken back. 42501; P0002; PP005 it is active, or has ended.';
REVOKE ALL ON FUNCTION partner_portal.decline_access(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.extend_access(grant_id bigint, expires_at timestamptz) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked record := partner_portal.partys_grant(grant_id);
	extended partner_portal.access_grant := asked.found_grant;
BEGIN
	IF asked.side = 'partner' THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('only the owner of workspace %s may extend its access', extended.workspace_id);
	END IF;
	IF extended.state <> 'active' OR extended.expires_at <= clock_timestamp() THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is not active', grant_id), HINT = 'Offer access anew.';
	END IF;
	IF expires_at IS NOT NULL AND NOT (expires_at > clock_timestamp() AND expires_at < timestamptz '3000-01-01 00:00+00') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'expires_at must be in the future', HINT = 'Use end_access() to end it now.';
	END IF;
	UPDATE partner_portal.access_grant g SET expires_at = extend_access.expires_at, extended_at = clock_timestamp()
	WHERE g.workspace_id = extended.workspace_id AND g.grant_id = extended.grant_id
	RETURNING g.* INTO extended;
	UPDATE partner_portal.member m SET ends_at = extended.expires_at
	WHERE m.workspace_id = extended.workspace_id AND m.grant_id = extended.grant_id;
	RETURN extended;
END
$$;
COMMENT ON FUNCTION partner_portal.extend_access(bigint, timestamptz) IS
'Sets another expiry of active access, later or earlier; NULL lets it last until it is ended. By the customer''s owner. 42501; P0002; 22023 not in the future; PP005 it is not active any more.';
REVOKE ALL ON FUNCTION partner_portal.extend_access(bigint, timestamptz) FROM PUBLIC;

-- By the link of the mail.

CREATE FUNCTION partner_portal.accept_access_invitation(invitation partner_portal.invitation) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	offered partner_portal.access_grant;
BEGIN
	SELECT g.* INTO offered FROM partner_portal.access_grant g
	WHERE g.workspace_id = (invitation).workspace_id AND g.grant_id = (invitation).grant_id AND g.state = 'offered'
	FOR UPDATE;
	IF NOT FOUND OR offered.expires_at <= clock_timestamp() THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	-- in one update: a second one would check the foreign keys, and wait for the partner's being deleted, which waits for this
	offered.accepted_by := (invitation).account_id;
	PERFORM partner_portal.start_grant(offered);
	RETURN offered.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_access_invitation(partner_portal.invitation) IS 'Makes the grant of an invitation active; PP002 it is not offered any more. Internal.';
REVOKE ALL ON FUNCTION partner_portal.accept_access_invitation(partner_portal.invitation) FROM PUBLIC;

CREATE FUNCTION partner_portal.finish_offer(invitation partner_portal.invitation, new_state text) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE partner_portal.access_grant g SET state = new_state, ended_at = clock_timestamp(), ended_by = partner_portal.current_account_id()
	WHERE g.workspace_id = (invitation).workspace_id AND g.grant_id = (invitation).grant_id AND g.state = 'offered';
END
$$;
COMMENT ON FUNCTION partner_portal.finish_offer(partner_portal.invitation, text) IS 'Ends the offer whose invitation was declined or withdrawn; nothing for other kinds. Internal.';
REVOKE ALL ON FUNCTION partner_portal.finish_offer(partner_portal.invitation, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.consent_follows() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	just_deleted boolean := OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL;
	ending partner_portal.access_grant;
BEGIN
	IF TG_OP = 'INSERT' AND partner_portal.restoring_session() THEN
		RETURN NULL;
	END IF;
	FOR ending IN
		SELECT g.* FROM partner_portal.access_grant g
		WHERE g.ended_at IS NULL AND (
			(g.workspace_id = NEW.workspace_id AND (just_deleted OR (NEW.partner_key <> OLD.partner_key AND g.partner_id = OLD.partner_key)))
			OR (g.partner_id = NEW.workspace_id AND (just_deleted OR NEW.kind <> OLD.kind)))
		ORDER BY g.workspace_id, g.grant_id
	LOOP
		-- the other side may be answering, or ending it
		PERFORM FROM partner_portal.invitation i
		WHERE i.workspace_id = ending.workspace_id AND i.grant_id = ending.grant_id AND i.state = 'pending' FOR NO KEY UPDATE;
		SELECT g.* INTO ending FROM partner_portal.access_grant g
		WHERE g.workspace_id = ending.workspace_id AND g.grant_id = ending.grant_id AND g.ended_at IS NULL
		FOR UPDATE;
		CONTINUE WHEN NOT FOUND;
		PERFORM partner_portal.close_offer(ending, 'withdrawn', NULL);
		PERFORM partner_portal.end_grant(ending, CASE ending.state WHEN 'active' THEN 'ended' ELSE 'withdrawn' END, clock_timestamp(),
			CASE WHEN just_deleted THEN 'deleted' WHEN NEW.kind <> OLD.kind THEN 'no partner any more' ELSE 'transferred' END);
	END LOOP;
	-- the second consent was given to the partner of before
	IF NEW.partner_key <> OLD.partner_key THEN
		UPDATE partner_portal.product p SET partner_access = false WHERE p.workspace_id = NEW.workspace_id AND p.partner_access;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.consent_follows() IS
'Trigger of workspace: grants end when either side is deleted, when the partner is none any more, and with a transfer those to the partner it leaves; a transfer also closes the products to the partner.';
REVOKE ALL ON FUNCTION partner_portal.consent_follows() FROM PUBLIC;
CREATE TRIGGER consent_follows AFTER UPDATE OF partner_id, deleted_at, kind ON partner_portal.workspace
	FOR EACH ROW WHEN (OLD.partner_key <> NEW.partner_key OR OLD.kind <> NEW.kind OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at)
	EXECUTE FUNCTION partner_portal.consent_follows();

-- For tick(): neither is needed for an expiry to hold.

CREATE FUNCTION partner_portal.end_expired_access(as_of timestamptz DEFAULT now()) RETURNS integer
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	expired partner_portal.access_grant;
	ended integer := 0;
BEGIN
	PERFORM partner_portal.require_operator();
	FOR expired IN
		SELECT g.* FROM partner_portal.access_grant g
		WHERE g.ended_at IS NULL AND g.expires_at <= least(as_of, clock_timestamp())
		ORDER BY g.workspace_id, g.grant_id
	LOOP
		-- in everybody's order; who is just being answered is left to the answer, or to the next call
		IF expired.state <> 'active' THEN
			PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = expired.workspace_id FOR NO KEY UPDATE SKIP LOCKED;
			CONTINUE WHEN NOT FOUND;
			PERFORM FROM partner_portal.invitation i
			WHERE i.workspace_id = expired.workspace_id AND i.grant_id = expired.grant_id AND i.state = 'pending' FOR NO KEY UPDATE;
		END IF;
		SELECT g.* INTO expired FROM partner_portal.access_grant g
		WHERE g.workspace_id = expired.workspace_id AND g.grant_id = expired.grant_id AND g.state = expired.state
			AND g.expires_at <= least(as_of, clock_timestamp())
		FOR UPDATE SKIP LOCKED;
		CONTINUE WHEN NOT FOUND;
		PERFORM partner_portal.close_offer(expired, 'expired', NULL);
		PERFORM partner_portal.end_grant(expired, CASE expired.state WHEN 'active' THEN 'ended' ELSE 'withdrawn' END, expired.expires_at, 'expired');
		ended := ended + 1;
	END LOOP;
	RETURN ended;
END
$$;
COMMENT ON FUNCTION partner_portal.end_expired_access(timestamptz) IS
'Ends grants whose expiry has passed, as of their expiry, and takes the memberships that went with them; they gave nothing any more. Returns how many. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.end_expired_access(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.notify_expiring_access(as_of timestamptz DEFAULT now()) RETURNS integer
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	due record;
	noticed integer := 0;
BEGIN
	PERFORM partner_portal.require_operator();
	FOR due IN
		-- one notice, the most urgent, and none about a time that was shorter from the start
		SELECT g AS about, c.company_name AS customer, p.company_name AS partner, t.days
		FROM partner_portal.access_grant g
		JOIN partner_portal.workspace c ON c.workspace_id = g.workspace_id
		JOIN partner_portal.workspace p ON p.workspace_id = g.partner_id
		CROSS JOIN LATERAL (
			SELECT min(d.days) AS days FROM unnest(ARRAY[30, 7, 1]) d (days)
			WHERE g.expires_at - make_interval(hours => 24 * d.days) <= as_of
				AND g.expires_at - make_interval(hours => 24 * d.days) > greatest(g.accepted_at, g.extended_at)) t
		WHERE g.state = 'active' AND g.expires_at > as_of AND t.days IS NOT NULL
		ORDER BY g.workspace_id, g.grant_id
	LOOP
		PERFORM partner_portal.mail_about_grant(due.about, 'access_expiry', format('%s-%s', extract(epoch FROM (due.about).expires_at)::bigint, due.days), side.id,
			partner_portal.mail_grant_expiry('en', due.customer, due.partner, side.expires_on, side.days, side.link),
			partner_portal.mail_grant_expiry('de', due.customer, due.partner, side.expires_on, side.days, side.link))
		FROM (SELECT w.workspace_id AS id, ((due.about).expires_at AT TIME ZONE w.time_zone)::date AS expires_on,
				((due.about).expires_at AT TIME ZONE w.time_zone)::date - (as_of AT TIME ZONE w.time_zone)::date AS days,
				partner_portal.grant_link((due.about).grant_id) AS link
			FROM partner_portal.workspace w
			WHERE w.workspace_id IN ((due.about).workspace_id, (due.about).partner_id)) side;
		noticed := noticed + 1;
	END LOOP;
	RETURN noticed;
END
$$;
COMMENT ON FUNCTION partner_portal.notify_expiring_access(timestamptz) IS
'Owes both sides'' owners a mail 30, 7 and 1 days before access expires, each once; what was missed meanwhile is not made up for, and the mail tells the days that are left. Returns how many grants expire within the days that a notice is owed for. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.notify_expiring_access(timestamptz) FROM PUBLIC;

-- Runs as its owner, since each side sees the other's name; every arm is filtered by the identity's own readers. Who is merely asked
-- for access stays without a name to who asks.
CREATE VIEW partner_portal.grants WITH (security_barrier) AS
	SELECT g.grant_id, g.workspace_id,
		CASE WHEN g.workspace_id = (SELECT partner_portal.own_workspace('read')) OR g.accepted_at IS NOT NULL OR g.state = 'offered'
			OR w.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()) THEN w.company_name END AS company_name,
		g.partner_id, p.company_name AS partner_name, CASE WHEN g.state = 'active' AND g.expires_at <= now() THEN 'expired' ELSE g.state END AS state,
		g.scope, g.products, g.categories, g.wallet, g.rights, g.expires_at, g.asked, g.message, g.created_at, g.accepted_at, g.ended_at, g.end_reason,
		g.wallet_since IS NOT NULL AND g.wallet_until IS NULL AND coalesce(g.expires_at > now(), true) AS holds_wallet
	FROM partner_portal.access_grant g
	JOIN partner_portal.workspace w ON w.workspace_id = g.workspace_id
	JOIN partner_portal.workspace p ON p.workspace_id = g.partner_id
	WHERE g.workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR g.partner_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key());
COMMENT ON VIEW partner_portal.grants IS
'Requests, offers and grants of access, past ones too: those of the own workspace, and those to the own partner for its owners and administrators.';
COMMENT ON COLUMN partner_portal.grants.company_name IS 'The customer; NULL while the partner has merely asked a stranger.';
COMMENT ON COLUMN partner_portal.grants.holds_wallet IS 'Whether the partner pays the platform''s plans of periods that start now.';

-- A set operation alone is no barrier, whatever the view's options say: conditions are handed down into its arms, leaky ones too.
CREATE VIEW partner_portal.partner_products WITH (security_barrier) AS
	SELECT products.belongs_to, products.workspace_id, products.company_name, products.product_id, products.category, products.name, products.external_ref, products.partner_access, products.relation, products.created_at
	FROM (
		SELECT 'own' AS belongs_to, p.workspace_id, w.company_name, p.product_id, p.category, p.name, p.external_ref, p.partner_access, NULL::text AS relation, p.created_at
		FROM partner_portal.product p
		JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
		WHERE p.workspace_id = (SELECT partner_portal.own_workspace('read'))
		UNION ALL
		SELECT 'customer', p.workspace_id, w.company_name, p.product_id, p.category, p.name, p.external_ref, p.partner_access, 'registered', p.created_at
		FROM partner_portal.product p
		JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
		WHERE w.deleted_at IS NULL AND p.partner_key > 0
			AND p.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
			AND partner_portal.product_ok('read', p.workspace_id, p.product_id)
		UNION ALL
		SELECT 'customer', p.workspace_id, w.company_name, p.product_id, p.category, p.name, p.external_ref, p.partner_access,
			CASE WHEN w.partner_id = (SELECT partner_portal.current_partner_id()) THEN 'registered' ELSE 'granted' END, p.created_at
		FROM partner_portal.product p
		JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
		WHERE w.deleted_at IS NULL AND p.workspace_id = ANY ((SELECT partner_portal.product_workspaces('read'))::bigint[])
			AND partner_portal.product_ok('read', p.workspace_id, p.product_id)
			AND NOT coalesce(p.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()), false)
	) products;
COMMENT ON VIEW partner_portal.partner_products IS
'Products that one may see: belongs_to own are those of the acting workspace; customer those of customers that let their partner near them, or granted access to them.';
COMMENT ON COLUMN partner_portal.partner_products.relation IS 'Of a customer''s: registered under the partner, or granted by the customer.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.grants'),
	('application', 'SELECT', 'TABLE partner_portal.partner_products'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.find_partner(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.offer_access(bigint, bigint, text, bigint[], text[], boolean, text[], timestamptz)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.request_access(bigint, text, bigint[], text[], boolean, text[], timestamptz, text, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.accept_access(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.counter_offer(bigint, text, bigint[], text[], boolean, text[], timestamptz)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.end_access(bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.decline_access(bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.extend_access(bigint, timestamptz)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.end_expired_access(timestamptz)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.notify_expiring_access(timestamptz)');
