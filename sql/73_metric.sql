/*
 * Metrics: what the processes count, and what is read when somebody asks.
 */
CREATE FUNCTION @extschema@.prometheus_metrics(
    format text DEFAULT 'openmetrics')
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_metrics_text';
COMMENT ON FUNCTION @extschema@.prometheus_metrics(text) IS
    'Counters, gauges and histograms of this database, for a monitoring system. format: openmetrics (1.0, with exemplars) or text (0.0.4). For administrators and members of pg_monitor. README lists the metrics.';
