#!/usr/bin/env bash
# billing.sh: how fast a month is billed, as a ratio to a loop of one workspace a statement, on the server that PG* names.
#
#   test/bench/billing.sh [workspaces, default 1000] [stretches of each, default 100] [of them in the loop, default all]
#
# The loop does the same work with the same functions, a transaction each. Both start from the same copy of a database.
# Printed: seconds, workspaces and stretches a second, memory of the backend, and the ratio of the time for a workspace.

set -euo pipefail
workspaces=${1:-1000}
stretches=${2:-100}
looped=${3:-$workspaces}
[[ $workspaces$stretches$looped =~ ^[0-9]+$ && $workspaces -ge 1 && $stretches -ge 1 && $looped -ge 1 && $looped -le $workspaces ]] ||
	{ echo "usage: test/bench/billing.sh [workspaces] [stretches of each] [of them in the loop]" >&2; exit 2; }
base=pp_bench_billing
as_of='2026-02-01 01:00+00'
run() { psql -XAtq -v ON_ERROR_STOP=1 "$@"; }
now() { date +%s%N; }
seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", (b - a) / 1e9 }'; }
cleanup() { for d in ${base}_loop ${base}_batch $base; do run -d postgres -c "DROP DATABASE IF EXISTS $d WITH (FORCE)" >/dev/null; done; }
trap cleanup EXIT
cleanup 2>/dev/null

run -d postgres -c "CREATE DATABASE $base TEMPLATE template0"
run -d "$base" >/dev/null <<S
CREATE EXTENSION partner_portal;
SET search_path = partner_portal, public;
SET timezone = 'UTC';
INSERT INTO workspace (company_name, slug, created_at, anchor_date, billing_from)
	SELECT 'W' || w, 'w' || w, '2026-01-01', '2026-01-01', '2026-01-01' FROM generate_series(1, $workspaces) w;
INSERT INTO security_key (workspace_id, kind, serial, status)
	SELECT w, CASE WHEN k % 2 = 0 THEN 'smartphone' ELSE 'contactless_card' END, k, 'disabled' FROM generate_series(1, $workspaces) w, generate_series(1, greatest($stretches / 4, 1)) k;
INSERT INTO key_history (workspace_id, key_id, active_from, active_until, kind, recorded_at, partner_key)
	SELECT workspace_id, key_id, timestamptz '2026-01-01' + s * interval '6 days', timestamptz '2026-01-03' + s * interval '6 days', kind, timestamptz '2026-01-01' + s * interval '6 days', partner_key
	FROM security_key, generate_series(0, 3) s;
SELECT create_price_plan(NULL, 'Bench', 'CHF', 'graduated', tiers => '[{"up_to":5,"unit_price":5.00},{"up_to":20,"unit_price":4.00},{"up_to":null,"unit_price":3.00}]');
SELECT count(assign_price_plan(workspace_id, 1, '2026-01-01')) FROM workspace;
VACUUM ANALYZE;
S
facts=$(run -d "$base" -c 'SELECT count(*) FROM partner_portal.key_history')
run -d postgres -c "CREATE DATABASE ${base}_loop TEMPLATE $base" -c "CREATE DATABASE ${base}_batch TEMPLATE $base"

a=$(now)
{ echo "SET timezone = 'UTC';"; for ((w = 0; w < looped; w++)); do echo "SELECT partner_portal.bill_next('$as_of', $w, 1);"; done; } | run -d ${base}_loop >/dev/null
loop=$(seconds "$a" "$(now)")
a=$(now)
memory=$(run -d ${base}_batch -c "SET timezone = 'UTC'" -c "CALL partner_portal.run_due_billing('$as_of')" -c "SELECT (regexp_match(pg_read_file('/proc/' || pg_backend_pid() || '/status'), 'RssAnon:\s*(\S+ kB)'))[1]")
batch=$(seconds "$a" "$(now)")

check="SELECT count(*), sum(total_minor), max(number) FROM partner_portal.invoice WHERE status = 'final' AND workspace_id <= $looped"
[[ $(run -d ${base}_loop -c "$check") == "$(run -d ${base}_batch -c "$check")" ]] || { echo "the two differ" >&2; exit 1; }
echo "workspaces $workspaces, stretches $facts, invoices|sum|last number $(run -d ${base}_batch -c "$check")"
echo "loop of one workspace a statement: $loop s for $looped"
echo "run_due_billing: $batch s, memory of its backend $memory"
awk -v l="$loop" -v n="$looped" -v b="$batch" -v w="$workspaces" -v f="$facts" \
	'BEGIN { printf "ratio %.1f, %.0f workspaces a second, %.0f stretches a second\n", (l / n) / (b / w), w / b, f / b }'
