/*
 * health.c
 *	  Says whether everything that tasks need is there, and what to do if not.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "alert.h"
#include "backup.h"
#include "consumer.h"
#include "encoding.h"
#include "era.h"
#include "exported.h"
#include "extension.h"
#include "gate.h"
#include "guc.h"
#include "role.h"
#include "shmem.h"
#include "span.h"
#include "subscription.h"
#include "track.h"
#include "worker.h"

/* Processes of the server's own and of one parallel query. */
#define OTHER_PROCESSES 5

/* A consumer of events that is behind by this is worth a word, s. */
#define LATE_CONSUMER 3600

static void
put(ReturnSetInfo *result, const char *name, const char *status,
	const char *value, const char *hint)
{
	Datum values[4];
	bool nulls[4] = {false};

	values[0] = CStringGetTextDatum(name);
	values[1] = CStringGetTextDatum(status);
	values[2] = CStringGetTextDatum(value);
	nulls[3] = hint == NULL;
	values[3] = hint == NULL ? (Datum) 0 : CStringGetTextDatum(hint);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
put_process(ReturnSetInfo *result, PromRole role, const PromWorker *worker)
{
	const char *name = prom_worker_role_name(role);

	if (worker->pid != 0)
		put(result, name, "ok",
			psprintf("runs as process %d", (int) worker->pid), NULL);
	else
		put(result, name, "error", "does not run",
			"The server's log says why; the launcher starts it again by itself.");
}

/* They come and go; jobs that wait for one are worth a word. */
static void
put_executors(ReturnSetInfo *result, PromDatabase *db)
{
	int wanted = pg_atomic_read_u32(&db->wanted);
	int n = 0;

	for (int place = PROM_EXECUTOR; place < PROM_EXECUTOR + PROM_MAX_EXECUTORS;
		 place++)
		if (db->worker[place].pid != 0)
			n++;
	if (n == 0 && wanted > 0)
		put(result, "executors", "warning",
			psprintf("none runs, for %d jobs", wanted),
			"They are being started; if that lasts, the server's log says why.");
	else
		put(result, "executors", "ok",
			psprintf("%d of %d, for %d jobs", n, prom_guc_executors, wanted),
			NULL);
}

/* Is what is in this database what the library knows?  True: it is. */
static bool
put_extension(ReturnSetInfo *result)
{
	PromExtension extension;
	char *files;

	if (!prom_extension_find(&extension))
		return false;
	if (strcmp(extension.version, PROM_VERSION) == 0)
	{
		put(result, "extension", "ok",
			psprintf("version %s", extension.version), NULL);
		return true;
	}
	files = prom_extension_files();
	put(result, "extension", "error",
		psprintf("version %s, with a library of version %s and files of version %s: no task runs",
				 extension.version, PROM_VERSION,
				 files == NULL ? "unknown" : files),
		prom_extension_advice(extension.version, files));
	return false;
}

/* Gates that a person should know of; those of others' are only counted. */
static void
put_gates(ReturnSetInfo *result, PromDatabase *db)
{
	TimestampTz now = GetCurrentTimestamp();
	uint32 n = pg_atomic_read_u32(&db->ngates);
	PromGate *gates = palloc(n * sizeof(PromGate));
	StringInfoData closed;
	int there = 0;
	int of_others = 0;

	initStringInfo(&closed);
	LWLockAcquire(db->gate_lock, LW_SHARED);
	memcpy(gates, db->gates, n * sizeof(PromGate));
	LWLockRelease(db->gate_lock);
	for (uint32 i = 0; i < n; i++)
	{
		there += gates[i].kind != PROM_GATE_NONE ? 1 : 0;
		/* That it keeps to its rate is no trouble. */
		if (prom_gate_is_open(&gates[i], now) ||
			prom_gate_is_held(&gates[i], now))
			continue;
		if (gates[i].kind == PROM_GATE_SUBSCRIPTION &&
			!prom_subscription_shows(gates[i].name))
			of_others++;
		else
			appendStringInfo(&closed, "%s%s %s", closed.len > 0 ? ", " : "",
							 prom_gate_target(&gates[i]),
							 gates[i].paused ? "is paused" : "is closed");
	}
	if (of_others > 0)
		appendStringInfo(&closed, "%s%d of others' subscriptions",
						 closed.len > 0 ? ", and " : "", of_others);
	if (closed.len == 0)
		put(result, "gates", "ok", psprintf("%d, all open", there), NULL);
	else
		put(result, "gates", "warning", closed.data,
			"SELECT * FROM prometheus.gate says why; prometheus_resume() opens one.");
}

/* Is this database a copy, which waits to be let run? */
static void
put_era(ReturnSetInfo *result)
{
	PromEra era;

	prom_era_read(&era);
	if (era.waits)
		put(result, "era", "warning",
			psprintf("%d; a copy of another database, all tasks are paused",
					 era.era),
			"SELECT prometheus_resume() lets them run.");
	else if (!era.is_ours)
		put(result, "era", "warning",
			psprintf("%d, of another database; all tasks will be paused",
					 era.era),
			"This is a copy: the next submit or its scheduler begins a new era.");
	else
		put(result, "era", "ok", psprintf("%d", era.era), NULL);
}

static void
put_database(ReturnSetInfo *result, PromDatabase *db)
{
	char *name = get_database_name(MyDatabaseId);

	if (db == NULL)
	{
		put(result, "database", "error", psprintf("%s is not served", name),
			prom_guc_serve_hint(name));
		return;
	}
	if (db->holders > 0)
		put(result, "database", "warning",
			psprintf("%s has no workers until a statement has ended", name),
			"A session renames, moves or copies it; its transaction is still open.");
	else
		put(result, "database", "ok", psprintf("%s is served", name), NULL);
	for (int role = 0; role < PROM_EXECUTOR; role++)
		put_process(result, role, &db->worker[role]);
	put_executors(result, db);
	put(result, "tasks in flight", "ok",
		psprintf("%u of %d",
				 pg_atomic_read_u32(&db->worker[PROM_SCHEDULER].in_flight),
				 prom_guc_max_in_flight),
		NULL);
	put_gates(result, db);
	put(result, "scans of the task table", "ok",
		psprintf(UINT64_FORMAT, pg_atomic_read_u64(&db->rescans)), NULL);
}

static void
put_places(ReturnSetInfo *result)
{
	int needed = prom_worker_places_needed();
	bool enough = max_worker_processes >= needed + OTHER_PROCESSES;

	put(result, "max_worker_processes", enough ? "ok" : "warning",
		psprintf("%d, of which prometheus needs %d", max_worker_processes,
				 needed),
		enough
			? NULL
			: "Raise it (16 suits one database) and restart, or parallel queries and other extensions may lack workers.");
}

static void
put_secrets(ReturnSetInfo *result)
{
	struct stat st;

	if (prom_guc_secrets_dir == NULL || *prom_guc_secrets_dir == '\0')
		put(result, "secrets", "ok", "only from the server's environment",
			NULL);
	else if (stat(prom_guc_secrets_dir, &st) != 0 || !S_ISDIR(st.st_mode))
		put(result, "secrets", "error",
			"prometheus.secrets_dir is not a directory",
			"Make it, owned by the server's user, mode 0700.");
	else if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
		put(result, "secrets", "warning",
			"others may write prometheus.secrets_dir", "Set its mode to 0700.");
	else
		put(result, "secrets", "ok", "from prometheus.secrets_dir", NULL);
}

static void
put_notifications(ReturnSetInfo *result)
{
	double usage = DatumGetFloat8(
		DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0));

	put(result, "notification queue", usage < 0.5 ? "ok" : "warning",
		psprintf("%.0f %% used", 100 * usage),
		usage < 0.5 ? NULL
					: "A listener that stays in a transaction holds it up.");
}

