/*
 * prometheus.c
 *	  The library's beginning: what is registered when it is loaded.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "alteration.h"
#include "as_of.h"
#include "compat.h"
#include "consumer_lock.h"
#include "era.h"
#include "extension.h"
#include "guc.h"
#include "launcher.h"
#include "mark.h"
#include "metric.h"
#include "moment.h"
#include "role.h"
#include "shmem.h"
#include "span.h"
#include "utility.h"
#include "version.h"
#include "wakeup.h"

#ifdef PG_MODULE_MAGIC_EXT
PG_MODULE_MAGIC_EXT(.name = "prometheus", .version = PROM_VERSION);
#else
PG_MODULE_MAGIC;
#endif

/*
 * Loaded late, into one session, it can submit and read; only a library that
 * is preloaded has shared memory and workers.
 */
void
_PG_init(void)
{
	prom_guc_define();
	prom_era_init();
	prom_role_init();
	prom_wakeup_init();
	prom_consumer_lock_init();
	prom_mark_init();
	prom_metric_begin();
	prom_moment_init();
	prom_as_of_init();
	prom_version_init();
	prom_span_init();
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		prom_shmem_init();
		prom_launcher_register();
		prom_utility_init();
		prom_extension_init();
		prom_alteration_init();
	}
}

PG_FUNCTION_INFO_V1(prom_version);

Datum
prom_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(PROM_VERSION));
}

PG_FUNCTION_INFO_V1(prom_installed);

/* The install script's last word: workers may begin when it has committed. */
Datum
prom_installed(PG_FUNCTION_ARGS)
{
	prom_wakeup_extension();
	PG_RETURN_VOID();
}
