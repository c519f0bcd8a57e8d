/*
 * spending.c
 *	  Keeps the calls of models within the budgets.
 *
 * A call must fit into every budget that it falls under.  The caller counts,
 * for each of them, what was spent in its current period and what is reserved
 * for calls under way; so two calls cannot both have what is enough for one.
 * The sums are read from the facts when a budget is set or refilled and when a
 * caller begins, by the view prometheus._charge, which says what a call is
 * charged with; after that they are kept up to date here, by the same rules.
 *
 * What a turn reserves or settles is true only if its transaction commits:
 * until then it is in the list changed, and can be taken back.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "budget.h"
#include "prompt.h"
#include "role.h"
#include "spending.h"
#include "step.h"
#include "worker.h"
#include "xact.h"

/* Who spends it, and when. */
typedef struct Spender
{
	const char *agent;
	const char *model;
	const char *submitter;
	Oid submitter_oid;
	TimestampTz at;
} Spender;

/* A budget in a period. */
typedef struct Counter
{
	const char *name;
	const char *scope;
	Oid role_oid;       /* with a role */
	int64 tokens;       /* the limits; -1: none */
	Numeric cost;       /* NULL: none */
	TimestampTz since;  /* the period's begin */
	TimestampTz until;  /* and end: it is refilled then, */
	const char *refill; /* in words */
	PromAmount spent;
	PromAmount reserved;
	bool is_new; /* the facts are to be read */
} Counter;

/* What is kept for a call, or for a turn of a function. */
typedef struct PromReservation
{
	dlist_node link; /* in held or changed */
	PromAttempt *attempt;
	int32 step; /* that it makes */
	Spender spender;
	PromAmount amount;
	bool is_call;    /* there is a fact that says so */
	bool is_settled; /* with charge, if the transaction commits */
	PromAmount charge;
} PromReservation;

static MemoryContext reservations = NULL;
static MemoryContext counters_context = NULL;
static Counter *counters = NULL;
static int ncounters = 0;
static TimestampTz last_refill = DT_NOBEGIN; /* their periods are of */
static TimestampTz next_refill = DT_NOEND;   /* moments in between */
static Oid kept_of = InvalidOid;             /* the relation of budgets */
static bool is_stale = true;

/* What is reserved, and counts; and what the transaction of now changes. */
static dlist_head held = DLIST_STATIC_INIT(held);
static dlist_head changed = DLIST_STATIC_INIT(changed);


/* Amounts. */

static Numeric
copy_numeric(Numeric value)
{
	return value == NULL ? NULL
						 : DatumGetNumericCopy(NumericGetDatum(value));
}

