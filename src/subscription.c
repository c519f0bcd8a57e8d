/*
 * subscription.c
 *	  Makes and removes subscriptions, and does what a person wants done with
 *	  their dead letters.
 *
 * A subscription is a consumer that is read by us (consumer.c), and to whom
 * what it is given goes.  All of it changes in place, in the user's
 * transaction; after the commit a hint lets the workers look.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/jsonpath.h"
#include "utils/timestamp.h"

#include "as_of.h"
#include "compat.h"
#include "consumer.h"
#include "consumer_lock.h"
#include "delivery.h"
#include "guc.h"
#include "role.h"
#include "secret.h"
#include "setting.h"
#include "shmem.h"
#include "signature.h"
#include "subscriber.h"
#include "subscription.h"
#include "url.h"
#include "wakeup.h"
#include "xact.h"

#define MAX_URL 2000
#define LONGEST_TIMEOUT 3600000 /* ms */

/* A delivery that is older than this and was not tried is late, s. */
#define LATE 60

/* The arguments of prometheus_subscribe(). */
enum
{
	ARGUMENT_NAME,
	ARGUMENT_HANDLER,
	ARGUMENT_URL,
	ARGUMENT_TYPES,
	ARGUMENT_SECRET,
	ARGUMENT_FILTER,
	ARGUMENT_ORDERED,
	ARGUMENT_TIMEOUT,
	ARGUMENT_MAX_ATTEMPTS,
	ARGUMENT_BREAKER_FAILURES
};

static pg_noreturn void
raise_invalid(const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message),
			 hint == NULL ? 0 : errhint("%s", hint)));
	pg_unreachable();
}

static char *
name_argument(FunctionCallInfo fcinfo)
{
	char *name;

	if (PG_ARGISNULL(ARGUMENT_NAME))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("the name of a subscription must not be null")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(ARGUMENT_NAME));
	if (*name == '\0' || strlen(name) > PROM_MAX_NAME)
		raise_invalid(
			psprintf("the name of a subscription must have 1 to %d bytes",
					 PROM_MAX_NAME),
			NULL);
	return name;
}

static void
check_writing(const char *function)
{
	PreventCommandDuringRecovery(function);
	PreventCommandIfReadOnly(function);
	prom_as_of_forbid_writing();
}

/* An integer, within its limits. */
static int32
number_argument(FunctionCallInfo fcinfo, int n, const char *called, int most)
{
	int32 number;

	if (PG_ARGISNULL(n))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("%s must not be null", called)));
	number = PG_GETARG_INT32(n);
	if (number < 1 || number > most)
		raise_invalid(psprintf("%s must be from 1 to %d", called, most), NULL);
	return number;
}

static int64
timeout_argument(FunctionCallInfo fcinfo)
{
	Interval *interval;
	int64 ms;

	if (PG_ARGISNULL(ARGUMENT_TIMEOUT))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("timeout must not be null")));
	interval = PG_GETARG_INTERVAL_P(ARGUMENT_TIMEOUT);
	ms = interval->time / 1000;
	if (interval->month != 0 || interval->day != 0 || ms < 1 ||
		ms > LONGEST_TIMEOUT)
		raise_invalid("timeout must be from 1 ms to 1 hour", NULL);
	return ms;
}

static void
check_url(const char *url)
{
	const char *problem = prom_url_problem(url);

	if (problem == NULL && strlen(url) > MAX_URL)
		problem = psprintf("It may have %d bytes.", MAX_URL);
	for (const char *c = url; problem == NULL && *c != '\0'; c++)
		if ((unsigned char) *c > '~' || strchr("\"<>\\^`{|}#", *c) != NULL)
			problem = "It must have ASCII letters only, without \" < > \\ ^ ` { | } and #; others are percent-encoded.";
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the url of the webhook cannot be used"),
				 errdetail("%s", problem),
				 errhint("A url is such as https://api.example.com/hooks/orders.")));
}

