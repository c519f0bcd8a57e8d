/*
 * subscriber.c
 *	  Runs the function of a subscription on an event.
 *
 * It runs under the rules of guard.c as the subscription's owner, who also
 * reads the event: so it is given nothing that he may not see.  What it does
 * and the record that the event is delivered are one transaction, and the
 * record is not written if there is one already: each event has its effect in
 * this database once.  An error takes the effect back and is recorded as such.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "act.h"
#include "cause.h"
#include "compat.h"
#include "delivery.h"
#include "guard.h"
#include "signature.h"
#include "subscriber.h"
#include "subscription.h"
#include "xact.h"

#define LOCK_TIMEOUT "1s" /* of what we write, not of the function */

/* A call of the function, within the guard. */
typedef struct Call
{
	const PromDelivery *delivery;
	const char *function; /* its name, qualified */
	bool is_gone;         /* there is no such event, for this role */
	MemoryContext keep;
	char *result; /* as text; NULL: none */
} Call;

/* What a delivery is for. */
typedef struct Subscriber
{
	char *name;
	char *owner;
	Oid owner_oid;
	char *handler;
	char *search_path;
	int64 timeout;
} Subscriber;

static Oid
event_view(void)
{
	return get_relname_relid("event", get_namespace_oid("prometheus", false));
}

static Oid
event_type(void)
{
	return get_rel_type_id(event_view());
}

/* As who calls it must be able to name it, too. */
static bool
may_call(Oid function, Oid role)
{
	return prom_may_execute(function, role) &&
		   prom_may_use_schema(get_func_namespace(function), role);
}

static bool
may_read_events(Oid role)
{
	return pg_class_aclcheck(event_view(), role, ACL_SELECT) == ACLCHECK_OK &&
		   prom_may_use_schema(get_namespace_oid("prometheus", false), role);
}

void
prom_subscriber_check(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;

	prom_signature_require(function);
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (form->prokind != PROKIND_FUNCTION || form->pronargs != 1 ||
		form->proargtypes.values[0] != event_type() || form->proretset)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("function %s cannot be a handler",
						format_procedure(function)),
				 errhint("A handler is a function f(prometheus.event), whatever it returns.")));
	ReleaseSysCache(tuple);
}

/* Events that it emits, and tasks that it submits, are caused by this one. */
static void
set_cause(int64 event_id, int64 task_id)
{
	prom_cause_tell(event_id, task_id);
	(void) set_config_option("prometheus.caused_by",
							 psprintf("%lld", (long long) event_id),
							 PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true,
							 0, false);
}

