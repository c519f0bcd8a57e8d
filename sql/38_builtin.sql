/*
 * The tools that are built in: what src/tool/ does.  Their names are theirs.
 */
INSERT INTO prometheus._tool
    (version, xid, mark, set_at, owner_oid, owner, name, kind, function,
     search_path, hash, description, tier, idempotent, schema, options)
SELECT 1, '1', 0, clock_timestamp(), r.oid, r.rolname, b.name,
       'builtin', b.name, 'pg_catalog, pg_temp', 'builtin', b.description,
       b.tier, false, b.schema::jsonb, '{}'
  FROM pg_catalog.pg_roles r, (VALUES
       ('remember', 'write',
        'Stores a fact for later tasks. It is found again by its words.',
        '{"type": "object",
          "properties": {
            "content": {"type": "string", "description": "What to remember, in a sentence that says all by itself."},
            "kind": {"type": ["string", "null"], "enum": ["core", "episodic", "semantic", "procedural", "resource", "vault", null], "description": "semantic (a fact, the default), episodic (what happened), procedural (how to do something), core (who we are), resource (for an hour), vault."},
            "importance": {"type": ["number", "null"], "minimum": 0, "maximum": 1}},
          "required": ["content"], "additionalProperties": false}'),
       ('delegate', 'write',
        'Gives a task to another agent, waits for it, and gives its answer.',
        '{"type": "object",
          "properties": {
            "agent": {"type": "string", "description": "The name of the agent."},
            "request": {"type": "string", "description": "What it is to do; it knows nothing else."}},
          "required": ["agent", "request"], "additionalProperties": false}'),
       ('recall', 'read',
        'Finds what was remembered, by words; the best comes first.',
        '{"type": "object",
          "properties": {
            "query": {"type": "string", "description": "Words that are in it."},
            "k": {"type": ["integer", "null"], "minimum": 1, "maximum": 50, "description": "How many, 5 by default."}},
          "required": ["query"], "additionalProperties": false}'),
       ('read_state', 'read',
        'Reads what was kept with save_state, as JSON.',
        '{"type": "object",
          "properties": {
            "key": {"type": ["string", "null"], "minLength": 1, "maxLength": 200, "description": "Its name, state by default."}},
          "additionalProperties": false}'),
       ('save_state', 'write',
        'Keeps a JSON document for later tasks, in place of the one before.',
        '{"type": "object",
          "properties": {
            "value": {"description": "The whole document."},
            "key": {"type": ["string", "null"], "minLength": 1, "maxLength": 200, "description": "Its name, state by default."},
            "expected_version": {"type": ["integer", "null"], "minimum": 0, "description": "Save it only if this is the version that is there, 0: if there is none."}},
          "required": ["value"], "additionalProperties": false}'),
       ('query', 'read',
        'Runs one SELECT statement of PostgreSQL and gives its rows as a JSON array.',
        '{"type": "object",
          "properties": {
            "sql": {"type": "string", "description": "One SELECT statement."}},
          "required": ["sql"], "additionalProperties": false}'))
       AS b (name, tier, description, schema)
 WHERE r.rolname = current_user;
