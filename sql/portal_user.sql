-- portal_user.sql: the users of a portal, and their attributes.
-- A portal user is an account that accepted an invitation of kind portal (invitation.sql); until then the invitation itself is
-- what there is. Attributes are defined by the partner, for all its portals; their values stand with each user.

CREATE TABLE partner_portal.portal_attribute (
	workspace_id bigint NOT NULL,
	technical_name text NOT NULL,
	label text NOT NULL,
	type text NOT NULL,
	multiple boolean NOT NULL,
	required boolean NOT NULL,
	allowed jsonb,
	created_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT portal_attribute_pkey PRIMARY KEY (workspace_id, technical_name),
	CONSTRAINT portal_attribute_partner FOREIGN KEY (workspace_id) REFERENCES partner_portal.partner (partner_id) ON DELETE CASCADE,
	CONSTRAINT portal_attribute_technical_name CHECK (technical_name ~ '^[a-z][a-z0-9_]{0,62}$' AND technical_name NOT IN ('email', 'role')),
	CONSTRAINT portal_attribute_label CHECK (length(label) BETWEEN 1 AND 200 AND label ~ '\S' AND label !~ '[\x01-\x1f\x7f]'),
	CONSTRAINT portal_attribute_type CHECK (type IN ('string', 'number', 'boolean', 'date')),
	CONSTRAINT portal_attribute_allowed CHECK (jsonb_typeof(allowed) = 'array')
);
COMMENT ON TABLE partner_portal.portal_attribute IS 'What a partner keeps about the users of its portals, to filter what they see; define_attribute() and drop_attribute(). Label and required are changed by plain UPDATE.';
COMMENT ON COLUMN partner_portal.portal_attribute.technical_name IS 'Name in attribute(), and of the column in CSV.';
COMMENT ON COLUMN partner_portal.portal_attribute.required IS 'Whether nobody is invited or changed without a value; those without one stay as they are.';
COMMENT ON COLUMN partner_portal.portal_attribute.allowed IS 'The values it may have; NULL is any of its type.';
CREATE TRIGGER check_names BEFORE INSERT OR UPDATE ON partner_portal.portal_attribute
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_names('label');

CREATE TABLE partner_portal.portal_account (
	workspace_id bigint NOT NULL,
	portal_id bigint NOT NULL,
	account_id bigint NOT NULL,
	role text NOT NULL,
	attributes jsonb NOT NULL DEFAULT '{}',
	joined_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT portal_account_pkey PRIMARY KEY (workspace_id, portal_id, account_id),
	CONSTRAINT portal_account_portal FOREIGN KEY (workspace_id, portal_id) REFERENCES partner_portal.portal (workspace_id, portal_id) ON DELETE CASCADE,
	CONSTRAINT portal_account_account FOREIGN KEY (account_id) REFERENCES partner_portal.account,
	CONSTRAINT portal_account_role CHECK (role IN ('viewer', 'editor')),
	CONSTRAINT portal_account_attributes CHECK (jsonb_typeof(attributes) = 'object')
);
CREATE INDEX portal_account_account_id ON partner_portal.portal_account (account_id, portal_id);
COMMENT ON TABLE partner_portal.portal_account IS 'A user of a portal who has accepted; view portal_user lists them with the invited. Changed by functions only.';
COMMENT ON COLUMN partner_portal.portal_account.attributes IS 'Values by technical name: a string, number or boolean; a date as YYYY-MM-DD; an array where there may be several. Checked when they are written.';

CREATE TRIGGER acl_change AFTER INSERT OR UPDATE OR DELETE ON partner_portal.portal_account
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.portal_account
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();
ALTER TABLE partner_portal.portal_account ENABLE ALWAYS TRIGGER acl_change, ENABLE ALWAYS TRIGGER acl_truncate;

