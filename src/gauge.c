/*
 * gauge.c
 *	  Reads the gauges: what there is of something at this moment.
 *
 * All of it is in shared memory, so the time that it takes depends on what
 * runs, waits and is configured, and not on what has been done.  What nobody
 * can say has no sample.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "gate.h"
#include "gauge.h"
#include "guc.h"
#include "queue.h"
#include "span.h"
#include "vital.h"
#include "worker.h"

#define GAUGE(dotted, of, said)                         \
	{                                                   \
		.name = (dotted), .unit = (of), .help = (said), \
		.type = PROM_GAUGE, .scale = 1                  \
	}

#define GAUGE_BY(dotted, of, said, ...)                           \
	{                                                             \
		.name = (dotted), .unit = (of), .help = (said),           \
		.type = PROM_GAUGE, .scale = 1, .labels = { __VA_ARGS__ } \
	}

#define WORD(name)              \
	{                           \
		(name), PROM_LABEL_WORD \
	}

enum
{
	BUILD,
	RECOVERY,
	SERVED,
	WORKERS,
	TASKS_IN_FLIGHT,
	TASKS_LIMIT,
	REQUESTS,
	JOBS,
	QUEUE,
	OLDEST_DUE,
	GATE_OPEN,
	GATE_IN_FLIGHT,
	SPANS_OPEN,
	SPANS_WAITING,
	SPANS_DROPPED,
	SERIES,
	SERIES_LIMIT,
	VITALS /* the first of those that vitals[] reads */
};

const PromMetric prom_gauges[] = {
	[BUILD] = GAUGE_BY("prom_agent.build.info", "",
					   "1; version: of the library.", WORD("version")),
	[RECOVERY] = GAUGE("prom_agent.in_recovery", "",
					   "1 on a standby, where no worker runs; else 0."),
	[SERVED] = GAUGE("prom_agent.database.served", "",
					 "1 if tasks of this database are run; else 0."),
	[WORKERS] = GAUGE_BY("prom_agent.workers", "{process}",
						 "Processes of prometheus that run, by their role.",
						 WORD("role")),
	[TASKS_IN_FLIGHT] = GAUGE("prom_agent.tasks.in_flight", "{task}",
							  "Tasks that run."),
	[TASKS_LIMIT] = GAUGE("prom_agent.tasks.in_flight_limit", "{task}",
						  "Tasks that may run at once: prometheus.max_in_flight."),
	[REQUESTS] = GAUGE("prom_agent.requests.in_flight", "{request}",
					   "Requests on the network."),
	[JOBS] = GAUGE_BY("prom_agent.jobs", "{job}",
					  "Jobs of executors that have not ended; kind: task or delivery.",
					  WORD("kind")),
	[QUEUE] = GAUGE_BY("prom_agent.queue.tasks", "{task}",
					   "Live tasks that the scheduler holds; state blocked: by tasks before them; later: their time has not come; behind: another has their key.",
					   WORD("state")),
	[OLDEST_DUE] = GAUGE("prom_agent.queue.oldest", "s",
						 "Time for which a task that could run has waited, at most."),
	[GATE_OPEN] = GAUGE_BY("prom_agent.gate.open", "",
						   "1 if the gate is open; 0 if it is paused or closed.",
						   WORD("kind"), WORD("name")),
	[GATE_IN_FLIGHT] = GAUGE_BY("prom_agent.gate.in_flight", "{request}",
								"What is under way behind the gate.",
								WORD("kind"), WORD("name")),
	[SPANS_OPEN] = GAUGE("prom_agent.spans.open", "{span}",
						 "Spans of applications that have not ended."),
	[SPANS_WAITING] = GAUGE("prom_agent.spans.waiting", "{span}",
							"Those that have, and are not written."),
	[SPANS_DROPPED] = GAUGE("prom_agent.spans.dropped", "{span}",
							"Those for which there was no room, since the server's start."),
	[SERIES] = GAUGE("prom_agent.metrics.series", "{series}",
					 "Series of counters and histograms."),
	[SERIES_LIMIT] = GAUGE("prom_agent.metrics.series_limit", "{series}",
						   "Beyond it new ones become one: prometheus.metric_series."),
	[VITALS] =
		GAUGE("prom_agent.server.wal_since_checkpoint", "By",
			  "Write-ahead log since the last checkpoint began."),
	GAUGE("prom_agent.server.wal_rate", "By/s",
		  "Write-ahead log of the server, per second."),
	GAUGE("prom_agent.server.wal_kept_by_slots", "By",
		  "Write-ahead log that replication slots keep, at most."),
	GAUGE("prom_agent.server.archive_failures", "{segment}",
		  "Segments in a row that could not be archived."),
	GAUGE("prom_agent.server.replica_lag", "By",
		  "Write-ahead log that a replica has not replayed, at most."),
	GAUGE("prom_agent.server.oldest_snapshot", "s",
		  "Age of the oldest transaction that holds back clean-up."),
	GAUGE("prom_agent.gates.closed", "s",
		  "Time since when a gate has been closed or paused, at most."),
	GAUGE("prom_agent.models.unpaid", "{model}",
		  "Models whose provider asks for money."),
	GAUGE("prom_agent.consumers.lag", "s",
		  "Age of the oldest event that a consumer or subscription has not had."),
	GAUGE("prom_agent.dead_letters", "{delivery}",
		  "Deliveries that were given up, counted to 10000."),
	GAUGE("prom_agent.marks.late", "s",
		  "Time for which facts have waited for a mark."),
	GAUGE("prom_agent.workers.missing", "s",
		  "Time for which a process has been missing, at most."),
	GAUGE("prom_agent.worker_processes.used", "1",
		  "Part of max_worker_processes that prometheus needs."),
	GAUGE("prom_agent.storage.size", "By", "Size of prometheus's relations."),
	GAUGE("prom_agent.storage.growth", "By", "The same, within a day."),
	GAUGE("prom_agent.budget.spent", "1",
		  "Part of a budget that is spent, of the one that is nearest to its limit."),
};

