/*
 * tally.c
 *	  What is counted, and who counts it.
 *
 * Here is the table of all metrics.  Names that OpenTelemetry has for it are
 * used as they are, with the buckets that it asks for; what is our own begins
 * with prom_agent, since others measure themselves by "prometheus".
 */
#include "postgres.h"

#include <math.h>

#include "executor/instrument.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "gate.h"
#include "tally.h"
#include "worker.h"

/* Seconds are counted in microseconds, money in its billionths. */
#define MICRO 1e6
#define NANO 1e9

/* What a peer says that it used is believed up to this, in one reply. */
#define MOST_TOKENS INT64CONST(10000000)
#define MOST_COST 1e6

/* What OpenTelemetry asks for. */
static const double call_bounds[] = {
	0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64,
	1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92};
static const double token_bounds[] = {
	1, 4, 16, 64, 256, 1024, 4096,
	16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864};

/* A tenth of a second to a week; a millisecond to a day; to an hour. */
static const double task_bounds[] = {
	0.1, 1, 5, 15, 60, 300, 900,
	1800, 3600, 10800, 21600, 43200, 86400, 604800};
static const double wait_bounds[] = {
	0.001, 0.01, 0.05, 0.1, 0.5, 1, 5,
	15, 60, 300, 900, 3600, 21600, 86400};
static const double step_bounds[] = {
	0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1,
	2.5, 5, 10, 30, 60, 300, 3600};

#define HISTOGRAM(list) \
	.type = PROM_HISTOGRAM, .bounds = (list), .nbounds = lengthof(list)

#define AGENT                     \
	{                             \
		"agent", PROM_LABEL_AGENT \
	}
#define MODEL                     \
	{                             \
		"model", PROM_LABEL_MODEL \
	}
#define WORD(name)              \
	{                           \
		(name), PROM_LABEL_WORD \
	}
#define TARGET                                    \
	{                                             \
		"gen_ai.request.model", PROM_LABEL_TARGET \
	}

