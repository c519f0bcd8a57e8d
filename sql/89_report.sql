/*
 * A task as a page for people: of what its views say, and nothing else.  Every
 * text in it goes through prometheus._html(), whoever wrote it.  The page asks
 * nobody for anything: no script, no font, no image; its policy forbids them
 * all, and allows the one style sheet, by its hash.  So places of bars are
 * attributes of SVG, since those of style would be forbidden, too.
 */
CREATE FUNCTION prometheus._html(value text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'prom_markup';
COMMENT ON FUNCTION prometheus._html(text) IS
    'A text as a part of an HTML page, in an element or an attribute in quotes: plain ASCII, with references for all else; characters without a form or that change the direction of writing are named, as [U+202E].';

CREATE FUNCTION prometheus._report_style() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ':root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5b6678;--line:#e3e7ee;--track:#eef1f6;--wait:#c3cad6;--attempt:#7c8aa5;--chat:#3f6fe0;--tool:#0f9b8e;--review:#8a5cd6;--think:#d08a1d;--task:#c2569b;--good:#1a7f4b;--bad:#c0343b;--warn:#a56a00;--me:#e8effd;--it:#f3f4f7}'
    || '@media(prefers-color-scheme:dark){:root{--bg:#0f131a;--card:#171d27;--ink:#e6eaf2;--soft:#98a3b5;--line:#283142;--track:#202837;--wait:#465064;--attempt:#6f7f9d;--chat:#6c95f5;--tool:#36bfb1;--review:#aa86ec;--think:#e2a848;--task:#dd7db8;--good:#4cc38a;--bad:#f0787e;--warn:#e0aa4e;--me:#1d2a45;--it:#1f2632}}'
    || '*{box-sizing:border-box}'
    || 'body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}'
    || 'main{max-width:1080px;margin:0 auto;padding:20px 16px 48px}'
    || 'h1{font-size:22px;line-height:1.25;margin:0;overflow-wrap:anywhere}'
    || 'h2{font-size:13px;letter-spacing:.06em;text-transform:uppercase;color:var(--soft);margin:0 0 12px;font-weight:600}'
    || 'header{display:flex;flex-wrap:wrap;gap:8px 14px;align-items:center;margin:4px 0 2px}'
    || '.chip{display:inline-block;padding:1px 10px;border-radius:99px;border:1px solid currentColor;font-size:13px;font-weight:600;white-space:nowrap}'
    || '.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}.soft{color:var(--soft)}'
    || '.sub{color:var(--soft);font-size:13px;margin:0 0 16px;overflow-wrap:anywhere}'
    || '.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:10px;margin:0 0 16px}'
    || '.tile,section{background:var(--card);border:1px solid var(--line);border-radius:12px}'
    || '.tile{padding:10px 14px}.tile b{display:block;font-size:20px;line-height:1.3;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:12.5px}'
    || 'section{padding:16px;margin:0 0 16px;overflow:hidden}'
    || '.error{border-color:var(--bad)}.error pre{margin:0}'
    || '.row{display:grid;grid-template-columns:minmax(150px,250px) 1fr 78px 108px;gap:2px 12px;align-items:center;padding:2px 0;font-size:13.5px}'
    || '.row.head{color:var(--soft);font-size:12px;border-bottom:1px solid var(--line);padding-bottom:6px;margin-bottom:4px}'
    || '.row .name{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;unicode-bidi:isolate}'
    || '.row .num{text-align:right;font-variant-numeric:tabular-nums;color:var(--soft);font-size:12.5px;white-space:nowrap}'
    || '.i2 .name,.i2 .why{padding-left:14px}.i4 .name,.i4 .why{padding-left:28px}.i6 .name,.i6 .why{padding-left:42px}.i4 .name,.i6 .name{color:var(--soft)}'
    || '.row.attempt .name{font-weight:600}.row.attempt{margin-top:4px}'
    || '.row svg{display:block;width:100%;height:12px;border-radius:4px;background:var(--track)}'
    || '.row.call svg{height:6px}'
    || '.row .why{grid-column:1/-1;color:var(--bad);font-size:13px;overflow-wrap:anywhere;white-space:pre-wrap;unicode-bidi:plaintext}'
    || '.ends{display:flex;justify-content:space-between}'
    || 'rect{fill:var(--attempt)}.wait rect{fill:var(--wait)}.chat rect{fill:var(--chat)}.tool rect{fill:var(--tool)}.review rect{fill:var(--review)}.plan rect,.reflect rect,.recall rect{fill:var(--think)}.task rect{fill:var(--task)}.call rect{fill:var(--wait)}.failed rect{fill:var(--bad)}'
    || '.open rect{opacity:.55}'
    || '.talk{display:flex;flex-direction:column;gap:10px}'
    || '.said{max-width:min(760px,94%);border-radius:12px;padding:9px 13px;background:var(--it);align-self:flex-start;min-width:0}'
    || '.said.user{background:var(--me);align-self:flex-end}'
    || '.said.answer{border:1px solid var(--good)}.said.result{border-left:3px solid var(--tool)}.said.failed{border-left:3px solid var(--bad)}'
    || '.who{color:var(--soft);font-size:12px;margin:0 0 2px}'
    || 'pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:inherit;unicode-bidi:plaintext}'
    || 'pre.code{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;margin-top:4px}'
    || 'details{margin-top:6px}summary{cursor:pointer;color:var(--soft);font-size:13px}'
    || '.wide{overflow-x:auto;margin:0 -16px;padding:0 16px}'
    || 'table{border-collapse:collapse;width:100%;font-size:13.5px}'
    || 'th{font-weight:600;color:var(--soft);font-size:12px;text-align:left;white-space:nowrap}'
    || 'th,td{padding:6px 14px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}'
    || 'tr:last-child td{border-bottom:0}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}'
    || 'td{overflow-wrap:break-word;unicode-bidi:plaintext}'
    || 'footer{color:var(--soft);font-size:12.5px}'
    || '@media(max-width:640px){main{padding:14px 10px 32px}section{padding:14px 12px}.wide{margin:0 -12px;padding:0 12px}h1{font-size:19px}.tiles{grid-template-columns:repeat(2,1fr)}.tile:first-child:nth-last-child(odd){grid-column:1/-1}.row{grid-template-columns:1fr auto auto;gap:1px 10px;padding:4px 0}.row svg{grid-column:1/-1;grid-row:2}.row.head{display:none}.row.call{display:none}.said{max-width:97%}}'
    || '@media print{body{background:#fff}section,.tile{break-inside:avoid}}';
COMMENT ON FUNCTION prometheus._report_style() IS
    'The style sheet of a report.';

CREATE FUNCTION prometheus._report_class(status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN status IN ('completed', 'ok', 'approved') THEN 'good'
            WHEN status IN ('failed', 'vetoed', 'quarantined', 'error',
                            'rejected', 'deny') THEN 'bad'
            WHEN status IN ('waiting', 'retrying', 'escalate', 'warn',
                            'expired', 'unknown') THEN 'warn'
            ELSE 'soft' END;
COMMENT ON FUNCTION prometheus._report_class(text) IS
    'The class that a status has in a report: good, bad, warn or soft.';

CREATE FUNCTION prometheus._report_tile(value text, what text) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN '<div class="tile"><b>' || prometheus._html(value) || '</b><span>'
       || prometheus._html(what) || '</span></div>';
COMMENT ON FUNCTION prometheus._report_tile(text, text) IS
    'A number of a report, and what it is.';

CREATE FUNCTION prometheus._report_said(
    class text,
    who text,
    said text,
    code text DEFAULT NULL)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN '<div class="said ' || class || '"><p class="who">'
       || prometheus._html(who) || '</p>'
       || coalesce('<pre>' || prometheus._html(nullif(said, '')) || '</pre>',
                   '')
       || coalesce('<pre class="code">' || prometheus._html(code) || '</pre>',
                   '')
       || '</div>';
COMMENT ON FUNCTION prometheus._report_said(text, text, text, text) IS
    'What somebody said, in a report: a text, and another one as code.';

CREATE FUNCTION prometheus._report_section(title text, body text) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN '<section><h2>' || prometheus._html(title) || '</h2>' || body
       || '</section>' || chr(10);
COMMENT ON FUNCTION prometheus._report_section(text, text) IS
    'A section of a report; null without a body.';

CREATE FUNCTION prometheus._report_table(
    head text[],
    numbers integer,
    rows text)
RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN (SELECT '<div class="wide"><table><tr>'
            || string_agg(CASE WHEN h.n > cardinality(head) - numbers
                               THEN '<th class="n">' ELSE '<th>' END
                          || prometheus._html(h.title) || '</th>', ''
                          ORDER BY h.n)
            || '</tr>' || rows || '</table></div>'
          FROM unnest(head) WITH ORDINALITY AS h (title, n));
COMMENT ON FUNCTION prometheus._report_table(text[], integer, text) IS
    'A table of a report, whose last columns are numbers; null without rows.';

CREATE FUNCTION prometheus._report_cells(cells text[], numbers integer)
RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN (SELECT '<tr>' || string_agg(
                 CASE WHEN c.n > cardinality(cells) - numbers
                      THEN '<td class="n">' ELSE '<td>' END
                 || coalesce(prometheus._html(c.value), '') || '</td>', ''
                 ORDER BY c.n) || '</tr>'
          FROM unnest(cells) WITH ORDINALITY AS c (value, n));
COMMENT ON FUNCTION prometheus._report_cells(text[], integer) IS
    'A row of a table of a report.';

-- In thousandths of the whole, at least two of them.
CREATE FUNCTION prometheus._report_bar(first numeric, last numeric)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (SELECT format('<svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true"><rect x="%s" width="%s" height="10" rx="2"/></svg>',
                      least(b.x, 998),
                      greatest(round(least(last, 1) * 1000) - b.x, 2))
          FROM (SELECT round(least(greatest(first, 0), 1) * 1000) AS x) b);
COMMENT ON FUNCTION prometheus._report_bar(numeric, numeric) IS
    'A bar of a report from first to last, as parts of 1.';

CREATE FUNCTION prometheus._report_timeline(
    task_id bigint,
    submitted_at timestamptz,
    ended_at timestamptz,
    until timestamptz)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
WITH part AS (
    SELECT r.*, row_number() OVER (ORDER BY r.place) AS n,
           nullif(extract(epoch FROM $4 - $2), 0) AS whole,
           extract(epoch FROM r.started_at - $2) AS first,
           extract(epoch FROM coalesce(r.ended_at, $4) - $2) AS last
      FROM prometheus._timeline($1, $2, $3 IS NOT NULL) r
)
SELECT '<div class="row head"><div>what</div><div class="ends"><span>0</span><span>'
       || prometheus._html(prometheus._duration(
              extract(epoch FROM $4 - $2)))
       || '</span></div><div class="num">time</div><div class="num">tokens in / out</div></div>'
       || string_agg(
          CASE WHEN p.kind = 'error'
               THEN '<div class="row i' || least(p.indent, 6)
                   || '"><div class="why">'
                   || prometheus._html(prometheus._redact(
                          left(p.error, 2000)))
                   || '</div></div>'
               ELSE format('<div class="row i%s %s%s%s"><div class="name" title="%s">%s</div>%s<div class="num">%s</div><div class="num">%s</div></div>',
                   least(p.indent, 6), p.kind,
                   CASE WHEN p.status IN ('failed', 'error', 'vetoed',
                                          'quarantined', 'lost', 'ambiguous',
                                          'cancelled')
                        THEN ' failed' ELSE '' END,
                   CASE WHEN p.ended_at IS NULL THEN ' open' ELSE '' END,
                   prometheus._html(p.name), prometheus._html(p.name),
                   prometheus._report_bar(coalesce(p.first / p.whole, 0),
                                          coalesce(p.last / p.whole, 0)),
                   prometheus._html(prometheus._duration(
                       greatest(p.last - p.first, 0))),
                   CASE WHEN coalesce(p.tokens_in, p.tokens_out) IS NOT NULL
                        THEN coalesce(prometheus._count(p.tokens_in), '?')
                             || ' / '
                             || coalesce(prometheus._count(p.tokens_out), '?')
                        ELSE '' END) END, chr(10) ORDER BY p.n)
       || CASE WHEN max(p.n) > 2000 THEN '<p class="soft">[cut]</p>'
               ELSE '' END
  FROM part p
 WHERE p.n <= 2001
$$;
COMMENT ON FUNCTION prometheus._report_timeline(
    bigint, timestamptz, timestamptz, timestamptz) IS
    'The timeline of a report: its first 2000 rows.';

-- The first chat says what it was asked, which is the request.
CREATE FUNCTION prometheus._report_talk(
    task_id bigint,
    request text,
    answer integer)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
SELECT '<div class="talk">'
       || prometheus._report_said('user', 'request', prometheus._captured($2))
       || coalesce(string_agg(
          prometheus._report_said(
              CASE WHEN s.status IN ('error', 'vetoed') THEN 'failed'
                   WHEN s.kind = 'tool' THEN 'result'
                   WHEN s.step = $3 THEN 'answer' ELSE 'model' END,
              concat_ws(' ', 'step ' || s.step || ':', s.kind,
                        coalesce(s.model, s.name),
                        CASE WHEN s.status <> 'ok' THEN '(' || s.status || ')'
                             END),
              prometheus._captured(coalesce(s.output ->> 'content',
                                            s.output ->> 'error')),
              prometheus._captured(
                  CASE WHEN s.kind = 'tool'
                       THEN s.name || ' ' || coalesce(
                            s.input ->> 'arguments', '')
                       WHEN s.output ? 'tool_calls'
                       THEN (SELECT 'calls ' || string_agg(
                                 c -> 'function' ->> 'name', ', ' ORDER BY n)
                               FROM jsonb_array_elements(
                                    CASE jsonb_typeof(s.output -> 'tool_calls')
                                         WHEN 'array'
                                         THEN s.output -> 'tool_calls'
                                         ELSE '[]' END)
                                    WITH ORDINALITY AS x (c, n))
                       WHEN NOT s.output ? 'content'
                            AND NOT s.output ? 'error'
                       THEN jsonb_pretty(s.output) END)),
          chr(10) ORDER BY s.step), '')
       || '</div>'
  FROM (SELECT x.* FROM prometheus.step x
         WHERE x.task_id = $1 ORDER BY x.step LIMIT 500) s
$$;
COMMENT ON FUNCTION prometheus._report_talk(bigint, text, integer) IS
    'What was said and done in a report: its first 500 steps; which of them is the answer.';

CREATE FUNCTION prometheus._report_verdicts(task_id bigint) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
SELECT prometheus._report_table(
           '{what,verdict,risk,governor,policy,why,time}', 1,
           string_agg('<tr><td>'
               || prometheus._html(v.stage
                      || coalesce(', step ' || v.step, ''))
               || '</td><td><span class="chip '
               || prometheus._report_class(
                      CASE v.effect WHEN 'allow' THEN 'ok' ELSE v.effect END)
               || '">' || prometheus._html(v.effect) || '</span></td><td>'
               || prometheus._html(v.risk_level) || '</td><td>'
               || prometheus._html(v.governor) || '</td><td>'
               || coalesce(prometheus._html(v.policy), '') || '</td><td>'
               || coalesce(prometheus._html(prometheus._redact(
                      left(concat_ws(' ', v.reasoning, v.suggestions), 2000))),
                      '')
               || '</td><td class="n">'
               || coalesce(prometheus._html(prometheus._duration(
                      v.latency_ms::numeric / 1000)), '')
               || '</td></tr>', '' ORDER BY v.attempt, v.judged_at, v.step))
  FROM (SELECT x.* FROM prometheus.verdict x
         WHERE x.task_id = $1 ORDER BY x.attempt, x.judged_at LIMIT 500) v
$$;
COMMENT ON FUNCTION prometheus._report_verdicts(bigint) IS
    'What the policies said, in a report: the first 500 verdicts; null: nothing.';

CREATE FUNCTION prometheus._report_usage(task_id bigint) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
SELECT prometheus._report_section('Models', prometheus._report_table(
           '{model,asked,failed,time,tokens in,cached,tokens out,cost}', 7,
           (SELECT string_agg(prometheus._report_cells(ARRAY[
                       m.model, m.calls::text, m.failed::text,
                       prometheus._duration(m.seconds),
                       prometheus._count(m.tokens_in),
                       prometheus._count(m.cached),
                       prometheus._count(m.tokens_out),
                       prometheus._cost(m.cost)], 7), ''
                   ORDER BY m.cost DESC NULLS LAST, m.model)
              FROM (SELECT s.model, count(*) AS calls,
                           count(*) FILTER (WHERE s.status <> 'ok') AS failed,
                           sum(s.duration_ms)::numeric / 1000 AS seconds,
                           sum(s.tokens_in) AS tokens_in,
                           sum(s.cached_tokens) AS cached,
                           sum(s.tokens_out) AS tokens_out,
                           sum(s.cost) AS cost
                      FROM prometheus.step s
                     WHERE s.task_id = $1 AND s.model IS NOT NULL
                     GROUP BY s.model) m)))
$$;
COMMENT ON FUNCTION prometheus._report_usage(bigint) IS
    'The models that were asked, in a report, and what that cost.';

CREATE FUNCTION prometheus._report_tools(task_id bigint) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
SELECT prometheus._report_section('Tools', prometheus._report_table(
           '{tool,called,failed,time,longest}', 4,
           (SELECT string_agg(prometheus._report_cells(ARRAY[
                       t.name, t.calls::text, t.failed::text,
                       prometheus._duration(t.seconds),
                       prometheus._duration(t.longest)], 4), ''
                   ORDER BY t.seconds DESC, t.name)
              FROM (SELECT s.name, count(*) AS calls,
                           count(*) FILTER (WHERE s.status <> 'ok') AS failed,
                           sum(s.duration_ms)::numeric / 1000 AS seconds,
                           max(s.duration_ms)::numeric / 1000 AS longest
                      FROM prometheus.step s
                     WHERE s.task_id = $1 AND s.kind = 'tool'
                     GROUP BY s.name) t)))
$$;
COMMENT ON FUNCTION prometheus._report_tools(bigint) IS
    'The tools that were called, in a report.';

CREATE FUNCTION prometheus._report_approvals(task_id bigint) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
SELECT prometheus._report_section('Approvals', prometheus._report_table(
           '{approval,tool,policy,decision,by,waited}', 1,
           (SELECT string_agg(prometheus._report_cells(ARRAY[
                       a.approval_id::text, a.tool, a.policy,
                       coalesce(a.decision, 'open'), a.decided_by,
                       prometheus._duration(extract(
                           epoch FROM a.decided_at - a.requested_at))], 1), ''
                   ORDER BY a.approval_id)
              FROM prometheus.approval a
             WHERE a.task_id = $1)))
$$;
COMMENT ON FUNCTION prometheus._report_approvals(bigint) IS
    'What people were asked, in a report.';

CREATE FUNCTION @extschema@.prometheus_report(task_id bigint) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    capture CONSTANT text := current_setting('prometheus.capture_content');
    style CONSTANT text := prometheus._report_style();
    t prometheus.task;
    until timestamptz;
    seconds numeric;
    verdicts text;
BEGIN
    SELECT x.* INTO t
      FROM prometheus.task x
     WHERE x.task_id = prometheus_report.task_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'task % does not exist', task_id
            USING ERRCODE = 'undefined_object',
                  DETAIL = 'There is none, or you may not see it.';
    END IF;
    until := coalesce(t.ended_at, greatest(clock_timestamp(), t.submitted_at));
    seconds := extract(epoch FROM until - t.submitted_at);
    verdicts := prometheus._report_verdicts(task_id);
    RETURN concat(
        '<!DOCTYPE html>', chr(10), '<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src ''none''; style-src ''sha256-',
        encode(sha256(convert_to(style, 'UTF8')), 'base64'),
        '''; base-uri ''none''; form-action ''none''">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<meta name="referrer" content="no-referrer">',
        '<meta name="robots" content="noindex">',
        '<title>Task ', t.task_id, ' &#183; ', prometheus._html(t.agent),
        '</title><style>', style, '</style></head>', chr(10),
        '<body><main><header><h1>Task ', t.task_id, ' &#183; <bdi>',
        prometheus._html(t.agent), '</bdi></h1><span class="chip ',
        prometheus._report_class(t.status), '">', t.status,
        '</span></header><p class="sub">submitted ',
        to_char(t.submitted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
        ' UTC by <bdi>', prometheus._html(t.submitter), '</bdi> &#183; mode ',
        prometheus._html(t.mode),
        ' &#183; conversation <bdi>' || prometheus._html(t.conversation)
            || '</bdi>',
        ' &#183; delegated by task ' || t.parent_id,
        ' &#183; trace ', t.trace_id, '</p>', chr(10), '<div class="tiles">',
        prometheus._report_tile(
            prometheus._duration(seconds),
            CASE WHEN t.ended_at IS NULL THEN 'until now'
                 ELSE 'from submit to end' END),
        (SELECT prometheus._report_tile(count(*)::text,
                    CASE count(*) WHEN 1 THEN 'step' ELSE 'steps' END
                    || CASE WHEN t.attempts > 1
                            THEN ', ' || t.attempts || ' attempts'
                            ELSE '' END)
           FROM prometheus.step s WHERE s.task_id = t.task_id),
        prometheus._report_tile(prometheus._count(t.tokens_in), 'tokens in'),
        prometheus._report_tile(prometheus._count(t.tokens_out), 'tokens out'),
        prometheus._report_tile(prometheus._cost(t.cost), 'cost'),
        '</div>', chr(10),
        '<section class="error"><h2>' || prometheus._html(
            coalesce(t.error_type, 'Reason')) || '</h2><pre>'
            || prometheus._html(prometheus._redact(left(t.error, 4000)))
            || '</pre></section>' || chr(10),
        prometheus._report_section('Timeline', prometheus._report_timeline(
            t.task_id, t.submitted_at, t.ended_at, until)),
        CASE WHEN capture = 'full'
             THEN prometheus._report_section('Conversation',
                      prometheus._report_talk(t.task_id, t.request,
                          CASE WHEN t.status = 'completed' THEN (
                               SELECT max(s.step) FROM prometheus.step s
                                WHERE s.task_id = t.task_id
                                  AND s.kind = 'chat' AND s.status = 'ok')
                               END)) END,
        prometheus._report_section('Verdicts', verdicts),
        prometheus._report_approvals(t.task_id),
        prometheus._report_tools(t.task_id),
        prometheus._report_usage(t.task_id),
        '<footer>',
        CASE WHEN capture <> 'full'
             THEN 'What was asked and answered is not shown: prometheus.capture_content is '
                  || capture || '. '
             ELSE 'Keys, passwords and tokens are redacted, as far as they can be told. '
             END,
        CASE WHEN t.ended_at IS NULL
             THEN 'As of ' || to_char(until AT TIME ZONE 'UTC',
                                      'YYYY-MM-DD HH24:MI:SS')
                  || ' UTC. ' END,
        'prometheus_report(', t.task_id, ')</footer></main></body></html>',
        chr(10));
END
$$;
COMMENT ON FUNCTION @extschema@.prometheus_report(bigint) IS
    'A task as one HTML page, which asks for nothing else: its timeline, verdicts, approvals, tools, models and cost, and with prometheus.capture_content = full what was said, redacted. Up to 2000 rows of the timeline, 500 steps and 500 verdicts. Plain ASCII. Raises undefined_object for a task that is unknown or not the caller''s.';
