/*
 * alert.c
 *	  Judges checks by their thresholds; raises and clears alerts.
 *
 * A check is a number, found in shared memory without a transaction (vital.c,
 * pulse.c), and a threshold.  The publisher looks every ten seconds.  What is
 * over its threshold it raises, and clears when it is well under it again: an
 * event each, and a row of prometheus._alert, which is there while the alert is
 * and outlives a restart.  A number that nobody can say now changes nothing.
 *
 * Whoever reads prometheus.alert judges by himself, with what is now, by the
 * same rules; the publisher's row says since when.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "alert.h"
#include "as_of.h"
#include "era.h"
#include "event.h"
#include "fault.h"
#include "mark.h"
#include "setting.h"
#include "threshold.h"
#include "vital.h"
#include "wakeup.h"
#include "worker.h"
#include "xact.h"

/* From one look to the next, and from one measuring of sizes, ms. */
#define LOOK_INTERVAL 10000
#define MEASURE_INTERVAL 300000

/* An alert is cleared at this part of its threshold; a count at all of it. */
#define CLEARED_AT 0.9

typedef struct Check
{
	const char *name;
	PromVital vital;
	PromMeasure measure;
	const char *standard; /* NULL: see standard_of() */
	const char *hint;
} Check;

static const Check checks[] = {
	{"wal_since_checkpoint", prom_vital_wal, PROM_MEASURE_BYTES, NULL,
	 "After a crash this much must be replayed: see in the log whether checkpoints fail, and lower checkpoint_timeout or max_wal_size."},
	{"wal_rate", prom_vital_wal_rate, PROM_MEASURE_RATE, "100 MB/s",
	 "See pg_stat_statements for who writes (wal_bytes); archive, replicas and disk must keep up with it."},
	{"wal_kept_by_slots", prom_vital_slots, PROM_MEASURE_BYTES, "10 GB",
	 "Let the slot's reader catch up, or drop the slot; max_slot_wal_keep_size limits what is kept."},
	{"archive_failures", prom_vital_archiver, PROM_MEASURE_COUNT, "2",
	 "The server's log says why archive_command fails. WAL is kept until it is archived, and fills the disk."},
	{"replica_lag", prom_vital_replicas, PROM_MEASURE_BYTES, "1 GB",
	 "See pg_stat_replication: the network, the replica's disk, or a query there that holds replay up."},
	{"oldest_snapshot", prom_vital_snapshot, PROM_MEASURE_TIME, "1 h",
	 "See pg_stat_activity; pg_terminate_backend() ends it. Until then nothing newer is cleaned up; idle_in_transaction_session_timeout limits it."},
	{"oldest_prepared", prom_vital_prepared, PROM_MEASURE_TIME, "10 min",
	 "See pg_prepared_xacts: COMMIT PREPARED or ROLLBACK PREPARED it. Until then it keeps its locks, and nothing newer is cleaned up."},
	{"oldest_due", prom_pulse_due, PROM_MEASURE_TIME, "15 min",
	 "SELECT prometheus_why(task_id) says what it waits for: a gate, max_concurrent of its model, or prometheus.max_in_flight."},
	{"gates_closed", prom_pulse_gates, PROM_MEASURE_TIME, "15 min",
	 "SELECT * FROM prometheus.gate says why; prometheus_resume() opens one."},
	{"model_money", prom_pulse_money, PROM_MEASURE_COUNT, "0",
	 "The provider asks for money: pay, or raise the limit there; then SELECT prometheus_resume('model:NAME')."},
	{"consumer_lag", prom_pulse_lag, PROM_MEASURE_TIME, "1 h",
	 "SELECT * FROM prometheus.consumer: let it poll and acknowledge, or prometheus_drop_consumer(); prometheus.subscription says why one is disabled. Events go after prometheus.retention, read or not."},
	{"dead_letters", prom_pulse_dead, PROM_MEASURE_COUNT, "0",
	 "SELECT * FROM prometheus.dead_letter says why; prometheus_redrive() delivers them again, prometheus_discard() takes them away."},
	{"export_lag", prom_pulse_export, PROM_MEASURE_TIME, "15 min",
	 "SELECT * FROM prometheus.export says what the receiver of prometheus.otlp_endpoint said last. Traces wait, and go after prometheus.retention and retention_waiting."},
	{"marks_late", prom_pulse_marks, PROM_MEASURE_TIME, "30 s",
	 "AS OF cannot show what is newer. The server's log says why the publisher cannot write marks, or it does not run."},
	{"workers_missing", prom_pulse_workers, PROM_MEASURE_TIME, "30 s",
	 "The server's log says why it ends or cannot start; often max_worker_processes is too low. Tools, handlers and conditions wait for executors."},
	{"worker_processes", prom_vital_places, PROM_MEASURE_PERCENT, "100 %",
	 "Raise max_worker_processes (16 suits one database) and restart; or serve fewer databases, or lower prometheus.executors."},
	{"storage_size", prom_pulse_size, PROM_MEASURE_BYTES, "100 GB",
	 "SELECT * FROM prometheus_storage() says what takes it; prometheus.retention says how long it is kept."},
	{"storage_growth", prom_pulse_growth, PROM_MEASURE_BYTES, "10 GB",
	 "In a day. SELECT * FROM prometheus_storage() says what takes it; prometheus.usage, whose tasks they are."},
	{"budget_spent", prom_pulse_budget, PROM_MEASURE_PERCENT, "90 %",
	 "SELECT * FROM prometheus.budget; beyond it tasks fail with BudgetExceeded until it is refilled, or prometheus_set_budget() raises it."},
};

