/*
 * fault.c
 *	  Lets a process die, fail, or stop the server at a named place.
 *
 * The setting prometheus.fault is a list, separated by commas, of
 *
 *		point:action[:nth[:task]]
 *
 * The action is die (signal 9 to itself), error (an ERROR), stop (an immediate
 * stop of the server) or note (nothing).  It is taken when this process reaches
 * the point for the nth time (1), or each time (0); with a task, only times
 * count when that task is on the processor (guilt.h).  What was taken leaves a
 * file prometheus.fault.POINT in the data directory, and is taken again only
 * when that is removed: a server that starts again does not fall again.  A note
 * leaves prometheus.note.POINT: a test sees by it that this process has read
 * the whole setting.
 */
#include "postgres.h"

#ifdef PROM_FAULTS

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"

#include "compat.h"
#include "fault.h"
#include "guilt.h"

#define MAX_FAULTS 8

/*
 * Every point.  Where may_raise is false an ERROR has no place: after a
 * commit, within libcurl, and at the end of a process; but an executor's job
 * that is told to have failed is given again, and finds its step.  test/t/310
 * reads this.
 */
static const struct
{
	const char *name;
	bool may_raise;
} points[] = {
	{"submit-before-write", true},
	{"submit-after-write", true},
	{"cancel-after-write", true},
	{"hint-before-push", false},
	{"hint-after-push", false},
	{"scheduler-after-pop", true},
	{"scheduler-before-assign", true},
	{"scheduler-after-assign", true},
	{"scheduler-before-take-back", true},
	{"scheduler-after-take-back", true},
	{"scheduler-before-admit", true},
	{"scheduler-after-admit", true},
	{"pause-after-write", true},
	{"gate-closed", true},
	{"before-park", true},
	{"scheduler-before-read", true},
	{"scheduler-after-read", true},
	{"scheduler-in-scan", true},
	{"scheduler-after-scan", true},
	{"caller-before-waiting", true},
	{"caller-after-waiting", true},
	{"caller-after-take", true},
	{"begin-loaded", true},
	{"begin-before-commit", true},
	{"begin-after-commit", true},
	{"before-send", true},
	{"after-send", true},
	{"before-drop", true},
	{"after-drop", true},
	{"reply-half-read", false},
	{"reply-read", true},
	{"before-record", true},
	{"in-summary", true},
	{"record-before-commit", true},
	{"record-after-commit", true},
	{"cancel-before-commit", true},
	{"cancel-after-commit", true},
	{"give-up-before-commit", true},
	{"job-before-give", true},
	{"job-after-give", true},
	{"job-begun", true},
	{"job-before-commit", true},
	{"job-after-commit", true},
	{"job-before-take-back", true},
	{"before-give-back", true},
	{"after-give-back", true},
	{"before-wake", true},
	{"before-notify", true},
	{"in-notify", true},
	{"after-notify", true},
	{"before-checkpoint", true},
	{"in-checkpoint", true},
	{"after-checkpoint", true},
	{"before-mark", true},
	{"in-mark", true},
	{"use-before-commit", true},
	{"after-mark", true},
	{"distribute-before-commit", true},
	{"distribute-after-commit", true},
	{"deliver-in-prepare", true},
	{"deliver-in-record", true},
	{"deliver-before-commit", true},
	{"deliver-after-commit", true},
	{"deliver-before-send", true},
	{"deliver-after-send", true},
	{"embed-walk-before-commit", true},
	{"embed-before-send", true},
	{"embed-after-send", true},
	{"embed-answered", true},
	{"embed-before-commit", true},
	{"embed-after-commit", true},
	{"export-in-read", true},
	{"export-in-readahead", true},
	{"export-in-spans", true},
	{"export-before-commit", true},
	{"export-after-commit", true},
	{"export-before-send", true},
	{"export-after-send", true},
	{"export-answered", true},
	{"alert-before-commit", true},
	{"alert-after-commit", false},
	{"retention-before-move", true},
	{"retention-after-move", true},
	{"retention-in-batch", true},
	{"retention-before-commit", true},
	{"retention-after-commit", true},
	{"retention-in-versions", true},
	{"worker-after-place", true},
	{"worker-after-connect", true},
	{"worker-in-leave", false},
	{"launcher-before-start", true},
	{"launcher-after-start", true},
	{"launcher-before-forget", true},
	{"launcher-after-forget", true},
	{"strike-before-commit", true},
	{"strike-after-commit", true},
};

