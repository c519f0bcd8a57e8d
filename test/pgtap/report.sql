-- A task as a page: what it shows, and that nothing that anybody wrote is more
-- in it than text.
BEGIN;
SELECT plan(67);

SET LOCAL TimeZone = 'UTC';
SET LOCAL client_min_messages = error;

-- A text as a part of a page.

SELECT is(prometheus._html(value), expected, 'in a page: ' || expected) FROM (VALUES
    ('', ''), ('plain, text!', 'plain, text!'), (E'two\n\tlines\r', E'two\n\tlines'),
    ('<script>alert(1)</script>', '&#60;script&#62;alert(1)&#60;/script&#62;'),
    ('" onload="x', '&#34; onload=&#34;x'), ($$' onload='x$$, '&#39; onload=&#39;x'), ('`x`', '&#96;x&#96;'),
    ('&lt;b&gt;', '&#38;lt;b&#38;gt;'), ('</pre></section>', '&#60;/pre&#62;&#60;/section&#62;'),
    ('é模🙂', '&#233;&#27169;&#128578;'),
    (U&'a\202Eb\2066c\200Fd', 'a[U+202E]b[U+2066]c[U+200F]d'), (U&'\200B\FEFF\00AD', '[U+200B][U+FEFF][U+00AD]'),
    (U&'\+0E0041', '[U+E0041]'), (U&'x\200Dy', 'x&#8205;y'), (E'\x01\x1b[2J\x7f', '[U+0001][U+001B][2J[U+007F]'), (U&'\0085\2028', '[U+0085][U+2028]'))
    AS v(value, expected);
SELECT matches(prometheus._html((SELECT string_agg(chr(n), '') FROM generate_series(1, 70000) AS n WHERE n NOT BETWEEN 55296 AND 57343)),
               '^[\t\n -~]*$', 'always ASCII');
SELECT unalike(prometheus._html((SELECT string_agg(chr(n), '') FROM generate_series(1, 70000) AS n WHERE n NOT BETWEEN 55296 AND 57343)),
               '%<%', 'and no tag');
SELECT is(prometheus._html(NULL), NULL, 'nothing is nothing');
SELECT is(prometheus._report_bar(first, last), '<svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true"><rect ' || expected || ' height="10" rx="2"/></svg>',
          'a bar: ' || expected)
  FROM (VALUES (0, 1, 'x="0" width="1000"'), (0.25, 0.5, 'x="250" width="250"'), (1, 1, 'x="998" width="2"'), (0, 0, 'x="0" width="2"'),
               (-1, 2, 'x="0" width="1000"')) AS v(first, last, expected);

-- A task of which everything wants to be more than text, to be looked for as it
-- must not be there: after a tag that begins, or in an attribute.

\set evil '</pre></style></title><script>document.title=1</script><img src=x onerror="x"> '''
CREATE FUNCTION pg_temp.task(id bigint, what text, at timestamptz DEFAULT '2026-01-01 00:00+00') RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts, submitter_oid,
                                  submitter, agent, mode, trace_id, request, metadata, conversation)
    VALUES ($1, $1 * 1000, prometheus._xid(), $3, $3 + interval '1 day', 0, 3, current_user::regrole, current_user, 'agent ' || $2,
            'fast', lpad(to_hex($1), 32, 'a')::uuid, 'request ' || $2, '{}', 'talk ' || $2)
$$;
SELECT pg_temp.task(9101, :'evil');
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version, policy_version, review_ms)
VALUES (9101, 1, prometheus._xid(), '2026-01-01 00:00:01+00', 1, 'm', 1, 1, 2.5);
INSERT INTO prometheus._call (call_id, task_id, attempt, turn, call, xid, sent_at, kind, target)
VALUES (9101100, 9101, 1, 1, 1, prometheus._xid(), '2026-01-01 00:00:01+00', 'chat', 'model:m');
INSERT INTO prometheus._step (task_id, step, attempt, event_id, call_id, xid, started_at, ended_at, tokens_in, tokens_out, cached_tokens,
                              ambiguous, kind, name, status, model, cost, error_type, error, answer, raw, calls, arguments)