/* To whom: a function that the caller may execute, or a URL. */
static void
check_target(FunctionCallInfo fcinfo)
{
	bool has_handler = !PG_ARGISNULL(ARGUMENT_HANDLER);
	char *url = prom_setting_text(fcinfo, ARGUMENT_URL, NULL);
	char *secret = prom_setting_text(fcinfo, ARGUMENT_SECRET, NULL);

	if (has_handler == (url != NULL))
		raise_invalid("a subscription must have either a handler or a url",
					  "A handler is a function f(prometheus.event); a url is where a webhook is sent.");
	if (has_handler && secret != NULL)
		raise_invalid("a handler needs no secret", NULL);
	if (has_handler)
	{
		prom_subscriber_check(PG_GETARG_OID(ARGUMENT_HANDLER));
		return;
	}
	prom_role_require_admin("prometheus_subscribe");
	check_url(url);
	if (secret != NULL && !prom_secret_check_name(secret))
		raise_invalid("secret must be the name of a secret",
					  "NAME is a file in prometheus.secrets_dir, env:NAME a variable of the server's environment, which has whsec_ and the key; the key itself is never given.");
}


/* The one of a name. */

static PromStatement find_statement = {
	"SELECT s.owner, s.owner_oid FROM prometheus._subscription s"
	" WHERE s.name OPERATOR(pg_catalog.=) $1",
	1,
	{TEXTOID},
	NULL,
};

/*
 * Is there one?  The user must be allowed to see it.  As the extension's owner.
 */
static bool
find(const char *name, Oid user)
{
	Datum value = CStringGetTextDatum(name);

	prom_statement_run_now(&find_statement, &value);
	if (SPI_processed == 0)
		return false;
	if (!prom_role_shows(user, prom_row_text(0, 1), prom_row_oid(0, 2)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for subscription \"%s\"", name),
				 errdetail("It is of role \"%s\".", prom_row_text(0, 1))));
	return true;
}

/* After the commit: look at subscriptions, and open the gate of this one. */
static void
send_hint(const char *name)
{
	PromHint hint = {.kind = PROM_HINT_GATES, .key = prom_hash_name(name)};

	prom_delivery_invalidate();
	prom_wakeup_hint(&hint);
	prom_wakeup_readers();
}

static void
execute(const char *sql, int nargs, Oid *types, Datum *values,
		const char *nulls)
{
	if (prom_execute_now(sql, nargs, types, values, nulls, false) < 0)
		elog(ERROR, "could not write subscriptions");
}


/* What users call. */

/* One role's, one after the other, or two sessions would pass its limit. */
static void
lock_role(Oid role)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, prom_delivery_relation(), role, 1);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* The others; those of the role among them; and whether it has this one. */
static void
count_subscriptions(const char *name, Oid role, int64 *others, int64 *own,
					bool *has)
{
	static const char sql[] =
		"SELECT pg_catalog.count(*) FILTER (WHERE s.name OPERATOR(pg_catalog.<>) $1),"
		" pg_catalog.count(*) FILTER (WHERE s.name OPERATOR(pg_catalog.<>) $1"
		"  AND s.owner_oid OPERATOR(pg_catalog.=) $2),"
		" pg_catalog.count(*) FILTER (WHERE s.name OPERATOR(pg_catalog.=) $1"
		"  AND s.owner_oid OPERATOR(pg_catalog.=) $2)"
		" FROM prometheus._subscription s";
	Oid types[2] = {TEXTOID, OIDOID};
	Datum values[2] = {CStringGetTextDatum(name), ObjectIdGetDatum(role)};

	if (prom_execute_now(sql, 2, types, values, NULL, true) != SPI_OK_SELECT)
		elog(ERROR, "could not count subscriptions");
	*others = prom_row_int64(0, 1);
	*own = prom_row_int64(0, 2);
	*has = prom_row_int64(0, 3) > 0;
}

/*
 * Each needs a gate, and there are so many; and no role has all of them.  One
 * that the role has already needs nothing.
 */
static void
check_room(const char *name, Oid role)
{
	int64 others;
	int64 own;
	bool has;

	count_subscriptions(name, role, &others, &own, &has);
	if (has)
		return;
	lock_role(role);
	count_subscriptions(name, role, &others, &own, &has);
	if (others >= PROM_MAX_SUBSCRIPTIONS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("there are %d subscriptions already",
						PROM_MAX_SUBSCRIPTIONS),
				 errhint("prometheus_unsubscribe() removes one; one subscription may have many types.")));
	if (own >= prom_guc_max_subscriptions)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("role \"%s\" cannot have more subscriptions",
						GetUserNameFromId(role, false)),
				 errdetail("It has %lld; prometheus.max_subscriptions is %d.",
						   (long long) own, prom_guc_max_subscriptions),
				 errhint("One subscription may have many types, and prometheus_unsubscribe() removes one. A superuser can raise prometheus.max_subscriptions, also for this role alone.")));
}