typedef enum Action
{
	ACTION_DIE,
	ACTION_ERROR,
	ACTION_STOP,
	ACTION_NOTE
} Action;

typedef struct Fault
{
	int point;
	Action action;
	int nth;
	int64 task_id; /* 0: whatever is done */
	int reached;   /* by this process */
} Fault;

static char *setting = NULL;
static Fault faults[MAX_FAULTS];
static int nfaults = 0;

static int
find_point(const char *name)
{
	for (int i = 0; i < lengthof(points); i++)
		if (strcmp(points[i].name, name) == 0)
			return i;
	return -1;
}

/* Read one of the list; false: it cannot be read. */
static bool
parse_fault(const char *text, Fault *fault)
{
	char name[64];
	char action[16];
	long long task_id = 0;

	fault->nth = 1;
	if (sscanf(text, " %63[a-z-]:%15[a-z]:%d:%lld", name, action, &fault->nth,
			   &task_id) < 2)
		return false;
	fault->task_id = task_id;
	fault->reached = 0;
	fault->point = find_point(name);
	if (fault->point < 0)
		return false;
	if (strcmp(action, "die") == 0)
		fault->action = ACTION_DIE;
	else if (strcmp(action, "stop") == 0)
		fault->action = ACTION_STOP;
	else if (strcmp(action, "note") == 0)
		fault->action = ACTION_NOTE;
	else if (strcmp(action, "error") == 0 && points[fault->point].may_raise)
		fault->action = ACTION_ERROR;
	else
		return false;
	return true;
}

/* The number of faults in a list; -1: it cannot be read. */
static int
parse_list(const char *text, Fault *list)
{
	int n = 0;

	while (*text != '\0')
	{
		if (n == MAX_FAULTS || !parse_fault(text, &list[n]))
			return -1;
		n++;
		text += strcspn(text, ",");
		if (*text == ',')
			text++;
	}
	return n;
}

static bool
check_fault(char **newval, void **extra, GucSource source)
{
	Fault list[MAX_FAULTS];

	if (parse_list(*newval, list) >= 0)
		return true;
	GUC_check_errdetail("It must be point:action[:nth[:task]], separated by commas.");
	return false;
}

static void
assign_fault(const char *newval, void *extra)
{
	nfaults = parse_list(newval, faults);
}

void
prom_fault_define(void)
{
	DefineCustomStringVariable("prometheus.fault",
							   "Faults that this build for tests commits.",
							   NULL, &setting, "", PGC_SIGHUP, 0, check_fault,
							   assign_fault, NULL);
}

/* Only one process leaves the mark, so only one takes the action. */
static bool
leave_mark(const Fault *fault)
{
	char path[MAXPGPATH];
	int fd;

	snprintf(path, sizeof(path), "prometheus.%s.%s",
			 fault->action == ACTION_NOTE ? "note" : "fault",
			 points[fault->point].name);
	fd = BasicOpenFile(path, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* Stop the server and wait for the end that it sends, as everybody does. */
static pg_noreturn void
stop_server(void)
{
	sigset_t all_but_quit;

	kill(PostmasterPid, SIGQUIT);
	sigfillset(&all_but_quit);
	sigdelset(&all_but_quit, SIGQUIT);
	for (;;)
		sigsuspend(&all_but_quit);
}

static void
commit_fault(const Fault *fault)
{
	const char *point = points[fault->point].name;

	switch (fault->action)
	{
		case ACTION_DIE:
			kill(MyProcPid, SIGKILL);
			break;
		case ACTION_ERROR:
			ereport(ERROR, (errcode(ERRCODE_SYSTEM_ERROR),
							errmsg("fault at point \"%s\"", point)));
			break;
		case ACTION_STOP:
			stop_server();
		case ACTION_NOTE:
			break;
	}
}

void
prom_fault_reach(const char *point)
{
	for (int i = 0; i < nfaults; i++)
	{
		Fault *fault = &faults[i];

		if (strcmp(points[fault->point].name, point) != 0)
			continue;
		if (fault->task_id != 0 && fault->task_id != prom_guilt_named())
			continue;
		fault->reached++;
		if (fault->nth == 0 ||
			(fault->reached == fault->nth && leave_mark(fault)))
			commit_fault(fault);
	}
	Assert(find_point(point) >= 0);
}

#endif
