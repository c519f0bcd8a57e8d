/*
 * signature.h
 *	  Functions of users: kept by their signature, found again, and described.
 *
 * They are kept as text with every name qualified, since a dump, or another
 * server, has other oids.  Statements here are run by the search_path of the
 * system's schemas, with SPI connected.
 */
#ifndef PROM_SIGNATURE_H
#define PROM_SIGNATURE_H

#include "utils/jsonb.h"

/* schema.name(type, type), qualified. */
extern char *prom_signature_text(Oid function);

/* The function of a signature; InvalidOid: there is none any more. */
extern Oid prom_signature_find(const char *signature);

/* A hash of all that decides what it does: another one, another function. */
extern char *prom_signature_hash(Oid function);

/* Raise unless the current user may execute it. */
extern void prom_signature_require(Oid function);

/* The signature of a model's handler; raises if it cannot be one. */
extern char *prom_signature_of_model(Oid function);

/*
 * The JSON Schema of a function's arguments, as an object by their names;
 * raises if one of them, or the result, cannot be said in JSON.
 */
extern char *prom_signature_schema(Oid function);

/* Does it return many rows? */
extern bool prom_signature_is_set(Oid function);

/*
 * A statement that calls it with the members of the object $1 as arguments and
 * gives the result, or each of its rows, as jsonb.  A member that is missing or
 * null stands for the argument's default, without one for NULL.  To be made and
 * run as who calls: types, defaults and casts are others' code.
 */
extern char *prom_signature_call(Oid function, Jsonb *arguments);

#endif