#define NCHECKS lengthof(checks)

/* What is kept of a check: its threshold, and whether it was raised. */
typedef struct State
{
	const char *threshold; /* in words */
	bool is_standard;
	bool off;
	double limit;
	int64 event_id; /* of alert.raised; 0: it is not raised */
	TimestampTz raised_at;
} State;

/* A check as it is now. */
typedef struct Judgement
{
	double number; /* PROM_UNKNOWN: nobody can say */
	const char *what;
	bool is_private; /* the number is for administrators */
	bool raised;
} Judgement;

static const PromSettingKind prom_threshold_kind = {
	.called = "an alert",
	.table = "_threshold",
	.columns = "threshold, set_by",
	.places = "$6, $7",
	.ncolumns = 2,
};

enum
{
	THRESHOLD_THRESHOLD,
	THRESHOLD_SET_BY
};


/* Thresholds. */

static const char *
standard_of(const Check *check)
{
	if (check->standard != NULL)
		return check->standard;
	return psprintf("%d MB", 2 * max_wal_size_mb);
}

static const Check *
find_check(const char *name)
{
	for (int i = 0; i < NCHECKS; i++)
		if (strcmp(checks[i].name, name) == 0)
			return &checks[i];
	return NULL;
}

/* NULL, or one that was written by another version: the default. */
static void
set_threshold(const Check *check, State *state, const char *text)
{
	state->off = text != NULL && strcmp(text, "off") == 0;
	state->is_standard = false;
	if (text == NULL ||
		(!state->off &&
		 !prom_threshold_read(check->measure, text, &state->limit)))
	{
		state->is_standard = true;
		text = standard_of(check);
		(void) prom_threshold_read(check->measure, text, &state->limit);
	}
	state->threshold = pstrdup(text);
}

/*
 * As the extension's owner, in a transaction with SPI connected; texts are in
 * the context.
 */