static void
put_backups(ReturnSetInfo *result)
{
	PromBackupFinding archiving = prom_backup_archiving();
	PromBackupFinding last = prom_backup_last();

	put(result, "archiving", archiving.status, archiving.value,
		archiving.hint);
	put(result, "backup", last.status, last.value, last.hint);
}

/* Tables whose rows are to be recorded. */
static void
put_tracking(ReturnSetInfo *result)
{
	StringInfoData interrupted;
	int n;

	initStringInfo(&interrupted);
	n = prom_track_count(&interrupted);
	if (interrupted.len == 0)
		put(result, "tracked tables", "ok", psprintf("%d", n), NULL);
	else
		put(result, "tracked tables", "warning",
			psprintf("%d; not recorded any more: %s", n, interrupted.data),
			"Their triggers were disabled or dropped, or they were made anew: SELECT prometheus_track('TABLE') begins anew, prometheus_track('TABLE', false) ends it.");
}

/* Who reads events, and has not for long. */
static void
put_consumers(ReturnSetInfo *result)
{
	StringInfoData late;
	int n;

	initStringInfo(&late);
	n = prom_consumer_count(LATE_CONSUMER, &late);
	if (late.len == 0)
		put(result, "consumers", "ok", psprintf("%d", n), NULL);
	else
		put(result, "consumers", "warning",
			psprintf("%d; more than an hour behind: %s", n, late.data),
			"SELECT * FROM prometheus.consumer shows how far. Events go after prometheus.retention, read or not: let them be polled and acknowledged, or prometheus_drop_consumer().");
}