static Numeric
read_numeric(const char *text)
{
	if (text == NULL)
		return NULL;
	return DatumGetNumeric(
		DirectFunctionCall3(numeric_in, CStringGetDatum(text),
							ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

/* Add to a sum of a counter, or take away from it. */
static void
change(PromAmount *sum, const PromAmount *by, bool adds)
{
	Numeric before = sum->cost;
	MemoryContext context;

	if (adds ? pg_add_s64_overflow(sum->tokens, by->tokens, &sum->tokens)
			 : pg_sub_s64_overflow(sum->tokens, by->tokens, &sum->tokens))
		sum->tokens = PG_INT64_MAX;
	if (by->cost == NULL)
		return;
	context = MemoryContextSwitchTo(counters_context);
	sum->cost = DatumGetNumeric(
		DirectFunctionCall2(adds ? numeric_add : numeric_sub,
							NumericGetDatum(before),
							NumericGetDatum(by->cost)));
	MemoryContextSwitchTo(context);
	pfree(before);
}

/* What so many tokens of a model come to, in the current memory context. */
static PromAmount
amount_of(const PromModel *model, int64 tokens_in, int64 cached_tokens,
		  int64 tokens_out)
{
	PromAmount amount;
	bool isnull;
	Datum cost = prom_step_cost(model, tokens_in, cached_tokens, tokens_out,
								&isnull);

	amount.cost = isnull ? NULL : DatumGetNumeric(cost);
	if (pg_add_s64_overflow(tokens_in, tokens_out, &amount.tokens))
		amount.tokens = PG_INT64_MAX;
	return amount;
}


/* Counters. */

static bool
falls_under(const Spender *spender, const Counter *counter)
{
	const char *name;

	if (spender->at < counter->since || spender->at >= counter->until)
		return false;
	if ((name = prom_budget_name_in(counter->scope, "agent")) != NULL)
		return strcmp(name, spender->agent) == 0;
	if ((name = prom_budget_name_in(counter->scope, "model")) != NULL)
		return strcmp(name, spender->model) == 0;
	if ((name = prom_budget_name_in(counter->scope, "role")) != NULL)
		return strcmp(name, spender->submitter) == 0 &&
			   counter->role_oid == spender->submitter_oid;
	return true;
}

/* Do all its budgets have that reserved for it, or no longer? */
static void
count_reserved(const PromReservation *reservation, bool adds)
{
	for (int i = 0; i < ncounters; i++)
		if (falls_under(&reservation->spender, &counters[i]))
			change(&counters[i].reserved, &reservation->amount, adds);
}

static void
count_spent(const PromReservation *reservation, bool adds)
{
	for (int i = 0; i < ncounters; i++)
		if (falls_under(&reservation->spender, &counters[i]))
			change(&counters[i].spent, &reservation->charge, adds);
}

static bool
tokens_fit(const Counter *counter, const PromAmount *amount)
{
	int64 sum;

	return counter->tokens < 0 ||
		   (!pg_add_s64_overflow(counter->spent.tokens,
								 counter->reserved.tokens, &sum) &&
			!pg_add_s64_overflow(sum, amount->tokens, &sum) &&
			sum <= counter->tokens);
}

/* What costs nothing fits into any budget of costs. */
static bool
cost_fits(const Counter *counter, const PromAmount *amount)
{
	Datum zero = NumericGetDatum(int64_to_numeric(0));
	Datum sum;

	if (counter->cost == NULL || amount->cost == NULL ||
		DatumGetBool(DirectFunctionCall2(numeric_eq,
										 NumericGetDatum(amount->cost), zero)))
		return true;
	sum = DirectFunctionCall2(numeric_add, NumericGetDatum(counter->spent.cost),
							  NumericGetDatum(counter->reserved.cost));
	sum = DirectFunctionCall2(numeric_add, sum, NumericGetDatum(amount->cost));
	return DatumGetBool(DirectFunctionCall2(numeric_le, sum,
											NumericGetDatum(counter->cost)));
}

/* A number with commas between its thousands. */
static const char *
words_of_tokens(int64 tokens)
{
	char *digits = psprintf("%lld", (long long) tokens);
	int n = strlen(digits);
	StringInfoData words;

	initStringInfo(&words);
	for (int i = 0; i < n; i++)
	{
		if (i > 0 && (n - i) % 3 == 0 && digits[i - 1] != '-')
			appendStringInfoChar(&words, ',');
		appendStringInfoChar(&words, digits[i]);
	}
	return words.data;
}

/* As in the view prometheus.budget: a budget of a role is the spender's own. */
static bool
may_see(const Spender *spender, const Counter *counter)
{
	return prom_budget_name_in(counter->scope, "role") != NULL ||
		   prom_role_names_admin(spender->submitter, spender->submitter_oid);
}

/*
 * Which budget is used up, and when it is refilled; and by how much, if the
 * spender may know what others spend.
 */
static const char *
refusal(const Counter *counter, const Spender *spender,
		const PromAmount *amount)
{
	bool of_tokens = !tokens_fit(counter, amount);
	const char *used;

	if (!may_see(spender, counter))
		used = of_tokens ? psprintf("this call may need %s tokens",
									words_of_tokens(amount->tokens))
						 : psprintf("this call may cost %s",
									numeric_normalize(amount->cost));
	else if (of_tokens)
		used = psprintf("%s of %s tokens spent, %s reserved, this call may need %s",
						words_of_tokens(counter->spent.tokens),
						words_of_tokens(counter->tokens),
						words_of_tokens(counter->reserved.tokens),
						words_of_tokens(amount->tokens));
	else
		used = psprintf("cost %s of %s spent, %s reserved, this call may cost %s",
						numeric_normalize(counter->spent.cost),
						numeric_normalize(counter->cost),
						numeric_normalize(counter->reserved.cost),
						numeric_normalize(amount->cost));
	return psprintf("budget %s is used up: %s; it refills at %s",
					counter->name, used, counter->refill);
}


/* Reading them. */

static void
relation_changed(Datum arg, Oid relation)
{
	if (!OidIsValid(relation) || relation == kept_of)
		is_stale = true;
}

/* The newest ones that are not off, with the periods of a moment. */
static PromStatement newest_statement = {
	"SELECT b.name, b.scope, coalesce(b.role_oid, '0'), coalesce(b.tokens, -1),"
	" b.cost::text, p.since, p.until AT TIME ZONE 'UTC',"
	" to_char(p.until, 'YYYY-MM-DD HH24:MI:SS\"+00\"')"
	" FROM prometheus._budget b CROSS JOIN LATERAL"
	"  (SELECT date_trunc(b.period, $1, 'UTC') AS since,"
	"    date_trunc(b.period, $1 AT TIME ZONE 'UTC')"
	"      + ('1 ' || b.period)::interval AS until) p"
	" WHERE (b.tokens IS NOT NULL OR b.cost IS NOT NULL)"
	"   AND NOT EXISTS (SELECT FROM prometheus._budget n"
	"    WHERE n.name = b.name AND n.version > b.version)"
	" ORDER BY b.name",
	1,
	{TIMESTAMPTZOID},
	NULL,
};

/* What was used since then; periods are made of hours. */
static PromStatement charges_statement = {
	"SELECT c.agent, c.model, c.submitter, c.submitter_oid,"
	" date_trunc('hour', c.charged_at, 'UTC'),"
	" least(sum(c.tokens), 9223372036854775807)::bigint, sum(c.cost)::text"
	" FROM prometheus._charge c WHERE c.charged_at >= $1"
	" GROUP BY 1, 2, 3, 4, 5",
	1,
	{TIMESTAMPTZOID},
	NULL,
};

/* Of the same period, so that its sums can be taken over; NULL: none. */
static const Counter *
find_kept(const Counter *counter)
{
	for (int i = 0; i < ncounters; i++)
		if (!counters[i].is_new &&
			strcmp(counters[i].name, counter->name) == 0 &&
			counters[i].since == counter->since &&
			counters[i].role_oid == counter->role_oid)
			return &counters[i];
	return NULL;
}

static void
read_counter(uint64 row, Counter *counter)
{
	const Counter *kept;

	counter->name = prom_row_text(row, 1);
	counter->scope = prom_row_text(row, 2);
	counter->role_oid = prom_row_oid(row, 3);
	counter->tokens = prom_row_int64(row, 4);
	counter->cost = read_numeric(prom_row_text_or_null(row, 5));
	counter->since = prom_row_time(row, 6);
	counter->until = prom_row_time(row, 7);
	counter->refill = prom_row_text(row, 8);
	kept = find_kept(counter);
	counter->is_new = kept == NULL;
	if (kept != NULL)
	{
		counter->spent.tokens = kept->spent.tokens;
		counter->spent.cost = copy_numeric(kept->spent.cost);
		counter->reserved.tokens = kept->reserved.tokens;
		counter->reserved.cost = copy_numeric(kept->reserved.cost);
		return;
	}
	counter->spent.cost = int64_to_numeric(0);
	counter->reserved.cost = int64_to_numeric(0);
}

/* Let the new ones count what the facts say of that spender. */
static void
add_charge(const Spender *spender, const PromAmount *amount)
{
	for (int i = 0; i < ncounters; i++)
		if (counters[i].is_new && falls_under(spender, &counters[i]))
			change(&counters[i].spent, amount, true);
}

/* What is under way, and what was charged with it so far. */
static void
add_held(const PromReservation *reservation)
{
	for (int i = 0; i < ncounters; i++)
	{
		Counter *counter = &counters[i];

		if (!counter->is_new || !falls_under(&reservation->spender, counter))
			continue;
		change(&counter->reserved, &reservation->amount, true);
		if (reservation->is_call)
			change(&counter->spent, &reservation->amount, false);
	}
}

/* The sums of those that are new. */
static void
read_charges(void)
{
	TimestampTz since = DT_NOEND;
	Datum value;
	dlist_iter iter;

	for (int i = 0; i < ncounters; i++)
		if (counters[i].is_new)
			since = Min(since, counters[i].since);
	if (since == DT_NOEND)
		return;
	value = TimestampTzGetDatum(since);
	prom_statement_run(&charges_statement, &value, NULL, true);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Spender spender = {.agent = prom_row_text(i, 1),
						   .model = prom_row_text(i, 2),
						   .submitter = prom_row_text(i, 3),
						   .submitter_oid = prom_row_oid(i, 4),
						   .at = prom_row_time(i, 5)};
		PromAmount amount = {.tokens = prom_row_int64_or(i, 6, 0),
							 .cost = read_numeric(prom_row_text_or_null(i, 7))};

		add_charge(&spender, &amount);
	}
	SPI_freetuptable(SPI_tuptable);
	dlist_foreach(iter, &held)
		add_held(dlist_container(PromReservation, link, iter.cur));
}

static PromStatement turn_statement = {
	"SELECT s.tokens_in, s.tokens_out, s.cost::text FROM prometheus._step s"
	" WHERE s.task_id = $1 AND s.step = $2",
	2,
	{INT8OID, INT4OID},
	NULL,
};

/* The charge of a turn of a function; false: its step is not there. */
static bool
read_turn(const PromReservation *reservation, PromAmount *charge)
{
	Datum values[2] = {Int64GetDatum(reservation->attempt->task_id),
					   Int32GetDatum(reservation->step)};
	int64 in;
	int64 out;

	memset(charge, 0, sizeof(*charge));
	prom_statement_run(&turn_statement, values, NULL, true);
	if (SPI_processed == 0)
		return false;
	in = prom_row_int64_or(0, 1, 0);
	out = prom_row_int64_or(0, 2, 0);
	if (pg_add_s64_overflow(in, out, &charge->tokens))
		charge->tokens = PG_INT64_MAX;
	charge->cost = read_numeric(prom_row_text_or_null(0, 3));
	SPI_freetuptable(SPI_tuptable);
	return true;
}


/* Reservations. */

static void
free_reservation(PromReservation *reservation)
{
	pfree((char *) reservation->spender.agent);
	pfree((char *) reservation->spender.model);
	pfree((char *) reservation->spender.submitter);
	if (reservation->amount.cost != NULL)
		pfree(reservation->amount.cost);
	if (reservation->charge.cost != NULL)
		pfree(reservation->charge.cost);
	pfree(reservation);
}

static void
set_charge(PromReservation *reservation, const PromAmount *charge)
{
	MemoryContext before = MemoryContextSwitchTo(reservations);

	reservation->charge.tokens = charge->tokens;
	reservation->charge.cost = copy_numeric(charge->cost);
	MemoryContextSwitchTo(before);
}

/* Charge it now, whatever becomes of a transaction, and forget it. */
static void
charge_now(PromReservation *reservation, const PromAmount *charge)
{
	set_charge(reservation, charge);
	count_reserved(reservation, false);
	count_spent(reservation, true);
	reservation->attempt->reservation = NULL;
	dlist_delete(&reservation->link);
	free_reservation(reservation);
}

/* Charge it if the transaction commits. */
static void
settle(PromAttempt *attempt, const PromAmount *charge)
{
	PromReservation *reservation = attempt->reservation;

	set_charge(reservation, charge);
	count_reserved(reservation, false);
	count_spent(reservation, true);
	reservation->is_settled = true;
	attempt->reservation = NULL;
	dlist_delete(&reservation->link);
	dlist_push_tail(&changed, &reservation->link);
}

/* The transaction in which it was made or settled has failed. */
static void
take_back(PromReservation *reservation)
{
	dlist_delete(&reservation->link);
	if (!reservation->is_settled)
	{
		count_reserved(reservation, false);
		reservation->attempt->reservation = NULL;
		free_reservation(reservation);
		return;
	}
	count_spent(reservation, false);
	count_reserved(reservation, true);
	if (reservation->charge.cost != NULL)
		pfree(reservation->charge.cost);
	reservation->charge.cost = NULL;
	reservation->is_settled = false;
	reservation->attempt->reservation = reservation;
	dlist_push_tail(&held, &reservation->link);
}

/*
 * Turns of functions whose steps are there: a counter that reads these must
 * not be told of them again.
 */
static void
close_turns(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &held)
	{
		PromReservation *reservation =
			dlist_container(PromReservation, link, iter.cur);
		PromAmount charge;

		if (!reservation->is_call && read_turn(reservation, &charge))
			charge_now(reservation, &charge);
	}
}

static void
load(MemoryContext context, TimestampTz now)
{
	Datum value = TimestampTzGetDatum(now);
	MemoryContext before;
	Counter *list;
	int n;

	/* One of this moment: what made them stale has committed. */
	PushActiveSnapshot(GetLatestSnapshot());
	close_turns();
	prom_statement_run(&newest_statement, &value, NULL, true);
	n = SPI_processed;
	before = MemoryContextSwitchTo(context);
	list = palloc0(Max(n, 1) * sizeof(Counter));
	for (int i = 0; i < n; i++)
		read_counter(i, &list[i]);
	MemoryContextSwitchTo(before);
	SPI_freetuptable(SPI_tuptable);
	if (counters_context != NULL)
		MemoryContextDelete(counters_context);
	counters_context = context;
	counters = list;
	ncounters = n;
	read_charges();
	PopActiveSnapshot();
	last_refill = DT_NOBEGIN;
	next_refill = DT_NOEND;
	for (int i = 0; i < n; i++)
	{
		counters[i].is_new = false;
		last_refill = Max(last_refill, counters[i].since);
		next_refill = Min(next_refill, counters[i].until);
	}
}

/* What part of a limit is spent, percent. */
static double
percent_of(double spent, double limit)
{
	return limit > 0 ? 100 * spent / limit : 100;
}

static double
double_of(Numeric value)
{
	return DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
											  NumericGetDatum(value)));
}

