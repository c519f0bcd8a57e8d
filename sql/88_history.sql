/*
 * What each mark saw, in the columns of the views, and functions that ask for
 * it by a moment.  A function that is to be inlined runs as its caller, who may
 * not read tables: so it reads a view, which has a row for each mark, and picks
 * one mark.  These views are made of those of 80 and 85, so that they cannot
 * differ from them: only the question whether a fact is seen is asked of the
 * mark, not of the setting.
 */
DO $$
DECLARE
    relation text;
    body text;
    columns text;
    described record;
BEGIN
    FOREACH relation IN ARRAY '{task,attempt,call,step,event,agent,model,tool,
        policy,budget,verdict,approval,memory,state,span,
        usage,calibration,skill,evolution}'::pg_catalog.text[]
    LOOP
        body := pg_catalog.rtrim(pg_catalog.pg_get_viewdef(
            pg_catalog.format('prometheus.%I', relation)::pg_catalog.regclass),
            ';');
        body := pg_catalog.replace(body, 'prometheus._charge c',
            pg_catalog.concat('(', pg_catalog.rtrim(pg_catalog.pg_get_viewdef(
                'prometheus._charge'::pg_catalog.regclass), ';'), ') c'));
        body := pg_catalog.replace(body, 'prometheus._used x',
            pg_catalog.concat('(', pg_catalog.rtrim(pg_catalog.pg_get_viewdef(
                'prometheus._used'::pg_catalog.regclass), ';'), ') x'));
        body := pg_catalog.replace(body, 'prometheus._every_span s',
            pg_catalog.concat('(', pg_catalog.rtrim(pg_catalog.pg_get_viewdef(
                'prometheus._every_span'::pg_catalog.regclass), ';'), ') s'));
        body := pg_catalog.regexp_replace(body,
            'prometheus\._seen\((([a-z0-9_]+\.)?xid)\)',
            'prometheus._seen_in(\1, history.mark_id)', 'g');
        body := pg_catalog.replace(body, 'prometheus._last_mark()',
                                   'history.mark_id');
        body := pg_catalog.replace(body, 'prometheus._moment()', 'history.at');
        SELECT pg_catalog.string_agg(pg_catalog.format('h.%I', a.attname), ', '
                                     ORDER BY a.attnum)
          INTO columns
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid OPERATOR(pg_catalog.=)
               pg_catalog.format('prometheus.%I', relation)
               ::pg_catalog.regclass
           AND a.attnum OPERATOR(pg_catalog.>) 0;

        EXECUTE pg_catalog.format(
            'CREATE VIEW prometheus.%I WITH (security_barrier) AS
             SELECT history.mark_id, history.at AS marked_at, v.*
               FROM prometheus._every_mark history CROSS JOIN LATERAL (%s) v',
            relation OPERATOR(pg_catalog.||) '_history', body);
        EXECUTE pg_catalog.format(
            'CREATE FUNCTION prometheus.%I(at timestamptz)
             RETURNS SETOF prometheus.%I
             LANGUAGE sql STABLE PARALLEL SAFE ROWS 1000
             BEGIN ATOMIC
                 SELECT %s FROM prometheus.%I h
                  WHERE h.mark_id OPERATOR(pg_catalog.=)
                        prometheus._mark_at($1);
             END',
            relation OPERATOR(pg_catalog.||) '_at', relation, columns,
            relation OPERATOR(pg_catalog.||) '_history');

        EXECUTE pg_catalog.format('COMMENT ON VIEW prometheus.%I IS %L',
            relation OPERATOR(pg_catalog.||) '_history',
            pg_catalog.format('prometheus.%s as each mark saw it: give mark_id, or few of them.', relation));
        EXECUTE pg_catalog.format(
            'COMMENT ON FUNCTION prometheus.%I(timestamptz) IS %L',
            relation OPERATOR(pg_catalog.||) '_at',
            pg_catalog.format('prometheus.%s as a transaction at that moment saw it: at the last mark at or before it. The same for ever. Raises object_not_in_prerequisite_state for a moment in the future or before the first mark.', relation));
        EXECUTE pg_catalog.format(
            'COMMENT ON COLUMN prometheus.%1$I.mark_id IS %2$L;
             COMMENT ON COLUMN prometheus.%1$I.marked_at IS %3$L',
            relation OPERATOR(pg_catalog.||) '_history',
            'The mark, as in prometheus.mark.',
            'Its time.');
        FOR described IN
            SELECT a.attname,
                   pg_catalog.col_description(a.attrelid, a.attnum) AS words
              FROM pg_catalog.pg_attribute a
             WHERE a.attrelid OPERATOR(pg_catalog.=)
                   pg_catalog.format('prometheus.%I', relation)
                   ::pg_catalog.regclass
               AND a.attnum OPERATOR(pg_catalog.>) 0
        LOOP
            EXECUTE pg_catalog.format('COMMENT ON COLUMN prometheus.%I.%I IS %L',
                relation OPERATOR(pg_catalog.||) '_history',
                described.attname, described.words);
        END LOOP;
    END LOOP;
END
$$;