const PromMetric prom_metrics[PROM_NMETRICS] = {
	[PROM_METRIC_SUBMITTED] = {
		.name = "prom_agent.tasks.submitted",
		.unit = "{task}",
		.help = "Tasks that were submitted and committed, but by a prepared transaction.",
		.type = PROM_COUNTER,
		.scale = 1,
		.labels = {AGENT},
	},
	[PROM_METRIC_ENDED] = {
		.name = "prom_agent.tasks.ended",
		.unit = "{task}",
		.help = "Tasks that have ended, by their last status.",
		.type = PROM_COUNTER,
		.scale = 1,
		.labels = {AGENT, WORD("outcome")},
	},
	[PROM_METRIC_ATTEMPTS] = {
		.name = "prom_agent.attempts.ended",
		.unit = "{attempt}",
		.help = "Attempts that have ended, and tasks that ended before one; outcome retry: another one follows; waiting: for a person or another task; lost: its process ended.",
		.type = PROM_COUNTER,
		.scale = 1,
		.labels = {WORD("outcome"), WORD("error.type")},
	},
	[PROM_METRIC_QUEUE_WAIT] = {
		.name = "prom_agent.queue.wait",
		.unit = "s",
		.help = "Time until the first attempt of a task, from its submission, its run_at or its retry by hand.",
		HISTOGRAM(wait_bounds),
		.scale = MICRO,
		.labels = {AGENT},
	},
	[PROM_METRIC_TASK] = {
		.name = "prom_agent.task.duration",
		.unit = "s",
		.help = "Time until the end of a task, from its submission, its run_at or its retry by hand.",
		HISTOGRAM(task_bounds),
		.scale = MICRO,
		.labels = {AGENT, WORD("outcome")},
	},
	[PROM_METRIC_STEP] = {
		.name = "prom_agent.step.duration",
		.unit = "s",
		.help = "Time that steps took, by their kind and status.",
		HISTOGRAM(step_bounds),
		.scale = MICRO,
		.labels = {WORD("kind"), WORD("status")},
	},
	[PROM_METRIC_OPERATION] = {
		.name = "gen_ai.client.operation.duration",
		.unit = "s",
		.help = "Time from a request to a model to the end of its reply.",
		HISTOGRAM(call_bounds),
		.scale = MICRO,
		.labels = {WORD("gen_ai.operation.name"), WORD("gen_ai.provider.name"), TARGET, WORD("error.type")},
	},
	[PROM_METRIC_FIRST_CHUNK] = {
		.name = "gen_ai.client.operation.time_to_first_chunk",
		.unit = "s",
		.help = "Time from a request to a model to the first byte of its reply, if it is streamed.",
		HISTOGRAM(call_bounds),
		.scale = MICRO,
		.labels = {WORD("gen_ai.operation.name"), WORD("gen_ai.provider.name"), TARGET},
	},
	[PROM_METRIC_TOKEN_USAGE] = {
		.name = "gen_ai.client.token.usage",
		.unit = "{token}",
		.help = "Tokens of one request and its reply, as the provider counted them.",
		HISTOGRAM(token_bounds),
		.scale = 1,
		.labels = {WORD("gen_ai.operation.name"), WORD("gen_ai.provider.name"), TARGET, WORD("gen_ai.token.type")},
	},
	[PROM_METRIC_TOKENS] = {
		.name = "prom_agent.tokens",
		.unit = "{token}",
		.help = "Tokens, as the providers counted them; cached are a part of input, reasoning of output.",
		.type = PROM_COUNTER,
		.scale = 1,
		.labels = {MODEL, WORD("type")},
	},
	[PROM_METRIC_COST] = {
		.name = "prom_agent.cost",
		.unit = "",
		.help = "What replies cost, in the unit of the prices of the models.",
		.type = PROM_COUNTER,
		.scale = NANO,
		.labels = {MODEL},
	},
	[PROM_METRIC_VERDICTS] = {
		.name = "prom_agent.verdicts",
		.unit = "{verdict}",
		.help = "Verdicts that were written, by the stage and the effect of their policy. What rules let pass has none.",
		.type = PROM_COUNTER,
		.scale = 1,
		.labels = {WORD("stage"), WORD("effect")},
	},
	[PROM_METRIC_GATE_CLOSED] = {
		.name = "prom_agent.gate.closings",
		.unit = "{closing}",
		.help = "Gates that were closed, by what is behind them and why: rate, failures or money.",
		.type = PROM_COUNTER,
		.scale = 1,
		.labels = {WORD("kind"), MODEL, WORD("reason")},
	},
	[PROM_METRIC_DELIVERIES] = {
		.name = "prom_agent.deliveries",
		.unit = "{attempt}",
		.help = "Attempts to deliver an event to a subscription; status waiting: it failed, and another one follows; dead: it was the last.",
		.type = PROM_COUNTER,
		.scale = 1,
		.labels = {WORD("kind"), WORD("status")},
	},
	[PROM_METRIC_DELIVERY] = {
		.name = "prom_agent.delivery.duration",
		.unit = "s",
		.help = "Time that attempts to deliver an event took.",
		HISTOGRAM(step_bounds),
		.scale = MICRO,
		.labels = {WORD("kind")},
	},
	[PROM_METRIC_MARKS] = {
		.name = "prom_agent.marks",
		.unit = "{mark}",
		.help = "Marks that were written, by which the past can be seen.",
		.type = PROM_COUNTER,
		.scale = 1,
	},
	[PROM_METRIC_STARTED] = {
		.name = "prom_agent.worker.starts",
		.unit = "{process}",
		.help = "Processes of prometheus that began, by their role.",
		.type = PROM_COUNTER,
		.scale = 1,
		.labels = {WORD("role")},
	},
	[PROM_METRIC_BUSY] = {
		.name = "prom_agent.worker.busy",
		.unit = "s",
		.help = "Time for which processes of prometheus had something to do, added when they wait again.",
		.type = PROM_COUNTER,
		.scale = MICRO,
		.labels = {WORD("role")},
	},
	[PROM_METRIC_WAL] = {
		.name = "prom_agent.worker.wal",
		.unit = "By",
		.help = "Write-ahead log of processes of prometheus.",
		.type = PROM_COUNTER,
		.scale = 1,
		.labels = {WORD("role")},
	},
	[PROM_METRIC_FOLDED] = {
		.name = "prom_agent.metrics.folded",
		.unit = "{observation}",
		.help = "What was counted in the series \"other\" of its metric, since prometheus.metric_series was reached.",
		.type = PROM_COUNTER,
		.scale = 1,
	},
};