static void
write_subscription(FunctionCallInfo fcinfo, const char *name,
				   const PromOwner *before, const char *search_path)
{
	static const char sql[] =
		"INSERT INTO prometheus._subscription (name, owner_oid, owner,"
		" subscribed_at, handler, search_path, url, secret, filter, ordered,"
		" timeout_ms, max_attempts, breaker_failures)"
		" VALUES ($1, $2, $3, pg_catalog.clock_timestamp(), $4, $5, $6, $7, $8,"
		" $9, $10, $11, $12) ON CONFLICT (name) DO UPDATE SET"
		" owner_oid = excluded.owner_oid, owner = excluded.owner,"
		" subscribed_at = excluded.subscribed_at, handler = excluded.handler,"
		" search_path = excluded.search_path, url = excluded.url,"
		" secret = excluded.secret, filter = excluded.filter,"
		" ordered = excluded.ordered, timeout_ms = excluded.timeout_ms,"
		" max_attempts = excluded.max_attempts,"
		" breaker_failures = excluded.breaker_failures,"
		" disabled_at = NULL, disabled_reason = NULL";
	Oid types[12] = {TEXTOID, OIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
					 TEXTOID, JSONPATHOID, BOOLOID, INT8OID, INT4OID, INT4OID};
	Datum values[12];
	char nulls[13] = "            ";
	char *url = prom_setting_text(fcinfo, ARGUMENT_URL, NULL);
	char *secret = prom_setting_text(fcinfo, ARGUMENT_SECRET, NULL);

	values[0] = CStringGetTextDatum(name);
	values[1] = ObjectIdGetDatum(before->user);
	values[2] = CStringGetTextDatum(GetUserNameFromId(before->user, false));
	nulls[3] = PG_ARGISNULL(ARGUMENT_HANDLER) ? 'n' : ' ';
	values[3] = nulls[3] == 'n' ? (Datum) 0
								: CStringGetTextDatum(prom_signature_text(
									  PG_GETARG_OID(ARGUMENT_HANDLER)));
	values[4] = CStringGetTextDatum(search_path);
	nulls[5] = url == NULL ? 'n' : ' ';
	values[5] = url == NULL ? (Datum) 0 : CStringGetTextDatum(url);
	nulls[6] = secret == NULL ? 'n' : ' ';
	values[6] = secret == NULL ? (Datum) 0 : CStringGetTextDatum(secret);
	nulls[7] = PG_ARGISNULL(ARGUMENT_FILTER) ? 'n' : ' ';
	values[7] = PG_GETARG_DATUM(ARGUMENT_FILTER);
	values[8] = BoolGetDatum(!PG_ARGISNULL(ARGUMENT_ORDERED) &&
							 PG_GETARG_BOOL(ARGUMENT_ORDERED));
	values[9] = Int64GetDatum(timeout_argument(fcinfo));
	values[10] = Int32GetDatum(
		number_argument(fcinfo, ARGUMENT_MAX_ATTEMPTS, "max_attempts", 100));
	values[11] = Int32GetDatum(number_argument(
		fcinfo, ARGUMENT_BREAKER_FAILURES, "breaker_failures", 1000));
	execute(sql, 12, types, values, nulls);
}

PG_FUNCTION_INFO_V1(prom_subscribe);

Datum
prom_subscribe(PG_FUNCTION_ARGS)
{
	char *name = name_argument(fcinfo);
	ArrayType *types = PG_ARGISNULL(ARGUMENT_TYPES)
						   ? NULL
						   : PG_GETARG_ARRAYTYPE_P(ARGUMENT_TYPES);
	char *search_path = prom_setting_search_path();
	PromOwner before;
	bool exists;

	check_writing("prometheus_subscribe()");
	check_target(fcinfo);
	SPI_connect();
	prom_consumer_lock(name);
	prom_role_become_owner(&before);
	exists = find(name, before.user);
	check_room(name, before.user);
	prom_consumer_push(name, types, before.user, exists);
	write_subscription(fcinfo, name, &before, search_path);
	prom_role_restore(&before);
	SPI_finish();
	send_hint(name);
	PG_RETURN_VOID();
}

