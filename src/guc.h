/*
 * guc.h
 *	  The settings prometheus.*, in alphabetical order.
 */
#ifndef PROM_GUC_H
#define PROM_GUC_H

#define PROM_MAX_DATABASES 64 /* what max_databases can be at most */

/* What spans tell of contents. */
typedef enum PromCapture
{
	PROM_CAPTURE_OFF,
	PROM_CAPTURE_METADATA, /* how long they are */
	PROM_CAPTURE_FULL
} PromCapture;

/* How bodies for a collector are sent. */
typedef enum PromCompression
{
	PROM_COMPRESSION_NONE,
	PROM_COMPRESSION_GZIP
} PromCompression;

extern bool prom_guc_allow_private_endpoints;
extern int prom_guc_capture_content; /* PromCapture */
extern char *prom_guc_caused_by_text;
extern char *prom_guc_databases;
extern int prom_guc_executors;
extern int prom_guc_mark_interval; /* ms */
extern int prom_guc_max_crashes;
extern int prom_guc_max_databases;
extern int prom_guc_max_in_flight;
extern int prom_guc_max_request; /* kB */
extern int prom_guc_max_state;   /* kB */
extern int prom_guc_max_subscriptions;
extern int prom_guc_metric_series;
extern int prom_guc_network_memory;   /* kB */
extern int prom_guc_otlp_compression; /* PromCompression */
extern char *prom_guc_otlp_endpoint;
extern char *prom_guc_otlp_headers;
extern int prom_guc_otlp_interval;         /* ms */
extern int prom_guc_otlp_metrics_interval; /* ms; 0: never */
extern char *prom_guc_otlp_service_name;
extern int prom_guc_otlp_timeout;      /* ms */
extern int prom_guc_queue_memory;      /* kB */
extern int prom_guc_rescan_interval;   /* ms */
extern int prom_guc_retention;         /* s; 0: for ever */
extern int prom_guc_retention_audit;   /* s; 0: for ever */
extern int prom_guc_retention_spans;   /* s; 0: for ever */
extern int prom_guc_retention_waiting; /* s, beyond retention */
extern int prom_guc_ring_size;
extern char *prom_guc_secrets_dir;
extern double prom_guc_trace_sample_ratio;
extern int prom_guc_trace_slow; /* ms; 0: nothing is */

extern void prom_guc_define(void);

/* The event that prometheus.caused_by says; 0: none. */
extern int64 prom_guc_caused_by(void);

/* The statements that make a database be served beside the others. */
extern char *prom_guc_serve_hint(const char *database);

/* The names in prometheus.databases, as a list of char *. */
extern struct List *prom_guc_database_names(void);

#endif