static PromLabelNumber
word(const char *text)
{
	return prom_metric_label(prom_my_database, PROM_LABEL_WORD, text);
}


/* Tasks. */

void
prom_tally_submit(const char *agent)
{
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	PromLabelNumber label = prom_metric_label(db, PROM_LABEL_AGENT, agent);

	prom_metric_add(db, PROM_METRIC_SUBMITTED, &label, 1);
}

static PromExemplar
exemplar_of(const PromAttempt *attempt, int64 span_id, TimestampTz now)
{
	PromExemplar exemplar = {.span_id = span_id, .at = now};

	memcpy(exemplar.trace_id, attempt->trace.id.data,
		   sizeof(exemplar.trace_id));
	return exemplar;
}

void
prom_tally_begin(const PromAttempt *attempt, TimestampTz now)
{
	PromExemplar exemplar = exemplar_of(attempt, 0, now);

	prom_metric_observe(prom_my_database, PROM_METRIC_QUEUE_WAIT,
						&attempt->agent, now - attempt->since, &exemplar);
}

static bool
ends_task(const char *outcome)
{
	return strcmp(outcome, "retry") != 0 && strcmp(outcome, "waiting") != 0 &&
		   strcmp(outcome, "lost") != 0;
}

void
prom_tally_outcome(const PromAttempt *attempt, const PromOutcome *outcome,
				   TimestampTz now)
{
	PromLabelNumber ended = word(outcome->outcome);
	PromLabelNumber labels[] = {attempt->agent, ended};
	PromLabelNumber how[] = {ended, word(outcome->error_type)};
	PromExemplar exemplar = exemplar_of(attempt, 0, now);

	prom_metric_add(prom_my_database, PROM_METRIC_ATTEMPTS, how, 1);
	if (!ends_task(outcome->outcome))
		return;
	prom_metric_add(prom_my_database, PROM_METRIC_ENDED, labels, 1);
	prom_metric_observe(prom_my_database, PROM_METRIC_TASK, labels,
						now - attempt->since, &exemplar);
}

void
prom_tally_step(const char *kind, const char *status, TimestampTz started_at,
				TimestampTz now)
{
	PromLabelNumber labels[] = {word(kind), word(status)};

	prom_metric_observe(prom_my_database, PROM_METRIC_STEP, labels,
						now - started_at, NULL);
}

void
prom_tally_verdict(const char *stage, const char *effect)
{
	PromLabelNumber labels[] = {word(stage), word(effect)};

	prom_metric_add(prom_my_database, PROM_METRIC_VERDICTS, labels, 1);
}


/* Models. */

/* As in prometheus.span. */
static const char *
provider_of(const PromModel *model)
{
	if (strcmp(model->api, "openai-responses") == 0)
		return "openai";
	if (strcmp(model->api, "gemini") == 0)
		return "gcp.gemini";
	return model->api;
}

static void
tally_tokens(const PromLabelNumber *operation, const char *type, int64 tokens,
			 const PromExemplar *exemplar)
{
	PromLabelNumber labels[PROM_METRIC_LABELS];

	if (tokens < 0)
		return;
	memcpy(labels, operation, sizeof(labels));
	labels[3] = word(type);
	prom_metric_observe(prom_my_database, PROM_METRIC_TOKEN_USAGE, labels,
						Min(tokens, MOST_TOKENS), exemplar);
}

/* By our name of the model, and in money. */
static void
tally_usage(PromLabelNumber model, const PromReply *reply, const Datum *cost)
{
	const struct
	{
		const char *type;
		int64 tokens;
	} parts[] = {
		{"input", reply->tokens_in},
		{"output", reply->tokens_out},
		{"cached", reply->cached_tokens},
		{"reasoning", reply->reasoning_tokens},
	};

	for (int i = 0; i < lengthof(parts); i++)
	{
		PromLabelNumber labels[] = {model, word(parts[i].type)};

		prom_metric_add(prom_my_database, PROM_METRIC_TOKENS, labels,
						Min(Max(parts[i].tokens, 0), MOST_TOKENS));
	}
	if (cost != NULL)
	{
		double amount = DatumGetFloat8(
			DirectFunctionCall1(numeric_float8_no_overflow, *cost));

		prom_metric_add(prom_my_database, PROM_METRIC_COST, &model,
						(int64) rint(Min(Max(amount, 0), MOST_COST) * NANO));
	}
}

