# job_schedule.pl: schedule_jobs() and unschedule_jobs() with the real pg_cron, which runs tick() once.
# packages: postgresql-MAJOR-cron

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = server('job_schedule');
my ($rc) = $node->psql('postgres', q{DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_cron') THEN RAISE 'none'; END IF; END $$});
if ($rc != 0)
{
	$node->stop;
	plan skip_all => 'pg_cron is not installed';
}
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_cron'\ncron.database_name = 'postgres'\ncron.host = '" . $node->host . "'\n");
$node->restart;
sql($node, 'CREATE EXTENSION partner_portal');
my ($code, $out, $err) = $node->psql('postgres', '\set VERBOSITY sqlstate
SELECT partner_portal.schedule_jobs()');
like($err, qr/55000/, 'without pg_cron nothing is scheduled');
sql($node, 'CREATE EXTENSION pg_cron');
make_workspace($node, 'one');
sql($node, q{SELECT partner_portal.schedule_jobs('* * * * *')});
is(sql($node, q{SELECT jobname, schedule, command FROM cron.job ORDER BY jobname}),
	"partner_portal deliver|* * * * *|CALL partner_portal.deliver_notifications(10000)\npartner_portal tick|* * * * *|CALL partner_portal.tick(now())", 'two jobs are scheduled');
ok(wait_for(sub { sql($node, q{SELECT count(*) FROM cron.job_run_details WHERE status = 'succeeded' AND command LIKE '%tick%'}) > 0 }, 'the first run', 150), 'tick runs');
is(sql($node, 'SELECT count(*) FROM partner_portal.job_step WHERE last_run_at IS NULL OR failures > 0'), '0', 'every step ran');
ok(wait_for(sub { sql($node, q{SELECT count(*) FROM cron.job_run_details WHERE status = 'succeeded' AND command LIKE '%deliver%'}) > 0 }, 'the first delivery', 90), 'so does the delivery');
sql($node, q{SELECT partner_portal.schedule_jobs('*/5 * * * *')});
is(sql($node, q{SELECT count(*), max(schedule) FROM cron.job WHERE jobname = 'partner_portal tick'}), '1|*/5 * * * *', 'scheduled again, the schedule changes');
sql($node, 'SELECT partner_portal.unschedule_jobs()');
is(sql($node, 'SELECT count(*) FROM cron.job'), '0', 'unscheduled, they are gone');
sql($node, 'SELECT partner_portal.unschedule_jobs()');

# two ticks at once, and a repeated one
my @ticks = map { $node->background_psql('postgres', on_error_die => 0) } 1 .. 3;
$_->{stdin} .= "CALL partner_portal.tick(now() + interval '70 days');\n" foreach @ticks;
$_->{run}->pump_nb foreach @ticks;
$_->quit foreach @ticks;
sql($node, q{CALL partner_portal.tick(now() + interval '70 days')});
is(sql($node, q{SELECT count(*), count(DISTINCT period_start) FROM partner_portal.billing_period WHERE period_end <= now() + interval '70 days' AND closed_at IS NOT NULL}),
	sql($node, q{SELECT count(*), count(*) FROM partner_portal.billing_period WHERE period_end <= now() + interval '70 days'}), 'several ticks at once close each period once');
is(sql($node, 'SELECT count(*) FROM partner_portal.job_step WHERE failures > 0'), '0', 'and none fails');

$node->stop;
done_testing();