static void
put_subscriptions(ReturnSetInfo *result)
{
	PromSubscriptions found;

	prom_subscription_look(&found);
	if (found.disabled != NULL)
		put(result, "subscriptions", "warning",
			psprintf("%d; disabled: %s", found.n, found.disabled),
			"prometheus.subscription says why; prometheus_subscribe() again enables one. Its events wait.");
	else if (found.lagging != NULL)
		put(result, "subscriptions", "warning",
			psprintf("%d; late: %s", found.n, found.lagging),
			"prometheus.delivery and prometheus.gate say why. Its events wait.");
	else
		put(result, "subscriptions", "ok", psprintf("%d", found.n), NULL);
	if (found.holding != NULL)
		put(result, "retention", "warning",
			psprintf("held back by subscriptions: %s", found.holding),
			"What they have not been given is kept, and all that came after it, for prometheus.retention_waiting longer: enable them with prometheus_subscribe(), resume them, or prometheus_unsubscribe().");
	else
		put(result, "retention", "ok", "held back by no subscription", NULL);
	if (found.dead > 0)
		put(result, "dead letters", "warning",
			psprintf("%lld: %s", found.dead, found.dead_of),
			"prometheus.dead_letter says why; prometheus_redrive() delivers them again, prometheus_discard() takes them away.");
	else
		put(result, "dead letters", "ok", "none", NULL);
}

static void
put_export(ReturnSetInfo *result, PromDatabase *db)
{
	PromExported now;
	const char *error = "";

	if (prom_guc_otlp_endpoint == NULL || *prom_guc_otlp_endpoint == '\0')
		put(result, "export", "ok", "off", NULL);
	else if (!prom_exported_look(db, &now))
		put(result, "export", "warning", "has not begun",
			"The caller turns it on: see whether it runs.");
	else if (now.failing_since != 0)
	{
		if (prom_role_is_admin())
			error = psprintf(": %s", prom_encoding_from_utf8(now.error));
		put(result, "export", "warning",
			psprintf("fails since %s%s", timestamptz_to_str(now.failing_since),
					 error),
			"Nothing is lost while it lasts, and prometheus.export shows more; see to the receiver and prometheus.otlp_endpoint, otlp_headers and allow_private_endpoints. What it refuses with 400, 500 and the like is not sent again.");
	}
	else if (now.count.refused > 0 || now.count.rejected > 0 ||
			 now.count.dropped > 0)
		put(result, "export", "warning",
			psprintf("%lld spans; %lld refused, %lld rejected, %lld could not be written",
					 (long long) now.count.spans,
					 (long long) now.count.refused,
					 (long long) now.count.rejected,
					 (long long) now.count.dropped),
			"prometheus.export says what the receiver said last; what could not be written is in the server's log.");
	else
		put(result, "export", "ok",
			psprintf("%lld spans", (long long) now.count.spans), NULL);
}

/* Spans of applications that nobody will see. */
static void
put_spans(ReturnSetInfo *result, PromDatabase *db)
{
	uint64 dropped = prom_span_dropped(db);

	if (dropped == 0)
		put(result, "spans", "ok", "none was dropped", NULL);
	else
		put(result, "spans", "warning",
			psprintf(UINT64_FORMAT " of applications were dropped since the server's start",
					 dropped),
			psprintf("There is room for %d that wait to be written: end fewer at once, and see that the publisher runs.",
					 PROM_SPANS));
}

/* What is over its threshold. */
static void
put_alerts(ReturnSetInfo *result)
{
	int nchecks;
	List *findings = prom_alert_findings(&nchecks);
	ListCell *cell;

	if (findings == NIL)
		put(result, "alerts", "ok", psprintf("none of %d is raised", nchecks),
			NULL);
	foreach(cell, findings)
	{
		PromAlertFinding *finding = lfirst(cell);

		put(result, psprintf("alert %s", finding->name), "warning",
			finding->value, finding->hint);
	}
}

PG_FUNCTION_INFO_V1(prom_health);

Datum
prom_health(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	bool is_ours;

	InitMaterializedSRF(fcinfo, 0);
	if (prom_shared == NULL)
	{
		put(result, "library", "error", "not in shared_preload_libraries",
			"Add to postgresql.conf: shared_preload_libraries = 'prometheus', and restart.");
		return (Datum) 0;
	}
	put(result, "library", "ok", "version " PROM_VERSION, NULL);
	is_ours = put_extension(result);
	if (RecoveryInProgress())
	{
		put(result, "standby", "ok", "no worker runs before promotion", NULL);
		return (Datum) 0;
	}
	put_era(result);
	put_tracking(result);
	put_subscriptions(result);
	put_consumers(result);
	put_process(result, PROM_LAUNCHER, &prom_shared->launcher);
	put_database(result, db);
	put_places(result);
	put_secrets(result);
	put_export(result, db);
	if (db != NULL)
		put_spans(result, db);
	put_notifications(result);
	put_backups(result);
	if (is_ours)
		put_alerts(result);
	return (Datum) 0;
}
