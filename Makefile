# partner_portal: PGXS build. `make && make install && make installcheck`; all tests and the demo: see README.md.

EXTENSION = partner_portal
EXTVERSION = 1.1
MODULE_big = partner_portal

OBJS = \
	src/partner_portal.o \
	src/rate.o \
	src/invoice_guard.o \
	src/guc.o \
	src/identity.o \
	src/login.o \
	src/token.o \
	src/jwks.o \
	src/signature.o \
	src/json.o \
	src/acl_row.o \
	src/acl_cache.o \
	src/access_grant.o \
	src/cursor_guard.o \
	src/log_guard.o \
	src/permission.o \
	src/policy_reader.o \
	src/policy_plan.o \
	src/policy_question.o \
	src/portal.o \
	src/portal_access.o \
	src/portal_plan.o \
	src/csv.o \
	src/isolation.o \
	src/explain_access.o \
	src/restoring.o \
	src/own_lock.o \
	src/drop_guard.o \
	src/enroll.o \
	src/billing_period.o \
	src/usage.o \
	src/input.o \
	src/shown_text.o \
	src/workspace.o \
	src/security_key.o \
	src/key_trigger.o \
	src/key_restamp.o \
	src/key_history.o \
	src/key_settle.o \
	src/key_limit.o \
	src/key_event.o \
	src/key_reference.o \
	src/usage_change.o \
	src/usage_row.o \
	src/usage_counter.o \
	src/refusal.o \
	src/activity_chain.o \
	src/activity_line.o \
	src/activity_log.o \
	src/activity_guard.o \
	src/digest.o \
	src/row_writer.o \
	src/our_relation.o \
	src/check_cache.o \
	src/our_query.o \
	src/file_stamp.o \
	src/outbox.o \
	src/worker.o \
	src/job.o \
	src/secrets.o \
	src/webhook.o \
	src/webhook_event.o \
	src/mail_format.o \
	src/delivery_address.o \
	src/delivery_curl.o \
	src/delivery_pool.o \
	src/delivery_request.o \
	src/delivery_answer.o \
	src/delivery_relay.o \
	src/delivery_queue.o \
	src/delivery_claim.o \
	src/delivery_record.o \
	src/delivery_build.o \
	src/delivery_section.o \
	src/delivery_engine.o

# The install script is these parts, in dependency order.
SQL_PARTS = \
	sql/schema.sql \
	sql/input.sql \
	sql/identity.sql \
	sql/permission.sql \
	sql/workspace.sql \
	sql/member.sql \
	sql/product.sql \
	sql/access_grant.sql \
	sql/permission_signal.sql \
	sql/my_workspaces.sql \
	sql/explain_access.sql \
	sql/notification.sql \
	sql/webhook.sql \
	sql/delivery.sql \
	sql/security_key.sql \
	sql/billing_period.sql \
	sql/key_limit.sql \
	sql/usage.sql \
	sql/close_period.sql \
	sql/activity_import.sql \
	sql/restoring.sql \
	sql/price_plan.sql \
	sql/invoice.sql \
	sql/plan_assignment.sql \
	sql/billing_run.sql \
	sql/billing_batch.sql \
	sql/invoice_change.sql \
	sql/statement.sql \
	sql/invoice_html.sql \
	sql/workspace_lifecycle.sql \
	sql/partner.sql \
	sql/people.sql \
	sql/staff.sql \
	sql/invitation.sql \
	sql/invite.sql \
	sql/access_consent.sql \
	sql/panel.sql \
	sql/report.sql \
	sql/metrics.sql \
	sql/portal.sql \
	sql/portal_user.sql \
	sql/portal_user_csv.sql \
	sql/isolation.sql \
	sql/portal_page.sql \
	sql/activity_log.sql \
	sql/verify.sql \
	sql/health.sql \
	sql/job.sql \
	sql/mail_template.sql \
	sql/notice.sql \
	sql/enroll.sql \
	sql/drop_guard.sql

REGRESS = \
	install \
	identity \
	token \
	authorize \
	permission \
	policy_plan \
	check_cache \
	key_reference \
	restoring \
	verify \
	health \
	drop_guard \
	explain_access \
	lint \
	our_query \
	side_channel \
	foreign_id \
	mail_format \
	job \
	notice \
	cause \
	webhook \
	outbox \
	delivery_address \
	usage \
	billing_period \
	panel \
	report \
	portal \
	portal_user \
	portal_user_csv \
	isolation \
	portal_page \
	input \
	shown_text \
	log_guard \
	partner \
	workspace_lifecycle \
	people \
	staff \
	invitation \
	product \
	access_grant \
	workspace \
	price_plan \
	invoice \
	plan_assignment \
	statement \
	bad_input \
	billing_run \
	activity_log \
	key_limit \
	security_key \
	key_activity
ISOLATION = \
	decline_end \
	list_create \
	log_log \
	repair_activate \
	finalize_finalize \
	finalize_void \
	run_run \
	tick_tick \
	run_import \
	revoke_read \
	revoke_wait \
	revoke_grant \
	grant_write \
	transfer_activate \
	event_endpoint \
	owe_owe \
	register_rotate \
	close_activate \
	import_import \
	activate_activate \
	lower_activate \
	swap \
	disable_activate \
	owner_owner \
	disable_login \
	change_portal_user \
	remove_portal_user \
	delete_register \
	erase_invite \
	remove_member \
	restore_leave \
	share_read \
	bulk_bulk \
	accept_withdraw \
	delete_folder
# On 15 pg_regress looks in --outputdir first, where sql/ would be the extension's own parts, and in
# --inputdir for expected/, which is why test/expected is a link.
REGRESS_OPTS = --inputdir=test --outputdir=test
ISOLATION_OPTS = --inputdir=test

DATA_built = sql/$(EXTENSION)--$(EXTVERSION).sql
# From each version to the next, by hand; frozen once released.
DATA = \
	sql/$(EXTENSION)--1.0--1.1.sql
EXTRA_CLEAN = $(DATA_built) test/results test/output_iso test/regression.diffs test/regression.out

PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
SHLIB_LINK = -lcurl -lcrypto

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): src/partner_portal.h src/compat.h src/security_key.h src/delivery.h src/delivery_curl.h

sql/$(EXTENSION)--$(EXTVERSION).sql: $(SQL_PARTS) Makefile
	cat $(SQL_PARTS) > $@

# print-NAME: a variable of this file, for the scripts under test/
print-%:
	@echo $($*)

# doc/reference.md, from the comments of a fresh installation in a throw-away server.
reference:
	test/check reference

# Speed, as ratios to floors measured in the same run; BENCH_SCALE=0.1 is a quick look.
bench:
	test/bench/run

.PHONY: reference bench
