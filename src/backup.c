/*
 * backup.c
 *	  Says what can be known of backups, and no more.
 *
 * The server counts what was archived.  It keeps no list of backups, but while
 * WAL is archived it leaves the history file of the newest one in pg_wal; that
 * is written at the end of each base backup of this server, by whatever
 * program.  Dumps, snapshots of the disk and backups of a standby leave no
 * trace here, so without that file nobody can say that there is none.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "backup.h"

/* Whoever makes one each week may be a day late. */
#define RECENT_DAYS 8

PromBackupFinding
prom_backup_archiving(void)
{
	PgStat_ArchiverStats *archiver = pgstat_fetch_stat_archiver();
	TimestampTz archived = archiver->last_archived_timestamp;
	TimestampTz failed = archiver->last_failed_timestamp;
	PromBackupFinding finding = {"ok", "off", NULL};

	if (!XLogArchivingActive())
		return finding;
	if (failed > archived)
	{
		finding.status = "warning";
		finding.value = psprintf("fails: %s, at %s", archiver->last_failed_wal,
								 timestamptz_to_str(failed));
		finding.hint = "The server's log says why. WAL is kept until it is archived, and fills the disk.";
	}
	else if (archiver->archived_count == 0)
		finding.value = "on, nothing was archived yet";
	else
		finding.value =
			psprintf("on, the last one at %s", timestamptz_to_str(archived));
	return finding;
}

/* The end of the newest base backup of this server that left a trace, or 0. */
static time_t
newest_history_file(void)
{
	DIR *dir = AllocateDir(XLOGDIR);
	struct dirent *entry;
	time_t newest = 0;

	while ((entry = ReadDir(dir, XLOGDIR)) != NULL)
	{
		char path[MAXPGPATH];
		struct stat st;

		if (!IsBackupHistoryFileName(entry->d_name))
			continue;
		snprintf(path, sizeof(path), XLOGDIR "/%s", entry->d_name);
		if (stat(path, &st) == 0)
			newest = Max(newest, st.st_mtime);
	}
	FreeDir(dir);
	return newest;
}

PromBackupFinding
prom_backup_last(void)
{
	PromBackupFinding finding = {"ok", NULL, NULL};
	time_t newest = XLogArchivingActive() ? newest_history_file() : 0;
	TimestampTz ended;

	if (newest == 0)
	{
		finding.value = "unknown";
		finding.hint = XLogArchivingActive()
						   ? "No base backup of this server left a trace; one of a standby, a snapshot of the disk or a dump leaves none."
						   : "While archive_mode is off the server does not know of backups, and there can be no recovery to a point in time. See Backups in the README.";
		return finding;
	}
	ended = time_t_to_timestamptz(newest);
	finding.value = psprintf("the last base backup ended at %s",
							 timestamptz_to_str(ended));
	if (TimestampDifferenceExceeds(ended, GetCurrentTimestamp(),
								   RECENT_DAYS * SECS_PER_DAY * 1000))
	{
		finding.status = "warning";
		finding.hint = "That is more than a week ago. One of a standby, a snapshot of the disk or a dump is not seen here.";
	}
	return finding;
}