/* In that order. */
static const struct
{
	PromVital vital;
	double scale;
} vitals[] = {
	{prom_vital_wal, 1},
	{prom_vital_wal_rate, 1},
	{prom_vital_slots, 1},
	{prom_vital_archiver, 1},
	{prom_vital_replicas, 1},
	{prom_vital_snapshot, 1},
	{prom_pulse_gates, 1},
	{prom_pulse_money, 1},
	{prom_pulse_lag, 1},
	{prom_pulse_dead, 1},
	{prom_pulse_marks, 1},
	{prom_pulse_workers, 1},
	{prom_vital_places, 100},
	{prom_pulse_size, 1},
	{prom_pulse_growth, 1},
	{prom_pulse_budget, 100},
};

const int prom_ngauges = lengthof(prom_gauges);

StaticAssertDecl(lengthof(prom_gauges) == VITALS + lengthof(vitals),
				 "each vital has a metric");

typedef struct Readings
{
	PromSample *samples;
	int n;
	int room;
} Readings;

static void
put(Readings *readings, int which, double value, const char *first,
	const char *second)
{
	PromSample *sample;

	if (readings->n == readings->room)
	{
		readings->room *= 2;
		readings->samples = repalloc(readings->samples,
									 readings->room * sizeof(PromSample));
	}
	sample = &readings->samples[readings->n++];
	memset(sample, 0, sizeof(*sample));
	sample->metric = &prom_gauges[which];
	sample->value = value;
	sample->labels[0] = first;
	sample->labels[1] = second;
}

/* Processes that are there, by their roles. */
static void
put_workers(Readings *readings, PromDatabase *db)
{
	int n[PROM_NROLES + 1] = {0};

	LWLockAcquire(prom_shared->lock, LW_SHARED);
	n[PROM_LAUNCHER] = prom_shared->launcher.pid != 0 ? 1 : 0;
	for (int place = 0; db != NULL && place < PROM_NPLACES; place++)
		if (db->worker[place].pid != 0)
			n[PROM_ROLE_OF(place)]++;
	LWLockRelease(prom_shared->lock);
	for (int role = 0; role <= PROM_LAUNCHER; role++)
		put(readings, WORKERS, n[role], prom_worker_role_name(role), NULL);
}

static void
put_load(Readings *readings, PromDatabase *db)
{
	put(readings, TASKS_IN_FLIGHT,
		pg_atomic_read_u32(&db->worker[PROM_SCHEDULER].in_flight), NULL, NULL);
	put(readings, TASKS_LIMIT, prom_guc_max_in_flight, NULL, NULL);
	put(readings, REQUESTS,
		pg_atomic_read_u32(&db->worker[PROM_CALLER].in_flight), NULL, NULL);
	put(readings, JOBS, pg_atomic_read_u32(&db->wanted), "task", NULL);
	put(readings, JOBS, pg_atomic_read_u32(&db->wanted_handlers), "delivery",
		NULL);
}

