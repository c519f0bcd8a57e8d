/*
 * The roles: two for people, and one that owns what models write and may do
 * nothing else.  Roles are the cluster's, so they outlive DROP EXTENSION and
 * may be there already; one that prometheus did not make is never taken.
 */
DO $$
DECLARE
    wanted record;
    found oid;
BEGIN
    FOR wanted IN
        VALUES ('prometheus_agent_user',
                'Role of the extension prometheus: may submit tasks and read its own.'),
               ('prometheus_agent_admin',
                'Role of the extension prometheus: sets agents and models, sees every task.'),
               ('prometheus_tool_owner',
                'Role of the extension prometheus: owns the functions that models wrote. Grant it nothing but USAGE on schemas whose relations they may read.')
    LOOP
        SELECT r.oid INTO found
          FROM pg_catalog.pg_roles r
         WHERE r.rolname OPERATOR(pg_catalog.=) wanted.column1;
        IF found IS NULL THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted.column1);
            EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L',
                                      wanted.column1, wanted.column2);
        ELSIF coalesce(pg_catalog.shobj_description(found, 'pg_authid'), '')
              OPERATOR(pg_catalog.!~) 'prometheus' THEN
            RAISE EXCEPTION 'role "%" exists and was not made by prometheus', wanted.column1
                USING ERRCODE = 'duplicate_object',
                      DETAIL = 'Its comment does not name prometheus.',
                      HINT = pg_catalog.format(
                          'If it is meant for prometheus, run: COMMENT ON ROLE %I IS %L',
                          wanted.column1, wanted.column2);
        END IF;
    END LOOP;
    GRANT prometheus_agent_user TO prometheus_agent_admin;
END
$$;
