-- The runs of the broker on this state. The newest may write, until there is a newer one; another process may
-- begin one when the newest has ended, or has not beaten until it expired. `length` is what one beat adds.
CREATE TABLE epochs (
  number  INTEGER PRIMARY KEY,
  started INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  length  INTEGER NOT NULL,
  ended   INTEGER
) STRICT;

INSERT INTO epochs SELECT epoch, 0, 0, 0, 0 FROM installation WHERE epoch > 0;
ALTER TABLE installation DROP COLUMN epoch;

-- In a backup only: when it was made.
ALTER TABLE installation ADD COLUMN backup_at INTEGER;
-- Of the last restore: when it was, the newest epoch from before it, and for how many microseconds of a running
-- broker keys that are unknown are still refused.
ALTER TABLE installation ADD COLUMN restored_at INTEGER;
ALTER TABLE installation ADD COLUMN restored_epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE installation ADD COLUMN grace_left INTEGER NOT NULL DEFAULT 0;

-- request, result and tool_log begin with a byte that says whether they are clear (0) or sealed (1). An empty
-- log is empty; NULL is what is not there, or was erased.
ALTER TABLE calls ADD COLUMN request BLOB;
ALTER TABLE calls RENAME COLUMN tool_log TO clear_log;
ALTER TABLE calls ADD COLUMN tool_log BLOB;
UPDATE calls SET
  result = CAST(x'00' || result AS BLOB),
  tool_log = CASE clear_log WHEN '' THEN x'' ELSE CAST(x'00' || clear_log AS BLOB) END;
ALTER TABLE calls DROP COLUMN clear_log;

-- What has to be resolved.
CREATE INDEX calls_in_doubt ON calls (started, call_id) WHERE state = 'IN_DOUBT';

-- The epoch that changed the key last.
ALTER TABLE claims ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;

-- Data keys, wrapped; without its row nothing that was sealed for a tenant can be read.
CREATE TABLE tenant_keys (
  tenant  TEXT NOT NULL PRIMARY KEY,
  wrapped BLOB NOT NULL
) STRICT, WITHOUT ROWID;