static void
put_spans(Readings *readings, PromDatabase *db)
{
	PromSpanCounts counts;

	prom_span_count(db, &counts);
	put(readings, SPANS_OPEN, counts.open, NULL, NULL);
	put(readings, SPANS_WAITING, counts.waiting, NULL, NULL);
	put(readings, SPANS_DROPPED, counts.dropped, NULL, NULL);
}

static void
put_queue(Readings *readings, PromLook *look)
{
	static const char *const names[PROM_NQUEUE_STATES] = {
		[PROM_QUEUE_BLOCKED] = "blocked",
		[PROM_QUEUE_LATER] = "later",
		[PROM_QUEUE_READY] = "ready",
		[PROM_QUEUE_BEHIND] = "behind",
		[PROM_QUEUE_RUNNING] = "running",
	};
	PromPulseQueue seen;

	if (!prom_pulse_queue(look->db, &seen))
		return;
	for (int state = 0; state < PROM_NQUEUE_STATES; state++)
		if (names[state] != NULL)
			put(readings, QUEUE, seen.tasks[state], names[state], NULL);
	put(readings, OLDEST_DUE,
		seen.oldest == 0 || look->now <= seen.since
			? 0
			: (look->now - seen.since) / (double) USECS_PER_SEC,
		NULL, NULL);
}

/* One place for each, given back or not. */
static void
put_gates(Readings *readings, PromLook *look)
{
	static const char *const kinds[] = {
		[PROM_GATE_ALL] = "all",
		[PROM_GATE_AGENT] = "agent",
		[PROM_GATE_MODEL] = "model",
		[PROM_GATE_SUBSCRIPTION] = "subscription",
	};
	uint32 n = pg_atomic_read_u32(&look->db->ngates);
	PromGate *gates = palloc(n * sizeof(PromGate));

	LWLockAcquire(look->db->gate_lock, LW_SHARED);
	memcpy(gates, look->db->gates, n * sizeof(PromGate));
	LWLockRelease(look->db->gate_lock);
	for (uint32 i = 0; i < n; i++)
		if (gates[i].kind != PROM_GATE_NONE)
			put(readings, GATE_OPEN,
				prom_gate_is_open(&gates[i], look->now) ? 1 : 0,
				kinds[gates[i].kind], gates[i].name);
	for (uint32 i = 0; i < n; i++)
		if (gates[i].kind == PROM_GATE_MODEL ||
			gates[i].kind == PROM_GATE_SUBSCRIPTION)
			put(readings, GATE_IN_FLIGHT,
				pg_atomic_read_u32(&gates[i].in_flight), kinds[gates[i].kind],
				gates[i].name);
}

PromSample *
prom_gauge_read(PromDatabase *db, int *n)
{
	PromLook look = {.db = db, .now = GetCurrentTimestamp()};
	Readings readings = {.room = 64};
	int limit;

	readings.samples = palloc(readings.room * sizeof(PromSample));
	put(&readings, BUILD, 1, PROM_VERSION, NULL);
	put(&readings, RECOVERY, RecoveryInProgress() ? 1 : 0, NULL, NULL);
	put(&readings, SERVED, db != NULL ? 1 : 0, NULL, NULL);
	if (prom_shared != NULL)
		put_workers(&readings, db);
	if (db != NULL)
	{
		put_load(&readings, db);
		put_queue(&readings, &look);
		put_gates(&readings, &look);
		put_spans(&readings, db);
		put(&readings, SERIES, prom_metric_count(db, &limit), NULL, NULL);
		put(&readings, SERIES_LIMIT, limit, NULL, NULL);
	}
	for (int i = 0; prom_shared != NULL && i < lengthof(vitals); i++)
	{
		double value = vitals[i].vital(&look);

		if (value >= 0)
			put(&readings, VITALS + i, value / vitals[i].scale, NULL, NULL);
	}
	*n = readings.n;
	return readings.samples;
}

bool
prom_gauge_drifts(const PromMetric *metric)
{
	static const char *const groups[] = {"prom_agent.server.",
										 "prom_agent.storage.",
										 "prom_agent.worker_processes."};

	for (int i = 0; metric->type == PROM_GAUGE && i < lengthof(groups); i++)
		if (strncmp(metric->name, groups[i], strlen(groups[i])) == 0)
			return true;
	return false;
}
