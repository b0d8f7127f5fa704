-- Which of Vault's engines and roles made a lease, and when Vault ends it by itself. Until now there was one engine.
ALTER TABLE leases ADD COLUMN engine TEXT NOT NULL DEFAULT 'database';
ALTER TABLE leases ADD COLUMN role TEXT NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN expires INTEGER;

-- What was noticed about a call: a JSON list of names.
ALTER TABLE calls ADD COLUMN marks TEXT NOT NULL DEFAULT '[]';

-- Orders to refuse new calls, in force until their row is gone. The installation's own have an empty tenant.
CREATE TABLE brakes (
  tenant   TEXT    NOT NULL,
  kind     TEXT    NOT NULL,
  value    TEXT    NOT NULL,
  brake_id TEXT    NOT NULL UNIQUE,
  reason   TEXT    NOT NULL,
  set_by   TEXT    NOT NULL,
  set_at   INTEGER NOT NULL,
  PRIMARY KEY (tenant, kind, value)
) STRICT, WITHOUT ROWID;

-- What each grant allowed, counted at the reservation: whoever asks reads no history of calls.
CREATE TABLE grant_uses (
  tenant      TEXT    NOT NULL,
  environment TEXT    NOT NULL,
  grant_id    TEXT    NOT NULL,
  agent       TEXT    NOT NULL,
  method      TEXT    NOT NULL,
  calls       INTEGER NOT NULL,
  last        INTEGER NOT NULL,
  PRIMARY KEY (tenant, environment, grant_id, agent, method)
) STRICT, WITHOUT ROWID;

INSERT INTO grant_uses
SELECT tenant, environment, grant_id, agent, method, count(*), max(started)
FROM calls WHERE state <> 'REFUSED' AND grant_id <> ''
GROUP BY tenant, environment, grant_id, agent, method;
