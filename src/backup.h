/*
 * backup.h
 *	  What can be known of backups, for prometheus_health().
 */
#ifndef PROM_BACKUP_H
#define PROM_BACKUP_H

typedef struct PromBackupFinding
{
	const char *status; /* ok or warning */
	const char *value;
	const char *hint; /* or NULL */
} PromBackupFinding;

/* Is WAL archived, as it is meant to be? */
extern PromBackupFinding prom_backup_archiving(void);

/* When was the last base backup? */
extern PromBackupFinding prom_backup_last(void);

#endif
