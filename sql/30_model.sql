/*
 * Agents and models: facts about named things.  A change is a new version,
 * dense from 1, taken under the name's lock; the newest is what counts.
 */
CREATE TABLE prometheus._model (
    version bigint NOT NULL,
    xid xid8 NOT NULL,
    mark bigint NOT NULL,
    set_at timestamptz NOT NULL,
    owner_oid oid NOT NULL,
    owner text NOT NULL,
    name text NOT NULL,
    api text NOT NULL,
    endpoint text,
    model text,
    secret text,
    handler text,
    search_path text,
    hash text,
    options jsonb NOT NULL,
    PRIMARY KEY (name, version)
);
CREATE INDEX _model_mark ON prometheus._model (name, mark DESC, version DESC);
COMMENT ON TABLE prometheus._model IS
    'Every version of every model. mark: the newest mark when it was written, 0 before the first.';

CREATE TABLE prometheus._agent (
    version bigint NOT NULL,
    xid xid8 NOT NULL,
    mark bigint NOT NULL,
    set_at timestamptz NOT NULL,
    owner_oid oid NOT NULL,
    owner text NOT NULL,
    name text NOT NULL,
    model text NOT NULL,
    mode text NOT NULL,
    instructions text,
    tools text[],
    run_as text,
    run_as_oid oid,
    options jsonb NOT NULL,
    PRIMARY KEY (name, version)
);
CREATE INDEX _agent_mark ON prometheus._agent (name, mark DESC, version DESC);
COMMENT ON TABLE prometheus._agent IS
    'Every version of every agent. mark: the newest mark when it was written, 0 before the first.';

-- What makes a fresh install answer at once.  What this script inserts has the
-- transaction 1, which every mark sees: it is inserted again before a restore.
INSERT INTO prometheus._model
    (version, xid, mark, set_at, owner_oid, owner, name, api, options)
SELECT 1, '1', 0, clock_timestamp(), r.oid, r.rolname,
       'echo', 'echo', '{}'
  FROM pg_catalog.pg_roles r WHERE r.rolname = current_user;
INSERT INTO prometheus._agent
    (version, xid, mark, set_at, owner_oid, owner, name, model, mode, options)
SELECT 1, '1', 0, clock_timestamp(), r.oid, r.rolname,
       'default', 'echo', 'fast', '{}'
  FROM pg_catalog.pg_roles r WHERE r.rolname = current_user;
