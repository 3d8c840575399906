-- metrics.sql: numbers for monitoring.

CREATE VIEW partner_portal.metrics WITH (security_barrier) AS
	SELECT m.name, m.labels, m.value, m.help FROM (
		SELECT 'notifications_pending' AS name, jsonb_build_object('channel', c.channel) AS labels,
			count(q.notification_id)::numeric AS value, 'Messages not yet delivered' AS help
		FROM (VALUES ('mail'), ('webhook')) AS c (channel)
		LEFT JOIN partner_portal.delivery_queue q ON (q.destination = 0) = (c.channel = 'mail') GROUP BY c.channel
		UNION ALL
		SELECT 'notifications_in_flight', '{}', count(*), 'Messages that an engine has claimed' FROM partner_portal.delivery_queue q WHERE q.lease_token IS NOT NULL
		UNION ALL
		SELECT 'notifications_oldest_due_seconds', '{}', coalesce(round(extract(epoch FROM now() - min(q.next_attempt_at)), 3), 0), 'Longest time that a message has been due'
		FROM partner_portal.delivery_queue q WHERE q.next_attempt_at < now()
		UNION ALL
		SELECT 'notifications', jsonb_build_object('state', s.state), count(n.notification_id), 'Messages of the last 90 days by state; dead and refused ones of all time'
		FROM unnest(ARRAY['delivered', 'refused', 'dead', 'cancelled']) AS s (state)
		LEFT JOIN partner_portal.notification n ON n.state = s.state GROUP BY s.state
		UNION ALL
		SELECT 'delivery_failures_last_hour', jsonb_build_object('outcome', a.outcome), count(*), 'Attempts that failed in the last hour'
		FROM partner_portal.delivery_attempt a WHERE a.at > now() - interval '1 hour' GROUP BY a.outcome
		UNION ALL
		SELECT 'mail_relay_failures', '{}', t.failures, 'Failures of the mail relay since it last took a mail' FROM partner_portal.delivery_destination t WHERE t.destination = 0
		UNION ALL
		SELECT 'webhook_endpoints', jsonb_build_object('state', s.state), count(e.endpoint_id), 'Webhook endpoints by state'
		FROM unnest(ARRAY['active', 'paused', 'disabled']) AS s (state)
		LEFT JOIN partner_portal.webhook_endpoint e ON e.state = s.state GROUP BY s.state
	) m
	WHERE (SELECT partner_portal.is_reporting());
COMMENT ON VIEW partner_portal.metrics IS
'Numbers for monitoring, as (name, labels, value, help): the queue of messages, its age, dead letters, failures. For reporting roles and the operator.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('reporting', 'SELECT', 'TABLE partner_portal.metrics'),
	('operator', 'SELECT', 'TABLE partner_portal.metrics');
