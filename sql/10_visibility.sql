/*
 * What every view asks: who may see a row, and how long something took.
 */
CREATE FUNCTION prometheus._may_see_support(internal) RETURNS internal
    LANGUAGE c STRICT
    AS 'MODULE_PATHNAME', 'prom_may_see_support';
COMMENT ON FUNCTION prometheus._may_see_support(internal) IS
    'Tells the planner that prometheus._may_see() lets nearly every row pass.';

CREATE FUNCTION prometheus._may_see(role_name text, role_oid oid)
RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1
    SUPPORT prometheus._may_see_support
    AS 'MODULE_PATHNAME', 'prom_may_see';
COMMENT ON FUNCTION prometheus._may_see(text, oid) IS
    'True if the current user has that role, or is a member of prometheus_agent_admin. Name and oid must be of the same role.';

CREATE FUNCTION prometheus._milliseconds(
    started_at timestamptz,
    ended_at timestamptz)
RETURNS double precision
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (extract(epoch FROM ended_at - started_at) * 1000)::double precision;
COMMENT ON FUNCTION prometheus._milliseconds(timestamptz, timestamptz) IS
    'The time between two moments, milliseconds.';