static double
percent_spent(const Counter *counter)
{
	double tokens = counter->tokens < 0 ? 0
										: percent_of(counter->spent.tokens,
													 counter->tokens);
	double cost = counter->cost == NULL
					  ? 0
					  : percent_of(double_of(counter->spent.cost),
								   double_of(counter->cost));

	return Max(tokens, cost);
}

/* Let alerts know of the budget that is nearest to its limit. */
static void
tell_spent(void)
{
	PromVitals *vitals = &prom_my_database->vitals;
	const Counter *nearest = NULL;
	double most = 0;

	for (int i = 0; i < ncounters; i++)
	{
		double percent = percent_spent(&counters[i]);

		if (nearest != NULL && percent <= most)
			continue;
		most = percent;
		nearest = &counters[i];
	}
	SpinLockAcquire(&vitals->mutex);
	vitals->spent = most;
	vitals->refills_at = nearest == NULL ? DT_NOBEGIN : nearest->until;
	strlcpy(vitals->budget, nearest == NULL ? "none" : nearest->name,
			sizeof(vitals->budget));
	SpinLockRelease(&vitals->mutex);
}

void
prom_spending_begin(TimestampTz now)
{
	MemoryContext context;

	Assert(dlist_is_empty(&changed));
	/* A clock may go back, too. */
	if (!is_stale && now >= last_refill && now < next_refill)
		return;
	if (reservations == NULL)
	{
		reservations = AllocSetContextCreate(TopMemoryContext,
											 "prometheus reservations",
											 ALLOCSET_SMALL_SIZES);
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	}
	kept_of = prom_setting_relation(&prom_budget_kind);
	is_stale = false;
	context = AllocSetContextCreate(TopMemoryContext, "prometheus budgets",
									ALLOCSET_SMALL_SIZES);
	PG_TRY();
	{
		load(context, now);
	}
	PG_CATCH();
	{
		is_stale = true;
		if (context != counters_context)
			MemoryContextDelete(context);
		PG_RE_THROW();
	}
	PG_END_TRY();
	tell_spent();
}