/* Lock one that must be there; as the extension's owner from here on. */
static void
begin(FunctionCallInfo fcinfo, const char *function, char **name,
	  PromOwner *before)
{
	*name = name_argument(fcinfo);
	check_writing(function);
	SPI_connect();
	prom_consumer_lock(*name);
	prom_role_become_owner(before);
	if (!find(*name, before->user))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", *name),
				 errhint("SELECT name FROM prometheus.subscription lists them; prometheus_subscribe() makes one.")));
}

static void
end(const char *name, const PromOwner *before)
{
	prom_role_restore(before);
	SPI_finish();
	send_hint(name);
}

/* Of an executor: whose function runs, and whether that has removed it. */
static char running[PROM_MAX_NAME + 1];
static bool removed_itself;

void
prom_subscription_runs(const char *name)
{
	strlcpy(running, name, sizeof(running));
	removed_itself = false;
}

bool
prom_subscription_removed_itself(void)
{
	return removed_itself;
}

PG_FUNCTION_INFO_V1(prom_unsubscribe);

Datum
prom_unsubscribe(PG_FUNCTION_ARGS)
{
	static const char *const sql[] = {
		"DELETE FROM prometheus._delivery"
		" WHERE subscription OPERATOR(pg_catalog.=) $1",
		"DELETE FROM prometheus._subscription"
		" WHERE name OPERATOR(pg_catalog.=) $1",
		"DELETE FROM prometheus._consumer"
		" WHERE name OPERATOR(pg_catalog.=) $1",
		"DELETE FROM prometheus._gate WHERE target OPERATOR(pg_catalog.=)"
		" ('subscription:'::pg_catalog.text OPERATOR(pg_catalog.||) $1)"};
	Oid type = TEXTOID;
	Datum value;
	char *name;
	PromOwner before;

	begin(fcinfo, "prometheus_unsubscribe()", &name, &before);
	value = CStringGetTextDatum(name);
	for (int i = 0; i < lengthof(sql); i++)
		execute(sql[i], 1, &type, &value, NULL);
	removed_itself |= strcmp(name, running) == 0;
	end(name, &before);
	PG_RETURN_VOID();
}

/* Change the dead letters of a subscription: all, or those of one error. */
static void
change_dead(FunctionCallInfo fcinfo, const char *function, const char *sql)
{
	Oid types[2] = {TEXTOID, TEXTOID};
	Datum values[2];
	char nulls[3] = "  ";
	char *name;
	PromOwner before;

	begin(fcinfo, function, &name, &before);
	values[0] = CStringGetTextDatum(name);
	nulls[1] = PG_ARGISNULL(1) ? 'n' : ' ';
	values[1] = PG_GETARG_DATUM(1);
	execute(sql, 2, types, values, nulls);
	end(name, &before);
}

#define DEAD                                                     \
	" WHERE subscription OPERATOR(pg_catalog.=) $1"              \
	" AND status OPERATOR(pg_catalog.=) 'dead'::pg_catalog.text" \
	" AND ($2 IS NULL OR fingerprint OPERATOR(pg_catalog.=) $2)"

PG_FUNCTION_INFO_V1(prom_redrive);

