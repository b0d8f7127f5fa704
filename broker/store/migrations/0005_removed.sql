-- What cleaning took out of a call's result: a JSON list of lines, a line a field. Kinds and counts, never content,
-- so it stays when its tenant is erased.
ALTER TABLE calls ADD COLUMN removed TEXT NOT NULL DEFAULT '[]';
