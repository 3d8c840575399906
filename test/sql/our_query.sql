\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept our_query
\i :begin
\i :as
-- src/our_query.c: what triggers ask as the owner of the tables calls no operator of who fired them, whatever is named first in
-- the search path. Who may create a schema would be superuser otherwise.
SELECT workspace_id FROM partner_portal.create_workspace('Acme', 'owner@acme.example');
SELECT workspace_id FROM partner_portal.create_workspace('Consultant', 'owner@consultant.example');
SELECT count(*) FROM partner_portal.promote_to_partner(2);
UPDATE partner_portal.workspace SET restrict_keys = true, key_limit = 5 WHERE workspace_id = 1;
INSERT INTO partner_portal.webhook_endpoint (workspace_id, partner_key, url, events, key_version) VALUES (1, 0, 'https://acme.example/hook', '{*}', 1);
CREATE SCHEMA own AUTHORIZATION regress_app;
CREATE TABLE own.called (who text, operator text);
GRANT ALL ON own.called TO PUBLIC;
GRANT USAGE ON SCHEMA own TO PUBLIC;
SET ROLE regress_app;
DO $$
DECLARE
	o record;
BEGIN
	FOR o IN SELECT name, type FROM unnest('{=,<>,<,<=,>,>=}'::text[]) name, unnest('{bigint,integer,text,timestamptz}'::text[]) type LOOP
		EXECUTE format('CREATE FUNCTION own.%1$I(%2$s, %2$s) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $f$
			BEGIN
				INSERT INTO own.called VALUES (current_user, %1$L || '' '' || %2$L);
				RETURN $1 OPERATOR(pg_catalog.%1$s) $2;
			END $f$', o.name, o.type);
		EXECUTE format('CREATE OPERATOR own.%1$s (LEFTARG = %2$s, RIGHTARG = %2$s, FUNCTION = own.%1$I)', o.name, o.type);
	END LOOP;
END
$$;
RESET ROLE;
SET search_path = own, pg_catalog;
-- the trap works: one's own statements fall into it, as oneself
SELECT public.run_as(1, :app, 'SELECT count(*) FROM partner_portal.workspace WHERE workspace_id = 1::bigint');
SELECT DISTINCT who, operator FROM own.called;
-- a limit alert, which the executor's hook raises when the triggers are done
SELECT public.run_as(1, :app, 'INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT 1, ''smartphone'', ''s'' || i FROM generate_series(1, 4) i RETURNING key_id');
SELECT public.run_as(1, :app, 'UPDATE partner_portal.security_key SET status = ''disabled'' RETURNING status');
-- the lock of a grant that a write rests on
SELECT public.run_as(1, :app, 'SELECT (partner_portal.offer_access(1, 2, ''complete'', wallet => false)).grant_id');
SELECT public.run_as(2, :app, 'SELECT (partner_portal.accept_access(1)).state');
SELECT public.run_as(2, :app, 'UPDATE partner_portal.security_key SET label = ''seen'' WHERE key_id = 1 RETURNING label');
-- events; an endpoint hears of all of the above
SELECT public.run_as(1, :app, 'UPDATE partner_portal.security_key SET status = ''active'' RETURNING status');
-- the check of the log
SELECT public.run_as(1, :app, 'SELECT ok FROM partner_portal.verify_activity_log(1)');
RESET search_path;
SELECT threshold FROM partner_portal.limit_alert;
SELECT count(*) FROM partner_portal.notification WHERE endpoint_id IS NOT NULL;
SELECT DISTINCT who FROM own.called;
