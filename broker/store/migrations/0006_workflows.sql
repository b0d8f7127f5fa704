-- Workflows: one task of one agent each. A description is the tenant's data and goes when that is erased.
CREATE TABLE workflows (
  tenant      TEXT    NOT NULL,
  environment TEXT    NOT NULL,
  workflow_id TEXT    NOT NULL UNIQUE,
  agent       TEXT    NOT NULL,
  description TEXT    NOT NULL,
  opened_by   TEXT    NOT NULL,
  opened      INTEGER NOT NULL,
  expires     INTEGER NOT NULL,
  PRIMARY KEY (tenant, environment, workflow_id)
) STRICT, WITHOUT ROWID;

-- Where content came from that a workflow holds. An empty workflow is the agent itself. `bare` is when it came last
-- by a call without a handle; 0 where it never did.
CREATE TABLE workflow_labels (
  tenant      TEXT    NOT NULL,
  environment TEXT    NOT NULL,
  agent       TEXT    NOT NULL,
  workflow_id TEXT    NOT NULL,
  label       TEXT    NOT NULL,
  call_id     TEXT    NOT NULL,
  since       INTEGER NOT NULL,
  last        INTEGER NOT NULL,
  bare        INTEGER NOT NULL,
  PRIMARY KEY (tenant, environment, agent, workflow_id, label)
) STRICT, WITHOUT ROWID;

-- Destinations that trusted results named to a workflow: an HMAC each, and when it was named last.
CREATE TABLE trusted_destinations (
  tenant      TEXT    NOT NULL,
  environment TEXT    NOT NULL,
  agent       TEXT    NOT NULL,
  workflow_id TEXT    NOT NULL,
  mac         BLOB    NOT NULL,
  at          INTEGER NOT NULL,
  PRIMARY KEY (tenant, environment, agent, workflow_id, mac)
) STRICT, WITHOUT ROWID;

-- The workflow that a call belongs to; empty where it came without a handle.
ALTER TABLE calls ADD COLUMN workflow TEXT NOT NULL DEFAULT '';