SELECT 9101, step, 1, 9101010 + step, CASE step WHEN 1 THEN 9101100 END, prometheus._xid(), '2026-01-01 00:00:00+00'::timestamptz + step * interval '1 s',
       '2026-01-01 00:00:01+00'::timestamptz + step * interval '1 s', tokens, tokens / 2, tokens / 4, false, kind, name || :'evil', status,
       model || :'evil', cost, type || :'evil', 'error ' || step || :'evil' || ' password=hunter2', answer || :'evil' || ' sk-0123456789abcdefg', raw, calls, arguments
  FROM (VALUES (1, 'chat', 'm', 'ok', 'gpt', 1000, 0.5, NULL, 'I look', '{"tool_calls": [{"id": "1", "type": "function", "function": {"name": "<script>call", "arguments": "{}"}}]}', 1, NULL),
               (2, 'tool', 'look', 'ok', NULL, NULL, NULL, NULL, 'found', NULL, NULL, '{"<img src=x>": 1}'),
               (3, 'tool', 'look', 'error', NULL, NULL, NULL, 'ToolError', NULL, NULL, NULL, 'no json <b>'),
               (4, 'chat', 'm', 'ok', 'gpt', 2000, 0.25, NULL, 'the end', '{}', 0, NULL))
       AS v(step, kind, name, status, model, tokens, cost, type, answer, raw, calls, arguments);
UPDATE prometheus._step SET error = NULL WHERE task_id = 9101 AND status = 'ok';
INSERT INTO prometheus._verdict (task_id, attempt, step, event_id, xid, judged_at, latency_ms, approved, policy_version, stage, effect,
                                 risk_level, governor, policy, reasoning, suggestion, target_hash)
VALUES (9101, 1, 2, 9101500, prometheus._xid(), '2026-01-01 00:00:02+00', 1.5, false, 1, 'tool', 'escalate', 'HIGH', 'policy', :'evil', :'evil', :'evil', 'hash');
INSERT INTO prometheus._approval (approval_id, task_id, attempt, step, xid, requested_at, expires_at, tool, policy, approvers, target_hash, arguments)
VALUES (9101600, 9101, 1, 2, prometheus._xid(), '2026-01-01 00:00:02+00', '2026-01-02', :'evil', :'evil', 'prometheus_agent_admin', 'hash', '{}');
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, outcome, error_type, error)
VALUES (9101, 1, 9101700, prometheus._xid(), '2026-01-01 00:00:05+00', 1, 4, 'failed', :'evil', :'evil' || ' token: abcdefgh');

SET LOCAL prometheus.capture_content = full;
CREATE TEMP TABLE page AS SELECT prometheus_report(9101) AS html;
CREATE FUNCTION pg_temp.tags() RETURNS SETOF text LANGUAGE sql AS $$
    SELECT m[1] FROM page, regexp_matches(regexp_replace(html, '<style>.*</style>', '<style></style>'), '<([^>]*)>', 'g') AS m
$$;
SELECT matches(html, '^[\t\n -~]*$', 'the page is ASCII') FROM page;
SELECT is_empty($$SELECT * FROM pg_temp.tags() AS tag WHERE tag !~ '^(!DOCTYPE html|/?(html|head|meta|title|style|body|main|header|h1|h2|bdi|p|div|b|span|section|pre|table|tr|th|td|footer|svg|rect)( |$)|rect |svg )'$$,
                'no tags but its own');
SELECT is_empty($$SELECT * FROM pg_temp.tags() AS tag, regexp_matches(tag, '\s([^\s=]+)="[^"]*"', 'g') AS m
                   WHERE m[1] NOT IN ('lang', 'charset', 'http-equiv', 'content', 'name', 'class', 'title', 'viewBox', 'preserveAspectRatio', 'aria-hidden', 'x', 'width', 'height', 'rx')$$,
                'no attributes but its own');
SELECT is_empty($$SELECT * FROM pg_temp.tags() AS tag WHERE tag ~ '=' AND tag !~ '^/?[a-z0-9]+( [A-Za-z-]+="[^"<>]*")*/?$' AND tag !~ '^meta '$$,
                'and all of them in quotes');