static void
read_states(State *states, MemoryContext context)
{
	static const char thresholds_sql[] =
		"SELECT t.name, t.threshold FROM prometheus._threshold t"
		" WHERE NOT EXISTS (SELECT FROM prometheus._threshold n"
		"   WHERE n.name OPERATOR(pg_catalog.=) t.name"
		"     AND n.version OPERATOR(pg_catalog.>) t.version)";
	static const char raised_sql[] =
		"SELECT a.name, a.event_id, a.raised_at FROM prometheus._alert a";
	MemoryContext before = MemoryContextSwitchTo(context);

	memset(states, 0, NCHECKS * sizeof(State));
	for (int i = 0; i < NCHECKS; i++)
		set_threshold(&checks[i], &states[i], NULL);
	if (prom_execute_now(thresholds_sql, 0, NULL, NULL, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._threshold");
	MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		const Check *check = find_check(prom_row_text(i, 1));

		if (check != NULL)
			set_threshold(check, &states[check - checks],
						  prom_row_text_or_null(i, 2));
	}
	if (prom_execute_now(raised_sql, 0, NULL, NULL, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._alert");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		const Check *check = find_check(prom_row_text(i, 1));

		if (check == NULL)
			continue;
		states[check - checks].event_id = prom_row_int64(i, 2);
		states[check - checks].raised_at = prom_row_time(i, 3);
	}
	MemoryContextSwitchTo(before);
}

static void
judge(const Check *check, const State *state, PromLook *look,
	  Judgement *judgement)
{
	bool before = state->event_id != 0;
	double limit = state->limit;

	look->what = NULL;
	look->is_private = false;
	judgement->number = check->vital(look);
	judgement->what = look->what;
	judgement->is_private = look->is_private;
	if (before && check->measure != PROM_MEASURE_COUNT)
		limit *= CLEARED_AT;
	judgement->raised = !state->off && (judgement->number < 0
											? before
											: judgement->number > limit);
}


/* Those who read. */

/* Whether it is raised is for all; of what, and some numbers, are not. */
static void
hide(Judgement *judgement)
{
	judgement->what = NULL;
	if (judgement->is_private)
		judgement->number = PROM_UNKNOWN;
}

/* By what is now; states and judgements are in the current memory context. */
static void
judge_all(State *states, Judgement *judgements)
{
	MemoryContext context = CurrentMemoryContext;
	PromLook look = {.db = prom_shmem_database(MyDatabaseId)};
	bool is_admin = prom_role_is_admin();
	PromOwner before;

	SPI_connect();
	prom_role_become_owner(&before);
	read_states(states, context);
	if (prom_vital_must_read())
		prom_vital_read();
	prom_role_restore(&before);
	SPI_finish();
	MemoryContextSwitchTo(context);
	look.now = GetCurrentTimestamp();
	for (int i = 0; i < NCHECKS; i++)
	{
		judge(&checks[i], &states[i], &look, &judgements[i]);
		if (!is_admin)
			hide(&judgements[i]);
	}
}

static void
put_text(const char *text, int column, Datum *values, bool *nulls)
{
	nulls[column] = text == NULL;
	values[column] = text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

PG_FUNCTION_INFO_V1(prom_alerts);

Datum
prom_alerts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	State states[NCHECKS];
	Judgement judgements[NCHECKS];

	prom_as_of_forbid_reading("prometheus.alert");
	InitMaterializedSRF(fcinfo, 0);
	judge_all(states, judgements);
	for (int i = 0; i < NCHECKS; i++)
	{
		const State *state = &states[i];
		const Judgement *now = &judgements[i];
		Datum values[8];
		bool nulls[8] = {false};

		values[0] = CStringGetTextDatum(checks[i].name);
		values[1] = CStringGetTextDatum(state->off    ? "off"
										: now->raised ? "raised"
													  : "ok");
		put_text(now->number < 0 ? NULL
								 : prom_threshold_words(checks[i].measure,
														now->number),
				 2, values, nulls);
		values[3] = CStringGetTextDatum(state->threshold);
		nulls[4] = !now->raised || state->event_id == 0;
		values[4] = TimestampTzGetDatum(state->raised_at);
		put_text(now->what, 5, values, nulls);
		nulls[6] = now->number < 0;
		values[6] = Float8GetDatum(now->number);
		values[7] = CStringGetTextDatum(checks[i].hint);
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
	}
	return (Datum) 0;
}

List *
prom_alert_findings(int *nchecks)
{
	List *findings = NIL;
	State states[NCHECKS];
	Judgement judgements[NCHECKS];

	*nchecks = NCHECKS;
	judge_all(states, judgements);
	for (int i = 0; i < NCHECKS; i++)
	{
		const Judgement *now = &judgements[i];
		PromAlertFinding *finding;

		if (!now->raised)
			continue;
		finding = palloc(sizeof(PromAlertFinding));
		finding->name = checks[i].name;
		finding->value = psprintf(
			"%s; the threshold is %s%s%s",
			now->number < 0
				? now->is_private ? "not shown" : "not known now"
				: prom_threshold_words(checks[i].measure, now->number),
			states[i].threshold, now->what != NULL ? "; " : "",
			now->what != NULL ? now->what : "");
		finding->hint = checks[i].hint;
		findings = lappend(findings, finding);
	}
	return findings;
}


/* Setting a threshold. */

static const Check *
check_argument(FunctionCallInfo fcinfo)
{
	char *name = PG_ARGISNULL(0) ? NULL
								 : text_to_cstring(PG_GETARG_TEXT_PP(0));
	const Check *check;
	StringInfoData names;

	prom_setting_check(&prom_threshold_kind, "prometheus_set_alert", name);
	check = find_check(name);
	if (check != NULL)
		return check;
	initStringInfo(&names);
	for (int i = 0; i < NCHECKS; i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", checks[i].name);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("alert \"%s\" does not exist", name),
			 errdetail("There are: %s.", names.data),
			 errhint("SELECT * FROM prometheus.alert says more of them.")));
}