void
prom_spending_end(bool committed)
{
	bool tells = ncounters > 0 && !dlist_is_empty(&changed);

	while (!dlist_is_empty(&changed))
	{
		/* The last one first: an attempt may have settled, then reserved. */
		PromReservation *reservation = dlist_tail_element(PromReservation, link,
														  &changed);

		if (!committed)
			take_back(reservation);
		else
		{
			dlist_delete(&reservation->link);
			if (reservation->is_settled)
				free_reservation(reservation);
			else
				dlist_push_tail(&held, &reservation->link);
		}
	}
	if (tells)
		tell_spent();
}


/* Spending. */

/* Keep it for the attempt, in memory that is not the turn's. */
static void
keep(PromAttempt *attempt, const Spender *spender, const PromAmount *amount,
	 bool is_call)
{
	MemoryContext before = MemoryContextSwitchTo(reservations);
	PromReservation *reservation = palloc0(sizeof(PromReservation));

	reservation->attempt = attempt;
	reservation->step = attempt->step;
	reservation->is_call = is_call;
	reservation->spender = *spender;
	reservation->spender.agent = pstrdup(spender->agent);
	reservation->spender.model = pstrdup(spender->model);
	reservation->spender.submitter = pstrdup(spender->submitter);
	reservation->amount.tokens = amount->tokens;
	reservation->amount.cost = copy_numeric(amount->cost);
	MemoryContextSwitchTo(before);
	count_reserved(reservation, true);
	dlist_push_tail(&changed, &reservation->link);
	attempt->reservation = reservation;
}