ALTER TABLE partner_portal.portal_attribute ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.portal_account ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.portal_attribute AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.portal_attribute FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));
CREATE POLICY change ON partner_portal.portal_attribute FOR UPDATE
	USING (workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()))
	WITH CHECK (workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

CREATE POLICY signed_in ON partner_portal.portal_account AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.portal_account FOR SELECT
	USING (account_id = (SELECT partner_portal.current_account_id())
		OR workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.portal_attribute', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.portal_account', '');

-- Runs as its owner, since accounts show themselves to nobody else; every arm is filtered by the identity's own readers.
-- A set operation alone is no barrier, whatever the view's options say: conditions are handed down into its arms, leaky ones too.
CREATE VIEW partner_portal.portal_user WITH (security_barrier) AS
	SELECT users.workspace_id, users.portal_id, users.email, users.role, users.attributes, users.state, users.account_id, users.name, users.invitation_id, users.since
	FROM (
		SELECT p.workspace_id, p.portal_id, a.email, p.role, p.attributes, CASE WHEN a.disabled_at IS NULL THEN 'active' ELSE 'disabled' END AS state,
			p.account_id, a.name, NULL::bigint AS invitation_id, p.joined_at AS since
		FROM partner_portal.portal_account p
		JOIN partner_portal.account a ON a.account_id = p.account_id
		WHERE p.account_id = (SELECT partner_portal.current_account_id())
			OR p.workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		UNION ALL
		SELECT i.workspace_id, i.portal_id, i.email, i.role, coalesce(i.details -> 'attributes', '{}'),
			CASE WHEN i.expires_at > now() THEN 'invited' ELSE 'expired' END, NULL, NULL, i.invitation_id, i.sent_at
		FROM partner_portal.invitation i
		WHERE i.kind = 'portal' AND i.state = 'pending'
			AND i.workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
	) users;
COMMENT ON VIEW partner_portal.portal_user IS
'Users of portals and those invited, with addresses, roles and attributes: all of them for the partner''s owners and administrators, oneself for others.';
COMMENT ON COLUMN partner_portal.portal_user.state IS 'active, disabled (the account), invited, or expired (an invitation that can be sent anew).';
COMMENT ON COLUMN partner_portal.portal_user.since IS 'When the user joined, or the invitation was sent last.';

CREATE VIEW partner_portal.portals WITH (security_invoker, security_barrier) AS
	SELECT p.portal_id, p.workspace_id AS partner_id, p.name, p.technical_name,
		'https://' || p.technical_name || '.' || coalesce(current_setting('partner_portal.portal_domain', true), 'portals.example.com') || '/' AS url,
		p.color, p.logout_url, p.home_cover_url, p.group_id, p.group_name, p.created_at
	FROM partner_portal.portal p;
COMMENT ON VIEW partner_portal.portals IS 'Portals of the partner one acts in, for the operator of all; for a portal user the one it acts in.';

CREATE VIEW partner_portal.my_portals WITH (security_barrier) AS
	SELECT p.portal_id, p.name, 'https://' || p.technical_name || '.' || coalesce(current_setting('partner_portal.portal_domain', true), 'portals.example.com') || '/' AS url, a.role,
		p.portal_id IS NOT DISTINCT FROM (SELECT partner_portal.current_portal_id()) AS acting
	FROM partner_portal.portal_account a
	JOIN partner_portal.portal p ON p.workspace_id = a.workspace_id AND p.portal_id = a.portal_id
	JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
	WHERE a.account_id = (SELECT partner_portal.current_account_id()) AND w.deleted_at IS NULL;
COMMENT ON VIEW partner_portal.my_portals IS 'Portals that the identity is a user of, wherever it acts; act_in_portal() chooses among them. Those of a deleted partner are left out.';

CREATE FUNCTION partner_portal.attribute(technical_name text) RETURNS text[]
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_attribute';
COMMENT ON FUNCTION partner_portal.attribute(text) IS
'Values of an attribute of the identity in the acting portal, as text (a number without needless zeros, a date as YYYY-MM-DD, true or false); NULL when it has none, or without an acting portal. For policies: column = ANY ((SELECT partner_portal.attribute(''tenant''))::text[]) shows no row then. What is in force is the latest commit, as with privileges.';
REVOKE ALL ON FUNCTION partner_portal.attribute(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.attribute_value(type text, value text) RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE type
		WHEN 'string' THEN CASE WHEN length(value) <= 1000 AND value !~ '[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]' THEN to_jsonb(value) END
		WHEN 'number' THEN CASE WHEN v.bare ~ '^[+-]?([0-9]{1,30}(\.[0-9]{0,20})?|\.[0-9]{1,20})$' THEN to_jsonb(trim_scale(v.bare::numeric)) END
		WHEN 'boolean' THEN CASE lower(v.bare) WHEN 'true' THEN jsonb 'true' WHEN 'yes' THEN jsonb 'true' WHEN '1' THEN jsonb 'true'
			WHEN 'false' THEN jsonb 'false' WHEN 'no' THEN jsonb 'false' WHEN '0' THEN jsonb 'false' END
		WHEN 'date' THEN CASE WHEN v.bare ~ '^(19|2[0-9])[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$'
			THEN CASE WHEN substr(v.bare, 9, 2)::integer <=
				extract(day FROM make_date(left(v.bare, 4)::integer, substr(v.bare, 6, 2)::integer, 1) + interval '1 month - 1 day')
				THEN to_jsonb(v.bare) END END
		END
	FROM (SELECT btrim(value, E' \t\n\r\f\x0b') AS bare) v;
END;
COMMENT ON FUNCTION partner_portal.attribute_value(text, text) IS
'A value of an attribute''s type in its one form, NULL if it is none: a string of at most 1000 characters; a number of at most 30 digits and 20 decimals; true, false, yes, no, 1 or 0; a date YYYY-MM-DD of 1900 to 2999; space around all but a string is left out. Internal.';
REVOKE ALL ON FUNCTION partner_portal.attribute_value(text, text) FROM PUBLIC;

-- One value for a name may be given as text, so that CSV needs no types.
CREATE FUNCTION partner_portal.checked_attributes(workspace_id bigint, given jsonb, kept jsonb, OUT attributes jsonb, OUT problem text) RETURNS SETOF record
	LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
	SELECT coalesce(jsonb_object_agg(c.technical_name, c.value) FILTER (WHERE c.value IS NOT NULL), '{}'),
		coalesce((SELECT 'unknown attribute "' || left(min(k), 63) || '"' FROM jsonb_object_keys(given) k
				WHERE NOT EXISTS (SELECT FROM partner_portal.portal_attribute d WHERE d.workspace_id = checked_attributes.workspace_id AND d.technical_name = k)),
			min(CASE WHEN c.problem IS NOT NULL THEN 'attribute "' || c.technical_name || '" ' || c.problem END))
	FROM (
		SELECT d.technical_name,
			CASE WHEN g.key IS NULL THEN kept -> d.technical_name WHEN v.n = 0 THEN NULL WHEN d.multiple THEN v.list ELSE v.list -> 0 END AS value,
			CASE WHEN CASE WHEN g.key IS NULL THEN kept -> d.technical_name IS NULL ELSE v.n = 0 END THEN CASE WHEN d.required THEN 'is required' END
				WHEN g.key IS NULL THEN NULL
				WHEN v.n > 100 THEN 'has more than 100 values'
				WHEN v.n > 1 AND NOT d.multiple THEN 'has one value only'
				WHEN v.bad THEN CASE d.type WHEN 'string' THEN 'is not a text of at most 1000 characters' WHEN 'number' THEN 'is not a number'
					WHEN 'boolean' THEN 'is neither true nor false' ELSE 'is not a date (YYYY-MM-DD)' END
				WHEN NOT d.allowed @> v.list THEN 'has a value that is not allowed'
			END AS problem
		FROM partner_portal.portal_attribute d
		LEFT JOIN jsonb_each(given) g ON g.key = d.technical_name
		CROSS JOIN LATERAL (
			SELECT count(*) AS n, jsonb_agg(e.value ORDER BY e.place) AS list, bool_or(e.value IS NULL) AS bad
			FROM (
				SELECT CASE WHEN jsonb_typeof(r.value) NOT IN ('object', 'array') THEN partner_portal.attribute_value(d.type, r.value #>> '{}') END AS value, r.place
				FROM jsonb_array_elements(CASE jsonb_typeof(g.value) WHEN 'array' THEN g.value ELSE jsonb_build_array(g.value) END) WITH ORDINALITY AS r (value, place)
				WHERE r.value NOT IN (jsonb 'null', jsonb '""')
			) e
		) v
		WHERE d.workspace_id = checked_attributes.workspace_id
	) c;
END;
COMMENT ON FUNCTION partner_portal.checked_attributes(bigint, jsonb, jsonb) IS
'One row: the attributes that a portal user of a partner has when some are given and the others kept, each value in its one form; or what is wrong with them. An empty text, an empty array or null takes a value away. Internal.';
REVOKE ALL ON FUNCTION partner_portal.checked_attributes(bigint, jsonb, jsonb) FROM PUBLIC;

CREATE FUNCTION partner_portal.define_attribute(partner_id bigint, technical_name text, label text, type text, multiple boolean DEFAULT false,
		required boolean DEFAULT false, allowed jsonb DEFAULT NULL) RETURNS partner_portal.portal_attribute
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_id);
	values_allowed jsonb;
	made partner_portal.portal_attribute;
BEGIN
	PERFORM partner_portal.authorized_live_workspace('manage_portals', asked.partner_id);
	PERFORM partner_portal.checked_text('technical_name', technical_name, 63);
	PERFORM partner_portal.checked_text('label', label, 200);
	PERFORM partner_portal.checked_text('type', type, 63);
	IF multiple IS NULL OR required IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'multiple and required must not be null';
	END IF;
	IF technical_name !~ '^[a-z][a-z0-9_]*$' OR technical_name IN ('email', 'role') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('technical name "%s" is not valid', technical_name),
			HINT = 'It has a to z, 0 to 9 and underscores, begins with a letter, and is neither email nor role.';
	END IF;
	IF type NOT IN ('string', 'number', 'boolean', 'date') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown type "%s"', type),
			HINT = 'Types are string, number, boolean and date.';
	END IF;
	IF jsonb_typeof(allowed) <> 'null' THEN
		IF jsonb_typeof(allowed) <> 'array' OR jsonb_array_length(allowed) NOT BETWEEN 1 AND 1000 THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'allowed must be an array of 1 to 1000 values';
		END IF;
		SELECT jsonb_agg(v.value ORDER BY v.place) INTO values_allowed
		FROM (SELECT CASE WHEN jsonb_typeof(e) NOT IN ('object', 'array', 'null') AND e <> '""' THEN partner_portal.attribute_value(type, e #>> '{}') END AS value, place
			FROM jsonb_array_elements(allowed) WITH ORDINALITY AS t (e, place)) v;
		IF values_allowed @> 'null' THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('allowed has a value that is not a %s', type);
		END IF;
	END IF;
	INSERT INTO partner_portal.portal_attribute AS d (workspace_id, technical_name, label, type, multiple, required, allowed)
	VALUES (asked.partner_id, define_attribute.technical_name, define_attribute.label, define_attribute.type, define_attribute.multiple,
		define_attribute.required, values_allowed)
	ON CONFLICT ON CONSTRAINT portal_attribute_pkey DO NOTHING
	RETURNING d.* INTO made;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = format('attribute "%s" is defined already', technical_name);
	END IF;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.define_attribute(bigint, text, text, text, boolean, boolean, jsonb) IS
'Defines what a partner keeps about the users of all its portals: type string, number, boolean or date; multiple for several values; required; allowed, an array of the values it may have. For the partner''s owner or administrator. 42501, P0002; 22004, 22001, 22023; 23505 it is defined; PP005 no partner, or deleted.';
REVOKE ALL ON FUNCTION partner_portal.define_attribute(bigint, text, text, text, boolean, boolean, jsonb) FROM PUBLIC;

CREATE FUNCTION partner_portal.drop_attribute(partner_id bigint, technical_name text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_id);
BEGIN
	IF technical_name IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'technical_name must not be null';
	END IF;
	-- whoever changes users waits, and looks at the attributes again; in an older snapshot it has to try again
	UPDATE partner_portal.portal p SET name = p.name WHERE p.workspace_id = asked.partner_id;
	DELETE FROM partner_portal.portal_attribute d WHERE d.workspace_id = asked.partner_id AND d.technical_name = drop_attribute.technical_name;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'attribute not found';
	END IF;
	UPDATE partner_portal.portal_account p SET attributes = p.attributes - drop_attribute.technical_name
	WHERE p.workspace_id = asked.partner_id AND p.attributes ? drop_attribute.technical_name;
	UPDATE partner_portal.invitation i SET details = i.details #- ARRAY['attributes', drop_attribute.technical_name]
	WHERE i.workspace_id = asked.partner_id AND i.kind = 'portal' AND i.state = 'pending' AND i.details -> 'attributes' ? drop_attribute.technical_name;
END
$$;
COMMENT ON FUNCTION partner_portal.drop_attribute(bigint, text) IS
'Drops an attribute with its values: attribute() is NULL for it then, and policies that ask for it show no row. For the partner''s owner or administrator. 42501, 22004; P0002 none of that name; PP005 no partner.';
REVOKE ALL ON FUNCTION partner_portal.drop_attribute(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_portal_user(role text, attributes jsonb) RETURNS void
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.checked_text('role', role, 64);
	IF role NOT IN ('viewer', 'editor') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown role "%s"', role),
			HINT = 'Roles of portal users are viewer and editor.';
	END IF;
	IF attributes IS NULL OR jsonb_typeof(attributes) <> 'object' THEN
		RAISE EXCEPTION USING ERRCODE = CASE WHEN attributes IS NULL THEN 'null_value_not_allowed' ELSE 'invalid_parameter_value' END,
			MESSAGE = 'attributes must be a JSON object';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.check_portal_user(text, jsonb) IS 'Returns when role and attributes of a portal user have the right form. 22004, 22001, 22023. Internal.';
REVOKE ALL ON FUNCTION partner_portal.check_portal_user(text, jsonb) FROM PUBLIC;

CREATE FUNCTION partner_portal.portal_for_users(portal_id bigint) RETURNS partner_portal.portal
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.authorized_portal('manage_portals', portal_id);
BEGIN
	PERFORM partner_portal.authorized_live_workspace('manage_portals', asked.workspace_id);
	-- one at a time; whoever deletes the portal has it for itself
	PERFORM FROM partner_portal.portal p WHERE p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('portal %s not found', portal_id);
	END IF;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION partner_portal.portal_for_users(bigint) IS
'Returns a portal whose users the identity may change, locked against other changes of its users. 42501, 22004, P0002; PP005 its partner is deleted. Internal.';
REVOKE ALL ON FUNCTION partner_portal.portal_for_users(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.portal_for_user(portal_id bigint) RETURNS partner_portal.portal
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.authorized_portal('manage_portals', portal_id);
BEGIN
	-- before all else, as whoever accepts or withdraws an invitation does
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = asked.workspace_id FOR NO KEY UPDATE;
	RETURN partner_portal.portal_for_users(portal_id);
END
$$;
COMMENT ON FUNCTION partner_portal.portal_for_user(bigint) IS
'As portal_for_users(), and waits for answers to invitations that are under way, so that what is looked up then is either the invitation or the user it made. 42501, 22004, P0002; PP005 its partner is deleted. Internal.';
REVOKE ALL ON FUNCTION partner_portal.portal_for_user(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.invite_portal_user(portal_id bigint, email text, role text, attributes jsonb DEFAULT '{}') RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.portal_for_user(portal_id);
	wanted partner_portal.invitation;
	checked record;
BEGIN
	PERFORM partner_portal.check_portal_user(role, attributes);
	wanted.workspace_id := asked.workspace_id;
	wanted.kind := 'portal';
	wanted.portal_id := asked.portal_id;
	wanted.email := partner_portal.checked_email(email);
	wanted.role := role;
	SELECT c.* INTO checked FROM partner_portal.checked_attributes(asked.workspace_id, attributes, '{}') c;
	IF checked.problem IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = checked.problem;
	END IF;
	wanted.details := jsonb_build_object('attributes', checked.attributes);
	IF EXISTS (SELECT FROM partner_portal.portal_account p JOIN partner_portal.account a ON a.account_id = p.account_id
		WHERE p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id
			AND lower(a.email COLLATE "C") = lower(invite_portal_user.email COLLATE "C"))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = format('this address is a user of portal %s already', portal_id),
			HINT = 'Use change_portal_user() to change its role and attributes.';
	END IF;
	RETURN partner_portal.create_invitation(wanted);
END
$$;
COMMENT ON FUNCTION partner_portal.invite_portal_user(bigint, text, text, jsonb) IS
'Invites an address to a portal as viewer or editor, with attributes by technical name. Who accepts is a user of the portal, and no member of a workspace. For the partner''s owner or administrator. 42501, P0002; 22004, 22001, 22023; 23505 it is a user or invited already; 53400 too many in an hour; PP005 the partner is deleted.';
REVOKE ALL ON FUNCTION partner_portal.invite_portal_user(bigint, text, text, jsonb) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_portal_invitation(invitation partner_portal.invitation, account_id bigint) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	INSERT INTO partner_portal.portal_account AS p (workspace_id, portal_id, account_id, role, attributes)
	SELECT w.workspace_id, (invitation).portal_id, accept_portal_invitation.account_id, (invitation).role, coalesce((invitation).details -> 'attributes', '{}')
	FROM partner_portal.workspace w
	JOIN partner_portal.portal l ON l.workspace_id = w.workspace_id AND l.portal_id = (invitation).portal_id
	WHERE w.workspace_id = (invitation).workspace_id AND w.deleted_at IS NULL
	ON CONFLICT ON CONSTRAINT portal_account_pkey DO UPDATE SET role = excluded.role, attributes = excluded.attributes;
	IF NOT FOUND THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_portal_invitation(partner_portal.invitation, bigint) IS
'Makes the invited account a user of the portal; one that is already (it took the invited address meanwhile) gets the invited role and attributes. Internal.';
REVOKE ALL ON FUNCTION partner_portal.accept_portal_invitation(partner_portal.invitation, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.change_portal_user(portal_id bigint, email text, role text DEFAULT NULL, attributes jsonb DEFAULT '{}') RETURNS partner_portal.portal_user
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.portal_for_user(portal_id);
	found_user partner_portal.portal_user;
	checked record;
BEGIN
	PERFORM partner_portal.check_portal_user(coalesce(role, 'viewer'), attributes);
	PERFORM partner_portal.checked_email(email);
	SELECT u.* INTO found_user FROM partner_portal.portal_user u
	WHERE u.workspace_id = asked.workspace_id AND u.portal_id = asked.portal_id AND lower(u.email COLLATE "C") = lower(change_portal_user.email COLLATE "C")
	ORDER BY u.account_id LIMIT 1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('this address is no user of portal %s', portal_id);
	END IF;
	SELECT c.* INTO checked FROM partner_portal.checked_attributes(asked.workspace_id, attributes, found_user.attributes) c;
	IF checked.problem IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = checked.problem;
	END IF;
	found_user.role := coalesce(role, found_user.role);
	found_user.attributes := checked.attributes;
	IF found_user.account_id IS NOT NULL THEN
		UPDATE partner_portal.portal_account p SET role = found_user.role, attributes = found_user.attributes
		WHERE p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id AND p.account_id = found_user.account_id;
	ELSE
		UPDATE partner_portal.invitation i SET role = found_user.role, details = i.details || jsonb_build_object('attributes', found_user.attributes)
		WHERE i.workspace_id = asked.workspace_id AND i.invitation_id = found_user.invitation_id AND i.state = 'pending';
	END IF;
	IF NOT FOUND THEN
		-- refused meanwhile, for which one need be nobody and waits for nobody
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('this address is no user of portal %s', portal_id);
	END IF;
	RETURN found_user;
END
$$;
COMMENT ON FUNCTION partner_portal.change_portal_user(bigint, text, text, jsonb) IS
'Changes a portal user, or one who is invited: role NULL stays; attributes that are named get the value given, null or empty takes it away, the others stay. For the partner''s owner or administrator; holds from the user''s next statement on. 42501; P0002 no such portal or user; 22004, 22001, 22023; PP005 the partner is deleted.';
REVOKE ALL ON FUNCTION partner_portal.change_portal_user(bigint, text, text, jsonb) FROM PUBLIC;

CREATE FUNCTION partner_portal.remove_portal_user(portal_id bigint, email text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.portal_for_user(portal_id);
	found_user partner_portal.portal_user;
	withdrawn partner_portal.invitation;
	removed boolean := false;
BEGIN
	PERFORM partner_portal.checked_email(email);
	FOR found_user IN SELECT u.* FROM partner_portal.portal_user u
		WHERE u.workspace_id = asked.workspace_id AND u.portal_id = asked.portal_id AND lower(u.email COLLATE "C") = lower(remove_portal_user.email COLLATE "C")
	LOOP
		DELETE FROM partner_portal.portal_account p
		WHERE p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id AND p.account_id = found_user.account_id;
		removed := removed OR FOUND;
		-- refused meanwhile, for which one need be nobody and waits for nobody, it is no longer pending
		UPDATE partner_portal.invitation i SET state = 'withdrawn', finished_at = clock_timestamp()
		WHERE i.workspace_id = asked.workspace_id AND i.invitation_id = found_user.invitation_id AND i.state = 'pending'
		RETURNING i.* INTO withdrawn;
		IF FOUND THEN
			PERFORM partner_portal.cancel_invitation_mail(withdrawn);
			removed := true;
		END IF;
	END LOOP;
	IF NOT removed THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('this address is no user of portal %s', portal_id);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.remove_portal_user(bigint, text) IS
'Removes a user from a portal from the next statement of every session on; an invitation is withdrawn. Reports it made stay. For the partner''s owner or administrator. 42501; P0002 no such portal or user, or who was invited has refused meanwhile; 22004, 22023; PP005 the partner is deleted.';
REVOKE ALL ON FUNCTION partner_portal.remove_portal_user(bigint, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.portal_attribute'),
	('application', 'UPDATE (label, required)', 'TABLE partner_portal.portal_attribute'),
	('application', 'SELECT', 'TABLE partner_portal.portal_account'),
	('application', 'SELECT', 'TABLE partner_portal.portal_user'),
	('application', 'SELECT', 'TABLE partner_portal.portals'),
	('application', 'SELECT', 'TABLE partner_portal.my_portals'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.attribute(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.define_attribute(bigint, text, text, text, boolean, boolean, jsonb)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.drop_attribute(bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.invite_portal_user(bigint, text, text, jsonb)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.change_portal_user(bigint, text, text, jsonb)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.remove_portal_user(bigint, text)');