/* The event, as the row that it is; false: there is none. */
static bool
read_event(const PromDelivery *delivery, Datum *event)
{
	Oid types[2] = {INT8OID, INT8OID};
	Datum values[2] = {Int64GetDatum(delivery->event_id),
					   Int64GetDatum(delivery->task_id)};
	bool isnull;

	if (SPI_execute_with_args(
			delivery->task_id == 0
				? "SELECT e FROM prometheus.event e"
				  " WHERE e.task_id IS NULL"
				  " AND e.event_id OPERATOR(pg_catalog.=) $1"
				: "SELECT e FROM prometheus.event e"
				  " WHERE e.task_id OPERATOR(pg_catalog.=) $2"
				  " AND e.event_id OPERATOR(pg_catalog.=) $1",
			delivery->task_id == 0 ? 1 : 2, types, values, NULL, true,
			1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the event");
	if (SPI_processed == 0)
		return false;
	*event = datumCopy(SPI_getbinval(SPI_tuptable->vals[0],
									 SPI_tuptable->tupdesc, 1, &isnull),
					   false, -1);
	return true;
}

static void
run_call(void *arg)
{
	Call *call = arg;
	Oid type = event_type();
	Datum event;
	char *result;

	SPI_connect();
	set_cause(call->delivery->event_id, call->delivery->task_id);
	call->is_gone = !read_event(call->delivery, &event);
	if (!call->is_gone)
	{
		if (SPI_execute_with_args(psprintf("SELECT %s($1)", call->function), 1,
								  &type, &event, NULL, false,
								  1) != SPI_OK_SELECT ||
			SPI_processed != 1)
			elog(ERROR, "the function gave no result");
		result = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		if (result != NULL && *result != '\0')
			call->result = MemoryContextStrdup(call->keep, result);
	}
	SPI_finish();
}

static PromStatement read_statement = {
	"SELECT d.event_id, d.task_id, d.attempts, s.max_attempts, s.name,"
	" s.owner, s.owner_oid, s.handler, s.search_path, s.timeout_ms"
	" FROM prometheus._delivery d"
	" JOIN prometheus._subscription s ON s.name = d.subscription"
	" WHERE d.delivery_id = $1 AND d.status = 'waiting'"
	" AND s.handler IS NOT NULL AND s.disabled_at IS NULL",
	1,
	{INT8OID},
	NULL,
};

/* False: it does not wait any more, or not for a function. */
static bool
read_delivery(const PromJob *job, PromDelivery *delivery,
			  Subscriber *subscriber)
{
	Datum value = Int64GetDatum(job->delivery_id);

	prom_statement_run(&read_statement, &value, NULL, false);
	if (SPI_processed == 0)
		return false;
	memset(delivery, 0, sizeof(*delivery));
	delivery->delivery_id = job->delivery_id;
	delivery->event_id = prom_row_int64(0, 1);
	delivery->task_id = prom_row_int64_or(0, 2, 0);
	delivery->attempts = prom_row_int32(0, 3);
	delivery->max_attempts = prom_row_int32(0, 4);
	delivery->started_at = GetCurrentTimestamp();
	subscriber->name = prom_row_text(0, 5);
	subscriber->owner = prom_row_text(0, 6);
	subscriber->owner_oid = prom_row_oid(0, 7);
	subscriber->handler = prom_row_text(0, 8);
	subscriber->search_path = prom_row_text(0, 9);
	subscriber->timeout = prom_row_int64(0, 10);
	return true;
}

/* Why nothing can be delivered to it, or NULL. */
static const char *
unusable(const Subscriber *subscriber)
{
	Oid role = prom_guard_role(subscriber->owner, subscriber->owner_oid);
	Oid function = prom_signature_find(subscriber->handler);

	if (!OidIsValid(role))
		return "its owner is not the role that it was";
	if (!OidIsValid(function))
		return "its function does not exist any more";
	if (!may_call(function, role))
		return "its owner may not execute its function any more";
	if (!may_read_events(role))
		return "its owner may not read prometheus.event any more";
	return NULL;
}

/* Run it, and say how that ended. */
static void
run_function(const PromDelivery *delivery, const Subscriber *subscriber,
			 PromDeliveryEnd *end)
{
	const char *parenthesis = strrchr(subscriber->handler, '(');
	PromGuard guard = {.search_path = subscriber->search_path,
					   .role = subscriber->owner_oid,
					   .timeout = subscriber->timeout};
	Call call = {.delivery = delivery, .keep = CurrentMemoryContext};
	PromGuardEnd ended;

	call.function = pnstrdup(subscriber->handler,
							 parenthesis - subscriber->handler);
	prom_guard_run(&guard, run_call, &call, &ended);
	if (ended.ok && call.is_gone)
	{
		end->kind = "event";
		end->error = "the event is not kept any more, or its owner may not see it";
		end->is_last = true;
	}
	else if (ended.ok)
		end->result = call.result;
	else if (ended.was_cancelled &&
			 TimestampDifferenceExceeds(delivery->started_at,
										GetCurrentTimestamp(),
										(int) guard.timeout))
	{
		end->kind = "timeout";
		end->error = psprintf("it did not end within %lld ms and was stopped",
							  (long long) guard.timeout);
	}
	else
	{
		end->kind = pstrdup(unpack_sql_state(ended.sqlstate));
		end->error = ended.error;
	}
}

/*
 * A session may have locked what is to be written, and not end: then the job
 * fails, and others have the executor meanwhile.
 */
static void
wait_briefly(void)
{
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

void
prom_subscriber_run(PromJob *job)
{
	PromDelivery delivery;
	Subscriber subscriber;
	PromDeliveryEnd end = {.retry_after = -1};
	const char *problem;

	wait_briefly();
	if (!read_delivery(job, &delivery, &subscriber))
		return;
	problem = unusable(&subscriber);
	if (problem != NULL)
	{
		prom_delivery_disable(subscriber.name, problem);
		return;
	}
	end.error = prom_act_refused(job);
	if (end.error != NULL)
		end.kind = "process";
	else
	{
		prom_subscription_runs(subscriber.name);
		run_function(&delivery, &subscriber, &end);
	}
	prom_act_check_wanted(job);
	/* Who removes his own subscription has been given his last event. */
	if (!prom_delivery_record(&delivery, &end, GetCurrentTimestamp()) &&
		!prom_subscription_removed_itself())
		ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
						errmsg("the delivery is not wanted any more")));
	job->delivered = end.error == NULL ? PROM_DELIVERED_WELL
									   : PROM_DELIVERED_BADLY;
}
