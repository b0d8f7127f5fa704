-- Times are microseconds since 1970, UTC. Tenant and environment come first in every key; what belongs to a
-- tenant as a whole (versions, aliases, grants) has no environment, and the audit is the installation's.

CREATE TABLE installation (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  id       TEXT    NOT NULL,
  epoch    INTEGER NOT NULL,
  page_key BLOB    NOT NULL
) STRICT;

CREATE TABLE calls (
  tenant       TEXT    NOT NULL,
  environment  TEXT    NOT NULL,
  call_id      TEXT    NOT NULL UNIQUE,
  agent        TEXT    NOT NULL,
  subject      TEXT    NOT NULL,
  method       TEXT    NOT NULL,
  tool_version TEXT    NOT NULL,
  effect       TEXT,
  key          TEXT    NOT NULL,
  fingerprint  TEXT    NOT NULL,
  attempt      INTEGER NOT NULL,
  epoch        INTEGER NOT NULL,
  state        TEXT    NOT NULL,
  started      INTEGER NOT NULL,
  ended        INTEGER,
  reason       INTEGER NOT NULL,
  message      TEXT    NOT NULL,
  failure      TEXT    NOT NULL,
  grant_id     TEXT    NOT NULL,
  result       BLOB,
  labels       TEXT    NOT NULL,
  stages       TEXT    NOT NULL,
  sandboxes    TEXT    NOT NULL,
  tool_log     TEXT    NOT NULL,
  PRIMARY KEY (tenant, environment, call_id)
) STRICT;

-- A tenant's list, newest first, is over all its environments.
CREATE INDEX calls_by_time ON calls (tenant, started, call_id);
-- What a new run of the broker has to adopt.
CREATE INDEX calls_running ON calls (epoch) WHERE state IN ('RESERVED', 'DISPATCHED');

-- One row for each key that was ever reserved. It is never deleted: past the retention it is the tombstone.
CREATE TABLE claims (
  tenant      TEXT    NOT NULL,
  environment TEXT    NOT NULL,
  agent       TEXT    NOT NULL,
  method      TEXT    NOT NULL,
  key         TEXT    NOT NULL,
  call_id     TEXT    NOT NULL,
  attempt     INTEGER NOT NULL,
  claimed     INTEGER NOT NULL,
  free        INTEGER NOT NULL,
  PRIMARY KEY (tenant, environment, agent, method, key),
  FOREIGN KEY (tenant, environment, call_id) REFERENCES calls
) STRICT, WITHOUT ROWID;

CREATE TABLE charges (
  tenant      TEXT    NOT NULL,
  environment TEXT    NOT NULL,
  grant_id    TEXT    NOT NULL,
  unit        TEXT    NOT NULL,
  at          INTEGER NOT NULL,
  call_id     TEXT    NOT NULL,
  amount      INTEGER NOT NULL CHECK (amount >= 0),
  PRIMARY KEY (tenant, environment, grant_id, unit, at, call_id),
  FOREIGN KEY (tenant, environment, call_id) REFERENCES calls
) STRICT, WITHOUT ROWID;

CREATE INDEX charges_by_call ON charges (tenant, environment, call_id);

CREATE TABLE leases (
  tenant         TEXT    NOT NULL,
  environment    TEXT    NOT NULL,
  call_id        TEXT    NOT NULL,
  position       INTEGER NOT NULL,
  lease_id       TEXT    NOT NULL,
  accessor       TEXT    NOT NULL,
  credential     TEXT    NOT NULL,
  username       TEXT    NOT NULL,
  minted         INTEGER NOT NULL,
  confirmed_dead INTEGER,
  PRIMARY KEY (tenant, environment, call_id, position),
  FOREIGN KEY (tenant, environment, call_id) REFERENCES calls
) STRICT, WITHOUT ROWID;

CREATE INDEX leases_by_id ON leases (lease_id);
CREATE INDEX leases_owed ON leases (call_id) WHERE confirmed_dead IS NULL;

CREATE TABLE versions (
  tenant         TEXT    NOT NULL,
  bundle         TEXT    NOT NULL,
  version        TEXT    NOT NULL,
  digest         TEXT    NOT NULL,
  state          TEXT    NOT NULL,
  descriptor_set BLOB    NOT NULL,
  manifest_yaml  TEXT    NOT NULL,
  image_id       TEXT    NOT NULL,
  registered_by  TEXT    NOT NULL,
  registered     INTEGER NOT NULL,
  reviewed_by    TEXT    NOT NULL,
  reviewed       INTEGER,
  comment        TEXT    NOT NULL,
  PRIMARY KEY (tenant, bundle, version)
) STRICT;

CREATE INDEX versions_by_time ON versions (tenant, registered, bundle, version);

CREATE TABLE aliases (
  tenant  TEXT NOT NULL,
  bundle  TEXT NOT NULL,
  alias   TEXT NOT NULL,
  version TEXT NOT NULL,
  PRIMARY KEY (tenant, bundle, alias),
  FOREIGN KEY (tenant, bundle, version) REFERENCES versions
) STRICT, WITHOUT ROWID;

CREATE TABLE grants (
  tenant     TEXT NOT NULL PRIMARY KEY,
  digest     TEXT NOT NULL,
  applied    INTEGER,
  applied_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE grant_files (
  tenant TEXT NOT NULL,
  name   TEXT NOT NULL,
  text   TEXT NOT NULL,
  PRIMARY KEY (tenant, name),
  FOREIGN KEY (tenant) REFERENCES grants
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  sequence       INTEGER PRIMARY KEY,
  schema_version INTEGER NOT NULL,
  key_id         TEXT    NOT NULL,
  payload        TEXT    NOT NULL,
  previous       TEXT    NOT NULL,
  hash           TEXT    NOT NULL
) STRICT;
