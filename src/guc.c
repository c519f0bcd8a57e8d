/*
 * guc.c
 *	  Defines every setting prometheus.*.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "as_of.h"
#include "collector.h"
#include "compat.h"
#include "fault.h"
#include "guc.h"
#include "mutant.h"
#include "shmem.h"
#include "url.h"

bool prom_guc_allow_private_endpoints = false;
int prom_guc_capture_content = PROM_CAPTURE_OFF;
char *prom_guc_caused_by_text = NULL;
char *prom_guc_databases = NULL;
int prom_guc_executors = 2;
int prom_guc_mark_interval = 1000;
int prom_guc_max_crashes = 2;
int prom_guc_max_databases = 8;
int prom_guc_max_in_flight = 1000;
int prom_guc_max_request = 1024;
int prom_guc_max_state = 65536;
int prom_guc_max_subscriptions = 64;
int prom_guc_metric_series = 1000;
int prom_guc_network_memory = 262144;
int prom_guc_otlp_compression = PROM_COMPRESSION_GZIP;
char *prom_guc_otlp_endpoint = NULL;
char *prom_guc_otlp_headers = NULL;
int prom_guc_otlp_interval = 5000;
int prom_guc_otlp_metrics_interval = 60000;
char *prom_guc_otlp_service_name = NULL;
int prom_guc_otlp_timeout = 10000;
int prom_guc_queue_memory = 65536;
int prom_guc_rescan_interval = 30000;
int prom_guc_retention = 30 * SECS_PER_DAY;
int prom_guc_retention_audit = 730 * SECS_PER_DAY;
int prom_guc_retention_spans = 7 * SECS_PER_DAY;
int prom_guc_retention_waiting = 30 * SECS_PER_DAY;
int prom_guc_ring_size = 65536;
char *prom_guc_secrets_dir = NULL;
double prom_guc_trace_sample_ratio = 0.1;
int prom_guc_trace_slow = 300000;

static const struct config_enum_entry captures[] = {
	{"off", PROM_CAPTURE_OFF, false},
	{"metadata", PROM_CAPTURE_METADATA, false},
	{"full", PROM_CAPTURE_FULL, false},
	{NULL, 0, false},
};

static const struct config_enum_entry compressions[] = {
	{"none", PROM_COMPRESSION_NONE, false},
	{"gzip", PROM_COMPRESSION_GZIP, false},
	{NULL, 0, false},
};

/* Empty, or the id of an event. */
static bool
check_caused_by(char **newval, void **extra, GucSource source)
{
	char *end;

	if (**newval == '\0')
		return true;
	errno = 0;
	if (**newval < '0' || **newval > '9' ||
		strtoi64(*newval, &end, 10) <= 0 || *end != '\0' || errno != 0)
	{
		GUC_check_errdetail("It must be the id of an event, or empty.");
		return false;
	}
	return true;
}

int64
prom_guc_caused_by(void)
{
	if (prom_guc_caused_by_text == NULL || *prom_guc_caused_by_text == '\0')
		return 0;
	return strtoi64(prom_guc_caused_by_text, NULL, 10);
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	List *names;
	char *copy = pstrdup(*newval);
	bool ok = SplitIdentifierString(copy, ',', &names);

	if (!ok)
		GUC_check_errdetail("It must be a list of database names separated by commas.");
	else
		list_free(names);
	pfree(copy);
	return ok;
}

static bool
check_secrets_dir(char **newval, void **extra, GucSource source)
{
	if (**newval != '\0' && **newval != '/')
	{
		GUC_check_errdetail("It must be an absolute path, or empty.");
		return false;
	}
	return true;
}

static bool
check_ring_size(int *newval, void **extra, GucSource source)
{
	if ((*newval & (*newval - 1)) != 0)
	{
		GUC_check_errdetail("It must be a power of two.");
		return false;
	}
	return true;
}

static bool
check_otlp_endpoint(char **newval, void **extra, GucSource source)
{
	const char *problem = **newval == '\0' ? NULL : prom_url_problem(*newval);

	if (problem != NULL)
		GUC_check_errdetail("%s", problem);
	return problem == NULL;
}

/* What it is set to may be a key by mistake: it is not quoted. */
static bool
check_otlp_headers(char **newval, void **extra, GucSource source)
{
	const char *problem = prom_collector_headers_problem(*newval);

	if (problem == NULL)
		return true;
	GUC_check_errmsg("invalid value for parameter \"%s\"",
					 "prometheus.otlp_headers");
	GUC_check_errdetail("%s", problem);
	return false;
}

static bool
check_not_empty(char **newval, void **extra, GucSource source)
{
	return **newval != '\0';
}

