/*
 * delivery.c
 *	  Writes what came of attempts to deliver events.
 *
 * Whoever tries (an executor, or the caller) records it: of a function in the
 * same transaction as what that did.  A delivery that does not wait any more,
 * because it was discarded, its subscription removed, or another process was
 * first, is not recorded, and then nothing of the attempt may stay.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "act.h"
#include "delivery.h"
#include "guc.h"
#include "tally.h"
#include "wakeup.h"
#include "xact.h"

/* Back-off of a function and of a webhook, ms, and how it grows. */
#define FUNCTION_FIRST 500
#define FUNCTION_LONGEST 60000
#define FUNCTION_FACTOR 2
#define WEBHOOK_FIRST 1000
#define WEBHOOK_LONGEST 3600000
#define WEBHOOK_FACTOR 4

static PromStatement record_statement = {
	"UPDATE prometheus._delivery SET status = $2, attempts = $3,"
	" started_at = $4, ended_at = $5, next_at = $6, duration_ms = $7,"
	" http_status = $8, fingerprint = $9, error = $10, result = $11"
	" WHERE delivery_id = $1 AND status = 'waiting' AND attempts = $12",
	12,
	{INT8OID, TEXTOID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	 FLOAT8OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, INT4OID},
	NULL,
};

static PromStatement disable_statement = {
	"UPDATE prometheus._subscription SET disabled_at = clock_timestamp(),"
	" disabled_reason = $2 WHERE name = $1 AND disabled_at IS NULL",
	2,
	{TEXTOID, TEXTOID},
	NULL,
};

static PromStatement strike_statement = {
	"UPDATE prometheus._delivery d SET strikes = d.strikes + 1,"
	" attempts = d.attempts + 1, struck_at = clock_timestamp(),"
	" error = CASE WHEN s.url IS NULL THEN $4 ELSE $5 END,"
	" fingerprint = $6,"
	" status = CASE WHEN d.strikes + 1 >= $3 THEN 'dead' ELSE d.status END,"
	" ended_at = CASE WHEN d.strikes + 1 >= $3 THEN clock_timestamp() END"
	" FROM prometheus._subscription s"
	" WHERE d.delivery_id = $1 AND d.status = 'waiting'"
	" AND s.name = d.subscription"
	" AND (d.struck_at IS NULL OR d.struck_at < $2)",
	6,
	{INT8OID, TIMESTAMPTZOID, INT4OID, TEXTOID, TEXTOID, TEXTOID},
	NULL,
};

/* The same for errors that differ in their numbers only. */
static char *
fingerprint(const char *kind, const char *error)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%s:", kind == NULL ? "" : kind);
	for (const char *c = error; *c != '\0' && *c != '\n'; c++)
	{
		bool is_digit = *c >= '0' && *c <= '9';

		if (!is_digit)
			appendStringInfoChar(&text, *c);
		else if (text.data[text.len - 1] != '#')
			appendStringInfoChar(&text, '#');
	}
	return psprintf("%016llx",
					(unsigned long long) hash_bytes_extended(
						(unsigned char *) text.data, text.len, 0));
}

/* After so many attempts that failed. */
static TimestampTz
next_attempt(const PromDelivery *delivery, const PromDeliveryEnd *end,
			 int attempts, TimestampTz now)
{
	double longest = delivery->is_webhook ? WEBHOOK_LONGEST : FUNCTION_LONGEST;
	double ms = delivery->is_webhook ? WEBHOOK_FIRST : FUNCTION_FIRST;

	for (int i = 1; i < attempts && ms < longest; i++)
		ms *= delivery->is_webhook ? WEBHOOK_FACTOR : FUNCTION_FACTOR;
	/* Those that failed together do not come together. */
	ms = Min(ms, longest) *
		 (0.75 + 0.5 * pg_prng_double(&pg_global_prng_state));
	return TimestampTzPlusMilliseconds(now, Max((int64) ms, end->retry_after));
}

static void
set_text(Datum *value, char *null, const char *text)
{
	*null = text == NULL ? 'n' : ' ';
	*value = text == NULL
				 ? (Datum) 0
				 : CStringGetTextDatum(
					   prom_act_clip(text, PROM_DELIVERY_TEXT));
}

bool
prom_delivery_record(const PromDelivery *delivery, const PromDeliveryEnd *end,
					 TimestampTz now)
{
	int attempts = delivery->attempts + (end->is_free ? 0 : 1);
	bool dead = end->error != NULL && !end->is_free &&
				(end->is_last || attempts >= delivery->max_attempts);
	bool waits = end->error != NULL && !dead;
	Datum values[12];
	char nulls[13] = "            ";

	values[0] = Int64GetDatum(delivery->delivery_id);
	values[1] = CStringGetTextDatum(dead    ? "dead"
									: waits ? "waiting"
											: "delivered");
	values[2] = Int32GetDatum(attempts);
	values[3] = TimestampTzGetDatum(delivery->started_at);
	values[4] = TimestampTzGetDatum(now);
	nulls[4] = waits ? 'n' : ' ';
	values[5] = TimestampTzGetDatum(
		waits ? next_attempt(delivery, end, attempts, now) : now);
	values[6] = Float8GetDatum((now - delivery->started_at) / 1000.0);
	values[7] = Int32GetDatum(end->http_status);
	nulls[7] = end->http_status == 0 ? 'n' : ' ';
	set_text(&values[8], &nulls[8],
			 end->error == NULL ? NULL : fingerprint(end->kind, end->error));
	set_text(&values[9], &nulls[9], end->error);
	set_text(&values[10], &nulls[10], end->result);
	values[11] = Int32GetDatum(delivery->attempts);
	prom_statement_run(&record_statement, values, nulls, false);
	if (dead)
		prom_wakeup_readers();
	if (SPI_processed == 0)
		return false;
	prom_tally_delivery(delivery,
						dead    ? "dead"
						: waits ? "waiting"
								: "delivered",
						now);
	return true;
}

Oid
prom_delivery_relation(void)
{
	return get_relname_relid("_subscription",
							 get_namespace_oid("prometheus", false));
}

void
prom_delivery_invalidate(void)
{
	CacheInvalidateRelcacheByRelid(prom_delivery_relation());
}

void
prom_delivery_disable(const char *subscription, const char *reason)
{
	Datum values[2] = {CStringGetTextDatum(subscription),
					   CStringGetTextDatum(reason)};

	prom_statement_run(&disable_statement, values, NULL, false);
	prom_delivery_invalidate();
}

void
prom_delivery_strike(int64 delivery_id, TimestampTz since)
{
	static const char error[] = "the server crashed while its function ran";
	static const char webhook_error[] =
		"the server crashed while its answer was read";
	Datum values[6];

	values[0] = Int64GetDatum(delivery_id);
	values[1] = TimestampTzGetDatum(since);
	values[2] = Int32GetDatum(prom_guc_max_crashes);
	values[3] = CStringGetTextDatum(error);
	values[4] = CStringGetTextDatum(webhook_error);
	values[5] = CStringGetTextDatum(fingerprint("crash", error));
	prom_statement_run(&strike_statement, values, NULL, false);
	prom_wakeup_readers();
}
