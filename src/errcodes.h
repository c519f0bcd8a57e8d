/*
 * errcodes.h
 *	  Our own SQLSTATEs, class PM; the README has the same table.
 */
#ifndef PROM_ERRCODES_H
#define PROM_ERRCODES_H

#define ERRCODE_PROM_TASK_FAILED MAKE_SQLSTATE('P', 'M', '0', '0', '1')
#define ERRCODE_PROM_TASK_VETOED MAKE_SQLSTATE('P', 'M', '0', '0', '2')
#define ERRCODE_PROM_TASK_CANCELLED MAKE_SQLSTATE('P', 'M', '0', '0', '3')
#define ERRCODE_PROM_TASK_QUARANTINED MAKE_SQLSTATE('P', 'M', '0', '0', '4')
#define ERRCODE_PROM_INTEGRITY MAKE_SQLSTATE('P', 'M', '0', '0', '5')
#define ERRCODE_PROM_PROPORTIONALITY MAKE_SQLSTATE('P', 'M', '0', '0', '6')
#define ERRCODE_PROM_UNDO_CONFLICT MAKE_SQLSTATE('P', 'M', '0', '0', '7')
#define ERRCODE_PROM_STATE_VERSION MAKE_SQLSTATE('P', 'M', '0', '0', '8')

#endif