/* NULL: the default. */
static char *
threshold_argument(FunctionCallInfo fcinfo, const Check *check)
{
	Datum trimmed;
	char *given;
	double limit;

	if (PG_ARGISNULL(1))
		return NULL;
	trimmed = DirectFunctionCall1(btrim1, PG_GETARG_DATUM(1));
	given = TextDatumGetCString(trimmed);
	if (strcmp(given, "default") == 0)
		return NULL;
	if (strcmp(given, "off") != 0 &&
		!prom_threshold_read(check->measure, given, &limit))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is no threshold of alert \"%s\"", given,
						check->name),
				 errdetail("%s", prom_threshold_form(check->measure)),
				 errhint("'off' switches it off, 'default' is %s.",
						 standard_of(check))));
	return given;
}

PG_FUNCTION_INFO_V1(prom_set_alert);

Datum
prom_set_alert(PG_FUNCTION_ARGS)
{
	char *texts[PROM_SETTING_COLUMNS] = {NULL};
	const Check *check = check_argument(fcinfo);
	PromSetting setting;
	int64 version;

	prom_as_of_forbid_writing();
	texts[THRESHOLD_THRESHOLD] = threshold_argument(fcinfo, check);
	texts[THRESHOLD_SET_BY] = GetUserNameFromId(GetUserId(), false);
	prom_setting_begin(&setting, &prom_threshold_kind, check->name);
	version = prom_setting_end(&setting, texts,
							   prom_setting_merge(&setting, NULL));
	prom_wakeup_alerts();
	PG_RETURN_INT64(version);
}


/* The publisher. */

static MemoryContext states_context = NULL;
static State states[NCHECKS];
static bool states_known = false;
static TimestampTz next_look;
static TimestampTz reloaded_at; /* the settings that were judged by */
static bool facts_changed;
static TimestampTz next_measure;
static TimestampTz next_reading; /* of consumers and dead letters */
static uint64 read_mark;         /* the newest mark at the last one */
static bool has_readers;         /* it has found any consumers */

void
prom_alert_begin(void)
{
	/* It looks when no transaction is open, each time anew. */
	SetConfigOption("stats_fetch_consistency", "none", PGC_SUSET,
					PGC_S_OVERRIDE);
	states_context = AllocSetContextCreate(TopMemoryContext,
										   "prometheus alerts",
										   ALLOCSET_SMALL_SIZES);
	states_known = false;
	next_look = next_measure = next_reading = GetCurrentTimestamp();
	facts_changed = true;
	pg_atomic_write_u32(&prom_my_database->vitals.readers, 1);
}

TimestampTz
prom_alert_due(void)
{
	if (pg_atomic_read_u32(&prom_my_database->vitals.asked) != 0 ||
		reloaded_at != PgReloadTime)
		return DT_NOBEGIN;
	return next_look;
}