static void
define_limits(void)
{
	/* A library loaded late may not define what only a start can set. */
	GucContext at_start = process_shared_preload_libraries_in_progress
							  ? PGC_POSTMASTER
							  : PGC_SIGHUP;

	DefineCustomIntVariable(
		"prometheus.executors",
		"Processes of one database that run tools and other SQL for its tasks.",
		"They are started when there is something to do, and end after a minute without.",
		&prom_guc_executors, 2, 1, PROM_MAX_EXECUTORS, PGC_SIGHUP, 0, NULL,
		NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.max_crashes",
		"Crashes of the server after which the task that caused them is quarantined.",
		"A task caused one if it was on the processor of the process that crashed.",
		&prom_guc_max_crashes, 2, 1, 100, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.max_databases", "Databases that can be served at once.",
		"Shared memory for each is reserved at server start.",
		&prom_guc_max_databases, 8, 1, PROM_MAX_DATABASES, at_start, 0, NULL,
		NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.max_in_flight",
		"Tasks of one database that may run at once.",
		"Nearly all of them wait for a model, in one process.",
		&prom_guc_max_in_flight, 1000, 1, 100000, at_start, 0, NULL, NULL,
		NULL);
	DefineCustomIntVariable("prometheus.max_request",
							"Longest request that can be submitted.",
							"An output_schema and an agent's instructions may be as long.",
							&prom_guc_max_request, 1024, 1, 65536, PGC_SUSET,
							GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("prometheus.max_state",
							"Longest value of a state that can be saved.",
							"In bytes of jsonb, which itself allows no more than 256 MB.",
							&prom_guc_max_state, 65536, 1, 262143, PGC_SUSET,
							GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.max_subscriptions",
		"Subscriptions that one role may have in one database.",
		"All roles together may have 256.", &prom_guc_max_subscriptions, 64, 0,
		PROM_MAX_SUBSCRIPTIONS, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.metric_series",
		"Series of metrics that are kept in one database.",
		"One for each set of labels of a metric; beyond it, what is new of a metric is one series. About 1 kB of shared memory each. A twentieth of it is for how many agents, and how many models, have labels of their own.",
		&prom_guc_metric_series, 1000, 20, 10000, at_start, 0, NULL, NULL,
		NULL);
	DefineCustomIntVariable(
		"prometheus.network_memory",
		"Bytes that all requests and replies under way may hold.",
		"A reply that would go beyond it fails and is tried again.",
		&prom_guc_network_memory, 262144, 1024, MAX_KILOBYTES, PGC_SIGHUP,
		GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.queue_memory", "Memory of a scheduler for live tasks.",
		"Tasks beyond it stay in the table and are read in when there is room.",
		&prom_guc_queue_memory, 65536, 1024, MAX_KILOBYTES, PGC_SIGHUP,
		GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.ring_size",
		"Hints of committed submits that can wait for a scheduler.",
		"A power of two. If the ring overflows, the scheduler reads the table instead.",
		&prom_guc_ring_size, 65536, 64, 1 << 24, at_start, 0, check_ring_size,
		NULL, NULL);
}

static void
define_retention(void)
{
	DefineCustomIntVariable(
		"prometheus.retention",
		"Time for which tasks are kept after their end, and versions after a newer one.",
		"0: for ever.", &prom_guc_retention, 30 * SECS_PER_DAY, 0, INT_MAX,
		PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.retention_audit",
		"Time for which verdicts, approvals and usage of deleted tasks are kept.",
		"0: for ever.", &prom_guc_retention_audit, 730 * SECS_PER_DAY, 0,
		INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.retention_spans",
		"Time for which the spans of applications are kept.",
		"0: for ever.", &prom_guc_retention_spans, 7 * SECS_PER_DAY, 0,
		INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.retention_waiting",
		"Time beyond prometheus.retention for which events wait for subscriptions that have not been given them, and tasks for their export.",
		"And with them all that came after them.", &prom_guc_retention_waiting,
		30 * SECS_PER_DAY, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL,
		NULL);
}

static void
define_export(void)
{
	DefineCustomEnumVariable(
		"prometheus.otlp_compression",
		"How what is exported is compressed.", NULL,
		&prom_guc_otlp_compression, PROM_COMPRESSION_GZIP, compressions,
		PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"prometheus.otlp_endpoint",
		"OpenTelemetry Collector that traces and metrics are exported to.",
		"Its address, without /v1/traces and /v1/metrics, which are appended. Empty: they are not exported, and when it is set again, traces of tasks that end from then on.",
		&prom_guc_otlp_endpoint, "", PGC_SIGHUP, 0, check_otlp_endpoint, NULL,
		NULL);
	DefineCustomStringVariable(
		"prometheus.otlp_headers",
		"Headers that it is sent, with the names of their secrets.",
		"A list of NAME=SECRET separated by commas; a secret is a file in prometheus.secrets_dir, or env:NAME.",
		&prom_guc_otlp_headers, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
		check_otlp_headers, NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.otlp_interval",
		"Time from the end of a task to the export of its trace.",
		"What has ended meanwhile is sent together; at once, if that is much.",
		&prom_guc_otlp_interval, 5000, 1, 3600000, PGC_SIGHUP, GUC_UNIT_MS,
		NULL, NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.otlp_metrics_interval",
		"Time between exports of metrics.",
		"They are sent if something was counted since. 0: never.",
		&prom_guc_otlp_metrics_interval, 60000, 0, 3600000, PGC_SIGHUP,
		GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"prometheus.otlp_service_name",
		"service.name of what is exported.", NULL,
		&prom_guc_otlp_service_name, "prometheus", PGC_SIGHUP, 0,
		check_not_empty, NULL, NULL);
	DefineCustomIntVariable(
		"prometheus.otlp_timeout",
		"Time that one attempt to export may take.",
		"Then it is made again.", &prom_guc_otlp_timeout, 10000, 1, 600000,
		PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

static void
define_tracing(void)
{
	DefineCustomEnumVariable(
		"prometheus.capture_content",
		"What spans tell of prompts, answers, arguments and results.",
		"off: nothing; metadata: how long they are; full: they themselves, redacted.",
		&prom_guc_capture_content, PROM_CAPTURE_OFF, captures, PGC_SUSET, 0,
		NULL, NULL, NULL);
	DefineCustomRealVariable(
		"prometheus.trace_sample_ratio",
		"Part of all traces that are sampled, from 0 to 1.",
		"By their ids. Those with an error, a veto or a dead letter, slow ones and those of tasks whose metadata say so are sampled all.",
		&prom_guc_trace_sample_ratio, 0.1, 0, 1, PGC_SIGHUP, 0, NULL, NULL,
		NULL);
	DefineCustomIntVariable(
		"prometheus.trace_slow",
		"Time from the submit of a task to its end above which its trace is sampled in any case.",
		"0: never because of that.", &prom_guc_trace_slow, 300000, 0, INT_MAX,
		PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

void
prom_guc_define(void)
{
	DefineCustomBoolVariable(
		"prometheus.allow_private_endpoints",
		"Lets models be at private and loopback addresses.",
		"Off, every such address is refused after resolving, and http with it.",
		&prom_guc_allow_private_endpoints, false, PGC_SIGHUP, 0, NULL, NULL,
		NULL);
	prom_as_of_define();
	DefineCustomStringVariable(
		"prometheus.caused_by",
		"The event that causes what is emitted or submitted.",
		"Its id. Empty: none. In a task's tool it is the task, whatever this says.",
		&prom_guc_caused_by_text, "", PGC_USERSET,
		GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, check_caused_by, NULL, NULL);
	DefineCustomStringVariable(
		"prometheus.databases",
		"Databases whose tasks are run, separated by commas.",
		"Empty: no workers but the launcher.", &prom_guc_databases, "",
		PGC_SIGHUP, GUC_LIST_INPUT, check_databases, NULL, NULL);
	define_limits();
	DefineCustomIntVariable(
		"prometheus.mark_interval",
		"Time between two marks while facts change.",
		"AS OF shows what the last mark before a moment saw.",
		&prom_guc_mark_interval, 1000, 10, 3600000, PGC_SIGHUP, GUC_UNIT_MS,
		NULL, NULL, NULL);
	define_export();
	DefineCustomIntVariable(
		"prometheus.rescan_interval",
		"Time after which a scheduler looks for tasks that came without a hint.",
		"It looks only if transactions ended meanwhile: prepared transactions and logical replication give no hints.",
		&prom_guc_rescan_interval, 30000, 100, 3600000, PGC_SIGHUP, GUC_UNIT_MS,
		NULL, NULL, NULL);
	define_retention();
	DefineCustomStringVariable(
		"prometheus.secrets_dir",
		"Directory of the files that hold the keys of models.",
		"Empty: keys come from the server's environment only (env:NAME).",
		&prom_guc_secrets_dir, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
		check_secrets_dir, NULL, NULL);
	define_tracing();
#ifdef PROM_FAULTS
	prom_fault_define();
	prom_mutant_define();
#endif
	MarkGUCPrefixReserved("prometheus");
}

List *
prom_guc_database_names(void)
{
	List *names = NIL;
	List *copies = NIL;
	ListCell *cell;
	char *copy;

	if (prom_guc_databases == NULL)
		return NIL;
	copy = pstrdup(prom_guc_databases);
	if (!SplitIdentifierString(copy, ',', &names))
		return NIL;
	foreach(cell, names)
		copies = lappend(copies, pstrdup((char *) lfirst(cell)));
	list_free(names);
	pfree(copy);
	return copies;
}

char *
prom_guc_serve_hint(const char *database)
{
	const char *set = prom_guc_databases == NULL ? "" : prom_guc_databases;
	char *names = psprintf("%s%s%s", set, *set == '\0' ? "" : ",",
						   quote_identifier(database));
	ListCell *cell;

	foreach(cell, prom_guc_database_names())
		if (strcmp((char *) lfirst(cell), database) == 0)
			return psprintf("It is in prometheus.databases; if it stays so, the server's log says why (prometheus.max_databases is %d).",
							prom_guc_max_databases);
	return psprintf("ALTER SYSTEM SET prometheus.databases = %s; SELECT pg_reload_conf();",
					quote_literal_cstr(names));
}
