/*
 * guilt.c
 *	  Notes in a mapped file which task is on the processor.
 *
 * A process that dies by a signal takes shared memory and what was not
 * flushed with it, but not the pages of a file: after the reset the note still
 * names the task.  It is a line for each process, so that it is exact: what
 * else was in flight is innocent, and so is what a process was at when the
 * server was stopped (SIGQUIT clears the note).  No flush: a crash of the
 * machine is nobody's fault, so notes of another boot are not believed.
 *
 * Naming a task is a few stores by the only process that writes the line, and
 * who reads it begins when that process is dead: only the order counts.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "guc.h"
#include "guilt.h"
#include "worker.h"

#define FILE_NAME "prometheus.guilt" /* in the data directory */
#define MAGIC "prometheus2"          /* another layout needs another one */
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

#define LINES (PROM_MAX_DATABASES * PROM_NPLACES)

/* One process; a cache line. */
typedef struct Line
{
	Oid database; /* InvalidOid: no task is named.  Written last */
	int32 step;
	int64 task_id;
	TimestampTz since;
	char unused[40];
} Line;

typedef struct GuiltFile
{
	char magic[16];
	char boot[48];
	Line lines[LINES];
} GuiltFile;

StaticAssertDecl(sizeof(Line) == 64, "a line of guilt is one cache line");

static GuiltFile *file = NULL; /* mapped; NULL: nobody is blamed */
static volatile Line *mine = NULL;
static int my_place;

static void
warn(const char *what)
{
	ereport(WARNING,
			(errcode_for_file_access(),
			 errmsg("could not %s file \"%s\": %m", what, FILE_NAME),
			 errdetail("A task that crashes the server will not be found out.")));
}

/* What the file must begin with. */
static void
fill_header(GuiltFile *header)
{
	FILE *source = AllocateFile(BOOT_ID, "r");

	strlcpy(header->magic, MAGIC, sizeof(header->magic));
	if (source == NULL)
		return;
	if (fgets(header->boot, sizeof(header->boot), source) == NULL)
		header->boot[0] = '\0';
	FreeFile(source);
}

/* Written and not only made longer: a hole needs space when it is touched. */
void
prom_guilt_create(void)
{
	GuiltFile *empty = palloc0(sizeof(GuiltFile));
	char found[offsetof(GuiltFile, lines)];
	struct stat st;
	int fd;

	fill_header(empty);
	fd = BasicOpenFile(FILE_NAME, O_RDWR | O_CREAT | PG_BINARY);
	if (fd < 0)
	{
		warn("open");
		return;
	}
	if (fstat(fd, &st) != 0 || st.st_size < sizeof(GuiltFile) ||
		read(fd, found, sizeof(found)) != sizeof(found) ||
		memcmp(found, empty, sizeof(found)) != 0)
	{
		errno = 0;
		if (pg_pwrite(fd, empty, sizeof(*empty), 0) != sizeof(*empty))
		{
			if (errno == 0)
				errno = ENOSPC;
			warn("write");
			unlink(FILE_NAME);
		}
	}
	close(fd);
	pfree(empty);
}

void
prom_guilt_attach(int place)
{
	int fd = BasicOpenFile(FILE_NAME, O_RDWR | PG_BINARY);
	struct stat st;
	void *map = MAP_FAILED;

	if (fd < 0)
	{
		warn("open");
		return;
	}
	if (fstat(fd, &st) == 0 && st.st_size >= sizeof(GuiltFile))
		map = mmap(NULL, sizeof(GuiltFile), PROT_READ | PROT_WRITE,
				   MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		warn("map");
	else
		file = map;
	close(fd);
	my_place = place;
}

/*
 * Is this the line of a process of ours that is dead?  By the database's oid:
 * it may have had another entry.  An executor that lives may be at a task now.
 */
static bool
is_dead(int line)
{
	int place = line % PROM_NPLACES;

	if (file->lines[line].database != MyDatabaseId)
		return false;
	if (place == my_place)
		return true;
	return PROM_ROLE_OF(place) == PROM_EXECUTOR &&
		   prom_my_database->worker[place].pid == 0;
}

bool
prom_guilt_next(PromCulprit *culprit)
{
	if (file == NULL)
		return false;
	for (int i = 0; i < LINES; i++)
	{
		const Line *line = &file->lines[i];

		if (!is_dead(i))
			continue;
		culprit->line = i;
		culprit->task_id = line->task_id;
		culprit->step = line->step;
		culprit->since = line->since;
		return true;
	}
	return false;
}

void
prom_guilt_forget(const PromCulprit *culprit)
{
	file->lines[culprit->line].database = InvalidOid;
}

/*
 * Not before: until here the line is that of the process of before, and what
 * clears ours must not touch it.  One of a database that is not served any more
 * is overwritten.
 */
void
prom_guilt_begin(void)
{
	int entry = prom_my_database - prom_shared->databases;

	if (file == NULL)
		return;
	mine = &file->lines[entry * PROM_NPLACES + my_place];
	mine->database = InvalidOid;
	mine->since = GetCurrentTimestamp();
}

void
prom_guilt_name(int64 task_id, int32 step)
{
	if (mine == NULL)
		return;
	mine->database = InvalidOid;
	mine->task_id = task_id;
	mine->step = step;
	mine->database = MyDatabaseId;
}

/* In a signal handler too. */
void
prom_guilt_clear(void)
{
	if (mine != NULL)
		mine->database = InvalidOid;
}

int64
prom_guilt_named(void)
{
	return mine != NULL && OidIsValid(mine->database) ? mine->task_id : 0;
}