void
prom_tally_reply(const PromAttempt *attempt, int64 span_id, const char *kind,
				 const PromReply *reply, const Datum *cost, TimestampTz now)
{
	const PromModel *model = prom_attempt_called(attempt);
	const char *name = model->model != NULL ? model->model : model->name;
	PromLabelNumber labels[PROM_METRIC_LABELS] = {
		word(kind), word(provider_of(model)),
		prom_metric_label(prom_my_database, PROM_LABEL_TARGET, name),
		reply->ok                   ? 0
		: reply->error_type == NULL ? word("_OTHER")
									: word(reply->error_type)};
	PromExemplar exemplar = exemplar_of(attempt, span_id, now);

	prom_metric_observe(prom_my_database, PROM_METRIC_OPERATION, labels,
						now - attempt->sent_at, &exemplar);
	if (model->stream && reply->ok && reply->first_byte_ms >= 0)
		prom_metric_observe(prom_my_database, PROM_METRIC_FIRST_CHUNK, labels,
							(int64) (reply->first_byte_ms * 1000), &exemplar);
	tally_tokens(labels, "input", reply->tokens_in, &exemplar);
	tally_tokens(labels, "output", reply->tokens_out, &exemplar);
	tally_usage(prom_metric_label(prom_my_database, PROM_LABEL_MODEL,
								  model->name),
				reply, cost);
}


/* Gates, deliveries, marks. */

void
prom_tally_gate(PromDatabase *db, const PromGate *gate, PromGateReason reason)
{
	bool is_model = gate->kind == PROM_GATE_MODEL;
	const char *why = reason == PROM_GATE_MONEY  ? "money"
					  : reason == PROM_GATE_RATE ? "rate"
												 : "failures";
	PromLabelNumber labels[] = {
		prom_metric_label(db, PROM_LABEL_WORD,
						  is_model ? "model" : "subscription"),
		is_model ? prom_metric_label(db, PROM_LABEL_MODEL, gate->name) : 0,
		prom_metric_label(db, PROM_LABEL_WORD, why)};

	prom_metric_add(db, PROM_METRIC_GATE_CLOSED, labels, 1);
}

void
prom_tally_delivery(const PromDelivery *delivery, const char *status,
					TimestampTz now)
{
	PromLabelNumber labels[] = {
		word(delivery->is_webhook ? "webhook" : "function"), word(status)};

	prom_metric_add(prom_my_database, PROM_METRIC_DELIVERIES, labels, 1);
	prom_metric_observe(prom_my_database, PROM_METRIC_DELIVERY, labels,
						now - delivery->started_at, NULL);
}

void
prom_tally_mark(void)
{
	prom_metric_add(prom_my_database, PROM_METRIC_MARKS, NULL, 1);
}


/* Processes. */

static PromLabelNumber my_role;
static instr_time busy_since;
static uint64 wal_told = 0;

void
prom_tally_start(PromRole role)
{
	my_role = word(prom_worker_role_name(role));
	prom_metric_add(prom_my_database, PROM_METRIC_STARTED, &my_role, 1);
	INSTR_TIME_SET_CURRENT(busy_since);
}

void
prom_tally_wake(void)
{
	INSTR_TIME_SET_CURRENT(busy_since);
}

void
prom_tally_wait(void)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, busy_since);
	prom_metric_add(prom_my_database, PROM_METRIC_BUSY, &my_role,
					(int64) INSTR_TIME_GET_MICROSEC(now));
	prom_metric_add(prom_my_database, PROM_METRIC_WAL, &my_role,
					pgWalUsage.wal_bytes - wal_told);
	wal_told = pgWalUsage.wal_bytes;
}
