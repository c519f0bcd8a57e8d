/*
 * role.c
 *	  Decides who may see a row and who may change the configuration.
 *
 * Roles are stored by name and oid and count only while both agree: after a
 * restore the oid may be somebody else's, after DROP and CREATE the name.
 * The views ask prometheus._may_see() for every row, so its last answer is
 * kept until a role or a membership changes.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/supportnodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "compat.h"
#include "extension.h"
#include "role.h"
#include "xact.h"

/* The last question and its answer. */
static struct
{
	bool valid;
	Oid user;
	Oid oid;
	char name[NAMEDATALEN];
	bool answer;
} last;

static uint64 changes; /* of roles and memberships, as far as is known here */

static void
roles_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	last.valid = false;
	changes++;
}

uint64
prom_role_changes(void)
{
	return changes;
}

void
prom_role_init(void)
{
	CacheRegisterSyscacheCallback(AUTHOID, roles_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, roles_changed, (Datum) 0);
}

static bool
is_admin(Oid role)
{
	Oid admin = get_role_oid(PROM_ROLE_ADMIN, true);

	return superuser_arg(role) ||
		   (OidIsValid(admin) && has_privs_of_role(role, admin));
}

bool
prom_role_is_admin(void)
{
	return is_admin(GetUserId());
}

bool
prom_role_is(const char *name, Oid oid)
{
	char *now = GetUserNameFromId(oid, true);

	return now != NULL && strcmp(now, name) == 0;
}

bool
prom_role_names_admin(const char *name, Oid oid)
{
	char *now = GetUserNameFromId(oid, true);

	return now != NULL && strcmp(now, name) == 0 && is_admin(oid);
}

void
prom_role_become_owner(PromOwner *before)
{
	GetUserIdAndSecContext(&before->user, &before->context);
	SetUserIdAndSecContext(prom_extension_owner(),
						   before->context | SECURITY_LOCAL_USERID_CHANGE |
							   PROM_SECURITY_OWN);
	before->nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
prom_role_restore(const PromOwner *before)
{
	AtEOXact_GUC(true, before->nest_level);
	SetUserIdAndSecContext(before->user, before->context);
}

bool
prom_role_acts_as_owner(void)
{
	Oid user;
	int context;

	GetUserIdAndSecContext(&user, &context);
	return (context & PROM_SECURITY_OWN) != 0;
}

void
prom_role_require_admin(const char *function)
{
	if (!prom_role_is_admin())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for function %s", function),
						errhint("Only members of role \"%s\" may call it.",
								PROM_ROLE_ADMIN)));
}

uint32
prom_role_hash(const char *name)
{
	return hash_bytes((const unsigned char *) name, strlen(name));
}

PromSubmitter
prom_role_submitter(Oid role)
{
	PromSubmitter submitter;

	submitter.role = role;
	submitter.name = prom_role_hash(GetUserNameFromId(role, false));
	return submitter;
}

bool
prom_role_is_submitter(const PromSubmitter *submitter)
{
	char *name = GetUserNameFromId(submitter->role, true);

	return name != NULL && prom_role_hash(name) == submitter->name &&
		   has_privs_of_role(GetUserId(), submitter->role);
}

bool
prom_role_shows(Oid user, const char *name, Oid oid)
{
	uint64 before = changes;
	char *now;

	if (last.valid && last.user == user && last.oid == oid &&
		strcmp(last.name, name) == 0)
		return last.answer;

	last.valid = false;
	if (is_admin(user))
		last.answer = true;
	else
	{
		now = GetUserNameFromId(oid, true);
		last.answer = now != NULL && strcmp(now, name) == 0 &&
					  has_privs_of_role(user, oid);
	}
	last.user = user;
	last.oid = oid;
	strlcpy(last.name, name, NAMEDATALEN);
	/* A change that was noticed meanwhile may not be in the answer. */
	last.valid = changes == before;
	return last.answer;
}

bool
prom_role_may_see(const char *name, Oid oid)
{
	return prom_role_shows(GetUserId(), name, oid);
}

PG_FUNCTION_INFO_V1(prom_shows);

Datum
prom_shows(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(prom_role_shows(PG_GETARG_OID(0),
								   text_to_cstring(PG_GETARG_TEXT_PP(1)),
								   PG_GETARG_OID(2)));
}

PG_FUNCTION_INFO_V1(prom_may_see);

Datum
prom_may_see(PG_FUNCTION_ARGS)
{
	text *name = PG_GETARG_TEXT_PP(0);
	char buffer[NAMEDATALEN];
	int length = VARSIZE_ANY_EXHDR(name);

	if (length >= NAMEDATALEN)
		PG_RETURN_BOOL(prom_role_is_admin());
	memcpy(buffer, VARDATA_ANY(name), length);
	buffer[length] = '\0';
	PG_RETURN_BOOL(prom_role_may_see(buffer, PG_GETARG_OID(1)));
}

PG_FUNCTION_INFO_V1(prom_may_see_support);

/*
 * Tell the planner that most rows pass.  Its default for a boolean function,
 * a third, changes the order and the methods of joins for nothing.
 */
Datum
prom_may_see_support(PG_FUNCTION_ARGS)
{
	Node *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestSelectivity))
	{
		((SupportRequestSelectivity *) request)->selectivity = 1.0;
		PG_RETURN_POINTER(request);
	}
	PG_RETURN_POINTER(NULL);
}