const char *
prom_spending_reserve(PromAttempt *attempt, const PromModel *model,
					  const PromLoaded *loaded, int64 tokens_in)
{
	bool is_call = !prom_llm_is_function(model->api);
	Spender spender = {.agent = loaded->agent,
					   .model = model->name,
					   .submitter = loaded->source.submitter,
					   .submitter_oid = loaded->source.submitter_oid,
					   .at = attempt->sent_at};
	PromAmount amount = amount_of(model, tokens_in, 0,
								  prom_prompt_reply_tokens(model));

	Assert(attempt->reservation == NULL);
	for (int i = 0; i < ncounters; i++)
		if (falls_under(&spender, &counters[i]) &&
			(!tokens_fit(&counters[i], &amount) ||
			 !cost_fits(&counters[i], &amount)))
			return refusal(&counters[i], &spender, &amount);
	keep(attempt, &spender, &amount, is_call);
	return NULL;
}

const PromAmount *
prom_spending_reserved(const PromAttempt *attempt)
{
	return &attempt->reservation->amount;
}

/* By the same rules as prometheus._charge. */
void
prom_spending_settle(PromAttempt *attempt, const PromModel *model,
					 const PromReply *reply)
{
	PromAmount charge = {0};

	if (attempt->reservation == NULL)
		return;
	if (!reply->ambiguous && reply->tokens_in >= 0 && reply->tokens_out >= 0)
		charge = amount_of(model, reply->tokens_in, reply->cached_tokens,
						   reply->tokens_out);
	else if (reply->ambiguous ||
			 (reply->http_status >= 200 && reply->http_status <= 299))
		charge = attempt->reservation->amount;
	settle(attempt, &charge);
}

void
prom_spending_settle_turn(PromAttempt *attempt)
{
	PromAmount charge;

	if (attempt->reservation == NULL || attempt->reservation->is_call)
		return;
	(void) read_turn(attempt->reservation, &charge);
	settle(attempt, &charge);
}

void
prom_spending_leave(PromAttempt *attempt)
{
	PromReservation *reservation = attempt->reservation;
	PromAmount nothing = {0};

	if (reservation != NULL)
		charge_now(reservation,
				   reservation->is_call ? &reservation->amount : &nothing);
}
