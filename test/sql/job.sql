\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept job
\i :begin
-- each step is a function of an instant that returns how much it did
SELECT s.step FROM partner_portal.job_step s LEFT JOIN pg_proc p ON p.pronamespace = 'partner_portal'::regnamespace AND p.proname = s.step
	AND p.proargtypes::text = 'timestamptz'::regtype::oid::text AND p.prorettype = 'bigint'::regtype WHERE p.oid IS NULL;
INSERT INTO partner_portal.workspace (company_name, slug, time_zone, anchor_date, created_at, billing_from)
	VALUES ('Ann', 'ann', 'Europe/Zurich', '2026-01-01', '2026-01-01', '2026-01-01');
-- what is due is done, each step committed
CALL partner_portal.tick(now());
SELECT step, last_run_at, last_problem, failures FROM partner_portal.job_step WHERE last_run_at IS NULL OR failures > 0 OR last_problem IS NOT NULL;
-- a message that has expired is cancelled, an old one forgotten, a dead one not
SELECT partner_portal.enqueue_mail(1, 'test', 'a', 'a@ann.example', 'en', ROW('s', 'token 0123456789abcdef', NULL), secret => '0123456789abcdef', expires_at => now() + interval '1 hour') IS NOT NULL AS owed;
SELECT partner_portal.enqueue_mail(1, 'test', 'b', 'a@ann.example', 'en', ROW('s', 't', NULL)) IS NOT NULL AS owed;
UPDATE partner_portal.notification SET state = 'dead', next_attempt_at = NULL, finished_at = now() WHERE dedupe_key = 'b';
CALL partner_portal.tick(now());
SELECT dedupe_key, state FROM partner_portal.notification ORDER BY 1;
CALL partner_portal.tick(now() + interval '2 hours');
SELECT dedupe_key, state, text_body, secret FROM partner_portal.notification ORDER BY 1;
CALL partner_portal.tick(now() + interval '91 days');
SELECT dedupe_key, state FROM partner_portal.notification ORDER BY 1;
-- a step that fails is undone and told, and stops no other
CREATE FUNCTION partner_portal.tick_broken(at timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM partner_portal.notification;
	RAISE EXCEPTION 'broken';
END
$$;
INSERT INTO partner_portal.job_step (position, step) VALUES (1, 'tick_broken');
WITH reset AS (UPDATE partner_portal.job_step SET last_run_at = NULL RETURNING 1) SELECT count(*) >= 5 AS reset FROM reset;
CALL partner_portal.tick(now());
SELECT count(*) FROM partner_portal.notification;
SELECT step, last_run_at IS NOT NULL AS ran, last_problem, failures FROM partner_portal.job_step WHERE last_run_at IS NULL OR failures > 0 OR last_problem IS NOT NULL;
\set VERBOSITY sqlstate
CALL partner_portal.tick(NULL);
CALL partner_portal.tick('infinity');
BEGIN;
CALL partner_portal.tick(now());
ROLLBACK;
SET ROLE regress_ops;
CALL partner_portal.tick(now());
RESET ROLE;
SELECT partner_portal.schedule_jobs();
SELECT partner_portal.unschedule_jobs();
SET ROLE regress_ops;
SELECT partner_portal.schedule_jobs();
RESET ROLE;
-- revocations of tokens: gone a day after their end by the clock, whatever instant a tick is told
INSERT INTO partner_portal.revoked_token (jti, until)
	SELECT 'old ' || i, now() - interval '25 hours' FROM generate_series(1, 1001) i
	UNION ALL VALUES ('a day ago', now() - interval '23 hours'), ('running', now() + interval '1 hour'), ('for ever', 'infinity');
SELECT partner_portal.tick_forget_revocations(now() - interval '2 days'), partner_portal.tick_forget_revocations('-infinity');
CALL partner_portal.tick(now() + interval '1 year');
SELECT jti FROM partner_portal.revoked_token ORDER BY until;