void
prom_alert_failed(void)
{
	states_known = false;
}

/* It is the session's again after the transaction. */
static void
wait_briefly(void)
{
	(void) set_config_option("lock_timeout", "100ms", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

static void
read_what_is_kept(void)
{
	if (!prom_worker_xact_begin("reading the thresholds of alerts"))
		proc_exit(0);
	wait_briefly();
	SPI_connect();
	states_known = false;
	MemoryContextReset(states_context);
	read_states(states, states_context);
	if (prom_vital_must_read())
		prom_vital_read();
	SPI_finish();
	prom_xact_commit();
	states_known = true;
}

/* Some defaults are by the server's settings, which may be others now. */
static void
set_standards(void)
{
	MemoryContext before = MemoryContextSwitchTo(states_context);

	for (int i = 0; i < NCHECKS; i++)
		if (states[i].is_standard && checks[i].standard == NULL)
			set_threshold(&checks[i], &states[i], NULL);
	MemoryContextSwitchTo(before);
}

static void
append_text(StringInfo json, const char *key, const char *text)
{
	appendStringInfo(json, "%s\"%s\": ", json->len > 1 ? ", " : "", key);
	if (text == NULL)
		appendStringInfoString(json, "null");
	else
		escape_json(json, text);
}

/* What both events tell. */
static void
begin_data(StringInfo json, const Check *check, const State *state,
		   const Judgement *now)
{
	initStringInfo(json);
	appendStringInfoChar(json, '{');
	append_text(json, "name", check->name);
	append_text(json, "value",
				now->number < 0 ? NULL
								: prom_threshold_words(check->measure,
													   now->number));
	append_text(json, "threshold", state->threshold);
	append_text(json, "what", now->what);
}

static int64
raise_alert(const Check *check, const State *state, const Judgement *now,
			TimestampTz at)
{
	static PromStatement statement = {
		"INSERT INTO prometheus._alert (name, event_id, raised_at)"
		" VALUES ($1, $2, $3)",
		3,
		{TEXTOID, INT8OID, TIMESTAMPTZOID},
		NULL};
	StringInfoData json;
	int64 event_id;
	Datum values[3];

	begin_data(&json, check, state, now);
	append_text(&json, "hint", check->hint);
	appendStringInfoChar(&json, '}');
	event_id = prom_event_add("alert.raised", json.data, check->name, 0);
	values[0] = CStringGetTextDatum(check->name);
	values[1] = Int64GetDatum(event_id);
	values[2] = TimestampTzGetDatum(at);
	prom_statement_run(&statement, values, NULL, false);
	return event_id;
}

static void
clear_alert(const Check *check, const State *state, const Judgement *now,
			TimestampTz at)
{
	static PromStatement statement = {
		"DELETE FROM prometheus._alert WHERE name = $1",
		1,
		{TEXTOID},
		NULL};
	StringInfoData json;
	char raised_at[MAXDATELEN + 1];
	Datum value = CStringGetTextDatum(check->name);

	begin_data(&json, check, state, now);
	append_text(&json, "raised_at",
				JsonEncodeDateTime(raised_at,
								   TimestampTzGetDatum(state->raised_at),
								   TIMESTAMPTZOID, NULL));
	appendStringInfo(&json, ", \"seconds\": %.3f}",
					 (at - state->raised_at) / (double) USECS_PER_SEC);
	(void) prom_event_add("alert.cleared", json.data, check->name,
						  state->event_id);
	prom_statement_run(&statement, &value, NULL, false);
}

/* In one transaction with the events that tell of it. */
static void
write_changes(const Judgement *judgements, TimestampTz at)
{
	int64 event_ids[NCHECKS];

	SetConfigOption("synchronous_commit", "on", PGC_SUSET, PGC_S_OVERRIDE);
	if (!prom_era_xact_begin("raising and clearing alerts"))
		proc_exit(0);
	wait_briefly();
	/* A new database may be about to be restored: nothing may be in it. */
	if (!prom_mark_exists())
	{
		prom_xact_commit();
		return;
	}
	SPI_connect();
	for (int i = 0; i < NCHECKS; i++)
	{
		event_ids[i] = states[i].event_id;
		if (judgements[i].raised == (event_ids[i] != 0))
			continue;
		if (judgements[i].raised)
			event_ids[i] = raise_alert(&checks[i], &states[i], &judgements[i],
									   at);
		else
		{
			clear_alert(&checks[i], &states[i], &judgements[i], at);
			event_ids[i] = 0;
		}
	}
	SPI_finish();
	prom_wakeup_publisher();
	PROM_FAULT("alert-before-commit");
	prom_xact_commit();
	PROM_FAULT("alert-after-commit");
	for (int i = 0; i < NCHECKS; i++)
	{
		if (states[i].event_id == 0)
			states[i].raised_at = at;
		states[i].event_id = event_ids[i];
	}
	prom_mark_changed();
}

void
prom_alert_look(void)
{
	PromLook look = {.db = prom_my_database, .now = GetCurrentTimestamp()};
	Judgement judgements[NCHECKS];
	bool reloaded = reloaded_at != PgReloadTime;
	bool changed = false;

	reloaded_at = PgReloadTime;
	next_look = TimestampTzPlusMilliseconds(look.now, LOOK_INTERVAL);
	/* Who sets another threshold from here on asks anew. */
	if (pg_atomic_exchange_u32(&prom_my_database->vitals.asked, 0) != 0)
		states_known = false;
	prom_vital_follow(&look);
	prom_pulse_follow(&look);
	if (!states_known || prom_vital_must_read())
		read_what_is_kept();
	else if (reloaded)
		set_standards();
	for (int i = 0; i < NCHECKS; i++)
	{
		judge(&checks[i], &states[i], &look, &judgements[i]);
		changed |= judgements[i].raised != (states[i].event_id != 0);
	}
	if (changed)
		write_changes(judgements, look.now);
}

void
prom_alert_facts_changed(void)
{
	facts_changed = true;
}

/* What is unread, or dead, is not what it was when it was read last. */
static bool
readers_changed(void)
{
	return pg_atomic_read_u32(&prom_my_database->vitals.readers) != 0 ||
		   (has_readers &&
			pg_atomic_read_u64(&prom_my_database->marks.newest) != read_mark);
}

TimestampTz
prom_alert_measure_due(void)
{
	TimestampTz due = facts_changed ? next_measure : DT_NOEND;

	if (!readers_changed())
		return due;
	if (pg_atomic_read_u32(&prom_my_database->vitals.asked) != 0)
		return DT_NOBEGIN;
	return Min(due, next_reading);
}

static void
begin_measuring(void)
{
	if (!prom_worker_xact_begin("measuring for alerts"))
		proc_exit(0);
	wait_briefly();
	SPI_connect();
}

static void
end_measuring(void)
{
	SPI_finish();
	prom_xact_commit();
}

/* If that fails, it is tried again at the next time. */
static void
read_readers(PromLook *look)
{
	PromVitals *vitals = &prom_my_database->vitals;
	uint64 newest = pg_atomic_read_u64(&prom_my_database->marks.newest);

	next_reading = TimestampTzPlusMilliseconds(look->now, LOOK_INTERVAL);
	has_readers = true;
	read_mark = 0;
	/* Who changes something from here on is noticed the next time. */
	pg_atomic_write_u32(&vitals->readers, 0);
	pg_memory_barrier();
	begin_measuring();
	has_readers = prom_pulse_read_readers(look);
	end_measuring();
	read_mark = newest;
}

void
prom_alert_measure(void)
{
	PromLook look = {.db = prom_my_database, .now = GetCurrentTimestamp()};

	if (readers_changed() &&
		(next_reading <= look.now ||
		 pg_atomic_read_u32(&prom_my_database->vitals.asked) != 0))
		read_readers(&look);
	if (!facts_changed || next_measure > look.now)
		return;
	next_measure = TimestampTzPlusMilliseconds(look.now, MEASURE_INTERVAL);
	begin_measuring();
	prom_pulse_read_sizes(&look);
	end_measuring();
	facts_changed = false;
}
