/*
 * The only file with GRANT and REVOKE.  Nothing is for PUBLIC; tables that
 * begin with an underscore are for nobody.  Functions that views call need
 * EXECUTE for every reader.
 */
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA prometheus FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_submit(
    text, text, text, integer, timestamptz, text, bigint[], text, text, jsonb,
    interval, integer, text, jsonb)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_submit_many(
    text[], text, text, integer, timestamptz, text[], bigint[], text, text,
    jsonb, interval, integer, text, jsonb)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_retry(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_trace(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_span_start(
    text, jsonb, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_span_end(text, text)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_traceparent() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_sampling(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_stats() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_report(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_wait(
    bigint, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_result(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_prompt(
    bigint, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_cancel(bigint, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_create_consumer(
    text, text[], timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_poll(
    text, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_ack(text, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_replay(
    text, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_drop_consumer(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_emit(
    text, jsonb, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_event_json(
    prometheus.event) FROM PUBLIC;
REVOKE ALL ON PROCEDURE @extschema@.prometheus_ask(
    text, text, interval, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_set_model(
    text, text, text, text, text, regprocedure, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_set_agent(
    text, text, text, text, text[], text, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_set_tool(
    regprocedure, text, text, text, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_set_http_tool(
    text, text, text, jsonb, text, text, text, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_create_tool(
    text, jsonb, text, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_restore_tool(text, bigint)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_evolve(
    text, integer, text, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_evolution_report(text)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_set_policy(
    text, text, text, regprocedure, jsonb, text, text, text, text, text)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_set_budget(
    text, text, bigint, numeric) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_set_alert(text, text)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_remember(
    text, text, text, real, jsonb, real[], interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_recall(
    text, text, text[], integer, real[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_memory_index(
    text, text, integer, name) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_forget(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_restore_memory(bigint)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_supersede_memory(bigint, text)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_share_skill(text, text)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_mark(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_drop_mark(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_save_state(
    text, jsonb, text, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_state(
    text, text, timestamptz, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_state_history(
    text, text, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_restore_state(
    text, text, bigint, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_diff_state(
    text, bigint, bigint, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_approve(bigint, text)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_reject(bigint, text)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_pause(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_resume(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_why(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_progress(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_subscribe(
    text, regprocedure, text, text[], text, jsonpath, boolean, interval,
    integer, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_unsubscribe(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_redrive(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_discard(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_track(
    regclass, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_rows_at(
    anyelement, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_rows_at(
    anyelement, timestamptz, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_undo(bigint, boolean)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_version() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_health() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_storage() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.prometheus_metrics(text) FROM PUBLIC;

GRANT USAGE ON SCHEMA prometheus
    TO prometheus_agent_user, prometheus_agent_admin;
GRANT SELECT ON
    prometheus.task,
    prometheus.queue,
    prometheus.consumer,
    prometheus.attempt,
    prometheus.call,
    prometheus.step,
    prometheus.event,
    prometheus.agent,
    prometheus.model,
    prometheus.tool,
    prometheus.policy,
    prometheus.budget,
    prometheus.verdict,
    prometheus.approval,
    prometheus.memory,
    prometheus.memory_version,
    prometheus.memory_evidence,
    prometheus.memory_embedding,
    prometheus.skill,
    prometheus.evolution,
    prometheus.mark,
    prometheus.state,
    prometheus.worker,
    prometheus.gate,
    prometheus.alert,
    prometheus.subscription,
    prometheus.delivery,
    prometheus.dead_letter,
    prometheus.span,
    prometheus.export,
    prometheus.usage,
    prometheus.calibration,
    prometheus.task_history,
    prometheus.attempt_history,
    prometheus.call_history,
    prometheus.step_history,
    prometheus.event_history,
    prometheus.agent_history,
    prometheus.model_history,
    prometheus.tool_history,
    prometheus.policy_history,
    prometheus.budget_history,
    prometheus.verdict_history,
    prometheus.approval_history,
    prometheus.memory_history,
    prometheus.skill_history,
    prometheus.evolution_history,
    prometheus.state_history,
    prometheus.span_history,
    prometheus.usage_history,
    prometheus.calibration_history
    TO prometheus_agent_user, prometheus_agent_admin;
GRANT EXECUTE ON FUNCTION
    prometheus._may_see(text, oid),
    prometheus._span_attributes(jsonb, text, text, text),
    prometheus._seen(xid8),
    prometheus._seen_at(xid8, timestamptz),
    prometheus._seen_in(xid8, bigint),
    prometheus._last_mark(),
    prometheus._moment(),
    prometheus._mark_at(timestamptz),
    prometheus._hidden_marks(),
    prometheus.task_at(timestamptz),
    prometheus.attempt_at(timestamptz),
    prometheus.call_at(timestamptz),
    prometheus.step_at(timestamptz),
    prometheus.event_at(timestamptz),
    prometheus.agent_at(timestamptz),
    prometheus.model_at(timestamptz),
    prometheus.tool_at(timestamptz),
    prometheus.policy_at(timestamptz),
    prometheus.budget_at(timestamptz),
    prometheus.verdict_at(timestamptz),
    prometheus.approval_at(timestamptz),
    prometheus.memory_at(timestamptz),
    prometheus.skill_at(timestamptz),
    prometheus.evolution_at(timestamptz),
    prometheus.state_at(timestamptz),
    prometheus.span_at(timestamptz),
    prometheus.usage_at(timestamptz),
    prometheus.calibration_at(timestamptz),
    prometheus._milliseconds(timestamptz, timestamptz),
    prometheus._json(text),
    prometheus._calls(text),
    prometheus._uri(text),
    prometheus._hash(text, text, text),
    prometheus._may_approve(text, oid),
    prometheus._span_counts(),
    prometheus._review_id(bigint, integer, integer, text, text, text),
    prometheus._redact(text),
    prometheus._captured(text),
    prometheus._captured_bytes(text),
    prometheus._captured_message(text, text),
    prometheus._duration(numeric),
    prometheus._count(numeric),
    prometheus._cost(numeric),
    prometheus._columns(text),
    prometheus._fold(text, integer, integer),
    prometheus._bar(numeric, numeric, integer, boolean, boolean),
    prometheus._timeline(bigint, timestamptz, boolean),
    prometheus._html(text),
    prometheus._report_style(),
    prometheus._report_class(text),
    prometheus._report_tile(text, text),
    prometheus._report_said(text, text, text, text),
    prometheus._report_section(text, text),
    prometheus._report_table(text[], integer, text),
    prometheus._report_cells(text[], integer),
    prometheus._report_bar(numeric, numeric),
    prometheus._report_timeline(
        bigint, timestamptz, timestamptz, timestamptz),
    prometheus._report_talk(bigint, text, integer),
    prometheus._report_verdicts(bigint),
    prometheus._report_usage(bigint),
    prometheus._report_tools(bigint),
    prometheus._report_approvals(bigint),
    prometheus._state_value(text, oid, text, text, bigint),
    prometheus._queue(),
    prometheus._consumers(),
    prometheus._export(),
    prometheus._gates(),
    prometheus._alerts(),
    prometheus._worker(),
    @extschema@.prometheus_submit(
        text, text, text, integer, timestamptz, text, bigint[], text, text,
        jsonb, interval, integer, text, jsonb),
    @extschema@.prometheus_submit_many(
        text[], text, text, integer, timestamptz, text[], bigint[], text, text,
        jsonb, interval, integer, text, jsonb),
    @extschema@.prometheus_retry(bigint),
    @extschema@.prometheus_trace(bigint),
    @extschema@.prometheus_span_start(text, jsonb, text),
    @extschema@.prometheus_span_end(text, text),
    @extschema@.prometheus_traceparent(),
    @extschema@.prometheus_sampling(bigint),
    @extschema@.prometheus_stats(),
    @extschema@.prometheus_report(bigint),
    @extschema@.prometheus_why(bigint),
    @extschema@.prometheus_progress(bigint),
    @extschema@.prometheus_wait(bigint, interval),
    @extschema@.prometheus_result(bigint),
    @extschema@.prometheus_prompt(bigint, integer),
    @extschema@.prometheus_cancel(bigint, text),
    @extschema@.prometheus_remember(
        text, text, text, real, jsonb, real[], interval),
    @extschema@.prometheus_recall(text, text, text[], integer, real[]),
    @extschema@.prometheus_forget(bigint),
    @extschema@.prometheus_restore_memory(bigint),
    @extschema@.prometheus_supersede_memory(bigint, text),
    @extschema@.prometheus_share_skill(text, text),
    @extschema@.prometheus_evolve(text, integer, text, jsonb),
    @extschema@.prometheus_evolution_report(text),
    @extschema@.prometheus_create_consumer(text, text[], timestamptz),
    @extschema@.prometheus_poll(text, integer),
    @extschema@.prometheus_ack(text, bigint),
    @extschema@.prometheus_replay(text, timestamptz),
    @extschema@.prometheus_drop_consumer(text),
    @extschema@.prometheus_emit(text, jsonb, text),
    @extschema@.prometheus_event_json(prometheus.event),
    @extschema@.prometheus_mark(text),
    @extschema@.prometheus_drop_mark(text),
    @extschema@.prometheus_save_state(text, jsonb, text, bigint),
    @extschema@.prometheus_state(text, text, timestamptz, bigint),
    @extschema@.prometheus_state_history(text, text, integer),
    @extschema@.prometheus_restore_state(text, text, bigint, timestamptz),
    @extschema@.prometheus_diff_state(text, bigint, bigint, text),
    @extschema@.prometheus_approve(bigint, text),
    @extschema@.prometheus_reject(bigint, text),
    @extschema@.prometheus_track(regclass, boolean),
    @extschema@.prometheus_rows_at(anyelement, timestamptz),
    @extschema@.prometheus_rows_at(anyelement, timestamptz, jsonb),
    @extschema@.prometheus_undo(bigint, boolean),
    @extschema@.prometheus_subscribe(
        text, regprocedure, text, text[], text, jsonpath, boolean, interval,
        integer, integer),
    @extschema@.prometheus_unsubscribe(text),
    @extschema@.prometheus_redrive(text, text),
    @extschema@.prometheus_discard(text, text),
    @extschema@.prometheus_version(),
    @extschema@.prometheus_health()
    TO prometheus_agent_user, prometheus_agent_admin;
GRANT EXECUTE ON PROCEDURE
    @extschema@.prometheus_ask(text, text, interval, text)
    TO prometheus_agent_user, prometheus_agent_admin;
GRANT EXECUTE ON FUNCTION
    @extschema@.prometheus_set_model(
        text, text, text, text, text, regprocedure, jsonb),
    @extschema@.prometheus_set_agent(
        text, text, text, text, text[], text, jsonb),
    @extschema@.prometheus_set_tool(
        regprocedure, text, text, text, boolean),
    @extschema@.prometheus_set_http_tool(
        text, text, text, jsonb, text, text, text, boolean),
    @extschema@.prometheus_create_tool(text, jsonb, text, jsonb),
    @extschema@.prometheus_restore_tool(text, bigint),
    @extschema@.prometheus_set_policy(
        text, text, text, regprocedure, jsonb, text, text, text, text, text),
    @extschema@.prometheus_set_budget(text, text, bigint, numeric),
    @extschema@.prometheus_set_alert(text, text),
    @extschema@.prometheus_pause(text),
    @extschema@.prometheus_resume(text),
    @extschema@.prometheus_memory_index(text, text, integer, name),
    @extschema@.prometheus_storage()
    TO prometheus_agent_admin;

GRANT SELECT ON prometheus.embedding_call TO prometheus_agent_admin;

-- Names of agents and models are in it; what is asked and answered is not.
GRANT EXECUTE ON FUNCTION @extschema@.prometheus_metrics(text)
    TO prometheus_agent_admin, pg_monitor;