Datum
prom_redrive(PG_FUNCTION_ARGS)
{
	change_dead(fcinfo, "prometheus_redrive()",
				"UPDATE prometheus._delivery SET status = 'waiting',"
				" attempts = 0, strikes = 0, ended_at = NULL,"
				" next_at = pg_catalog.clock_timestamp()" DEAD);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(prom_discard);

Datum
prom_discard(PG_FUNCTION_ARGS)
{
	change_dead(fcinfo, "prometheus_discard()",
				"UPDATE prometheus._delivery SET status = 'discarded',"
				" ended_at = pg_catalog.clock_timestamp()" DEAD);
	PG_RETURN_VOID();
}

bool
prom_subscription_shows(const char *name)
{
	Oid user = GetUserId();
	Datum value = CStringGetTextDatum(name);
	PromOwner before;
	bool shows;

	SPI_connect();
	prom_role_become_owner(&before);
	prom_statement_run_now(&find_statement, &value);
	shows = SPI_processed > 0 &&
			prom_role_shows(user, prom_row_text(0, 1), prom_row_oid(0, 2));
	prom_role_restore(&before);
	SPI_finish();
	return shows;
}

/* Names of those that the user may see, and how many others there are. */
typedef struct Names
{
	StringInfoData text;
	int of_others;
} Names;

static void
add_name(Names *names, bool belongs, const char *name, bool is_shown)
{
	if (belongs && is_shown)
		appendStringInfo(&names->text, "%s%s", names->text.len > 0 ? ", " : "",
						 name);
	else if (belongs)
		names->of_others++;
}

/* NULL: there is none. */
static const char *
words_of(Names *names)
{
	if (names->of_others > 0)
		appendStringInfo(&names->text, "%s%d of others",
						 names->text.len > 0 ? ", " : "", names->of_others);
	return names->text.len > 0 ? names->text.data : NULL;
}

static bool
is_before(uint64 row, int column, TimestampTz moment)
{
	return !prom_row_isnull(row, column) && prom_row_time(row, column) < moment;
}

/* What there is of each; the last column is the first mark that sees an event
 * which it has not been given. */
static void
read_all(void)
{
	static const char sql[] =
		"SELECT s.name, s.owner, s.owner_oid, s.disabled_at,"
		" (SELECT pg_catalog.count(*) FROM prometheus._delivery x"
		"   WHERE x.subscription OPERATOR(pg_catalog.=) s.name"
		"   AND x.status OPERATOR(pg_catalog.=) 'dead'::pg_catalog.text),"
		" w.oldest, (SELECT m.at FROM prometheus._mark m"
		"   WHERE m.mark_id OPERATOR(pg_catalog.>)"
		"   LEAST(c.base_mark, w.mark_id) ORDER BY m.mark_id LIMIT 1)"
		" FROM prometheus._subscription s"
		" JOIN prometheus._consumer c ON c.name OPERATOR(pg_catalog.=) s.name"
		" CROSS JOIN LATERAL (SELECT pg_catalog.min(x.next_at) AS oldest,"
		"  pg_catalog.min(x.mark_id) AS mark_id FROM prometheus._delivery x"
		"   WHERE x.subscription OPERATOR(pg_catalog.=) s.name"
		"   AND x.status OPERATOR(pg_catalog.=) 'waiting'::pg_catalog.text) w"
		" ORDER BY s.name";

	if (prom_execute_now(sql, 0, NULL, NULL, NULL, true) != SPI_OK_SELECT)
		elog(ERROR, "could not read subscriptions");
}

void
prom_subscription_look(PromSubscriptions *found)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz horizon =
		prom_guc_retention == 0
			? DT_NOBEGIN
			: now - (int64) prom_guc_retention * USECS_PER_SEC;
	MemoryContext context = CurrentMemoryContext;
	Names disabled = {0}, dead = {0}, lagging = {0}, holding = {0};
	PromOwner before;

	initStringInfo(&disabled.text);
	initStringInfo(&dead.text);
	initStringInfo(&lagging.text);
	initStringInfo(&holding.text);
	SPI_connect();
	prom_role_become_owner(&before);
	read_all();
	MemoryContextSwitchTo(context);
	memset(found, 0, sizeof(*found));
	found->n = (int) SPI_processed;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		const char *name = prom_row_text(i, 1);
		bool shows = prom_role_shows(before.user, prom_row_text(i, 2),
									 prom_row_oid(i, 3));

		found->dead += prom_row_int64(i, 5);
		add_name(&disabled, !prom_row_isnull(i, 4), name, shows);
		add_name(&dead, prom_row_int64(i, 5) > 0, name, shows);
		add_name(&lagging, is_before(i, 6, now - LATE * USECS_PER_SEC), name,
				 shows);
		add_name(&holding, is_before(i, 7, horizon), name, shows);
	}
	found->disabled = words_of(&disabled);
	found->dead_of = words_of(&dead);
	found->lagging = words_of(&lagging);
	found->holding = words_of(&holding);
	prom_role_restore(&before);
	SPI_finish();
}