SELECT unalike(html, '%<script%', 'no script') FROM page;
SELECT doesnt_match(html, '\m(src|href|style|on[a-z]+)="', 'no address, no style and no handler in an attribute') FROM page;
SELECT doesnt_match(substring(html, '<style>(.*)</style>'), 'url\(|@import|expression|<', 'no address in the style sheet') FROM page;
SELECT doesnt_match(html, '://', 'no address at all') FROM page;
SELECT is((SELECT count(*) FROM page, regexp_matches(html, '<style>|</style>|</html>', 'g')), 3::bigint, 'one style sheet, one end') FROM page;
SELECT alike(html, '%content="default-src ''none''; style-src ''sha256-' || encode(sha256(convert_to(substring(html, '<style>(.*)</style>'), 'UTF8')), 'base64')
                   || '''; base-uri ''none''; form-action ''none''">%', 'its policy allows the style sheet and nothing else') FROM page;
SELECT cmp_ok(strpos(html, 'Content-Security-Policy'), '<', strpos(html, '<title>'), 'before anything that somebody wrote') FROM page;

-- What is on it.

SELECT alike(html, '%' || what || '%', 'it has ' || what) FROM page, (VALUES
    ('Task 9101'), ('>failed</span>'), ('5.00 s'), ('>3000<'), ('>1500<'), ('>0.75<'), ('submitted 2026-01-01 00:00:00 UTC'), ('<h2>Timeline</h2>'),
    ('<h2>Conversation</h2>'), ('<h2>Verdicts</h2>'), ('<h2>Approvals</h2>'), ('<h2>Tools</h2>'), ('<h2>Models</h2>'), ('attempt 1: failed'),
    ('>escalate</span>'), ('calls &#60;script&#62;call'), ('[redacted]')) AS v(what);
SELECT doesnt_match(html, 'hunter2|sk-0123|abcdefgh', 'but no secret') FROM page;
SELECT is(prometheus_report(9101), html, 'it is always the same') FROM page;

SET LOCAL prometheus.capture_content = off;
SELECT doesnt_match(prometheus_report(9101), 'Conversation</h2>|the end|I look|found|request &#', 'without contents if they are not to be told');
SELECT matches(prometheus_report(9101), 'not shown: prometheus.capture_content is off', 'and it says so');

-- One that is not at its end, and one that has nothing.
SELECT pg_temp.task(9102, 'x', now() - interval '2 h');
SELECT matches(prometheus_report(9102), 'queued</span>.*As of 20', 'one that is queued');
SELECT unalike(prometheus_report(9102), '%<h2>Tools</h2>%', 'has no tools');
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at) VALUES (9102, 1, prometheus._xid(), now() - interval '1 h');
SELECT matches(prometheus_report(9102), 'class="row i0 attempt open"', 'one that runs has a bar that is open');
SELECT is(prometheus_report(NULL), NULL, 'null');

-- Who sees it.
CREATE ROLE prom_test_a;
GRANT prometheus_agent_user TO prom_test_a;
SELECT throws_ok('SELECT prometheus_report(0)', '42704', 'task 0 does not exist', 'no such task');
SET LOCAL ROLE prom_test_a;
SELECT throws_ok('SELECT prometheus_report(9101)', '42704', 'task 9101 does not exist', 'none of another''s');
SELECT is(prometheus._report_timeline(9101, now(), now(), now()), NULL, 'nor a part of it');
SELECT is(prometheus._report_verdicts(9101), NULL, 'nor what was judged');
SELECT doesnt_match(prometheus._report_talk(9101, NULL, NULL), 'step', 'nor what was said');
RESET ROLE;
UPDATE prometheus._task SET submitter = 'prom_test_a', submitter_oid = 'prom_test_a'::regrole WHERE task_id = 9101;
SET LOCAL ROLE prom_test_a;
SELECT matches(prometheus_report(9101), '<h2>Models</h2>', 'but one''s own');
SELECT throws_ok('SET prometheus.capture_content = full', '42501', NULL, 'what is told of contents is not one''s own choice');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
