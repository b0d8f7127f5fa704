"""The SQL that makes and ends a login in PostgreSQL, and the check that a Vault role carries it.

Vault runs a role's statements in one transaction. That is not enough to end a login: while "no login" is not
committed, clients that reconnect in a loop get in again behind the end of their sessions (measured with six
of them: of 30 ends 2 failed, and 1 was confirmed while a session lived). So ours commit on the way:

1. The login is closed: NOLOGIN, no password. Committed, so that it stays closed whatever fails later. Its
   sessions are told to end here already, which saves waiting for them below.
2. Its sessions are ended, until none is seen; an open transaction would otherwise commit after the revoke.
   A session that was let in a moment before is not seen while it starts, but it holds the lock of a
   transaction by then: where somebody whom we do not see holds one, none must be seen twice in a row. (Vault
   ends the logins at one database one after the other. To look twice each time cost 13 ms, and the last of
   300 that have to end at once waited 4 s for that alone.) Their temporary tables go with them. Then all that
   the login owns or was granted, large objects and default privileges included, goes with DROP OWNED.
   RESTRICT is meant: what others built on a tool's objects is not dropped with them. Committed.
3. The role is dropped. What stands in the way (an object in another database of the server, a session that
   cannot be ended) fails the revoke: the lease stays in Vault and the end is not confirmed, but the login is
   closed all the same.

A login that stays and gets a new password (a static role) is rotated in the same way: closed with its new
password, its sessions ended, what it set for its own later sessions reset, and opened again. Where a step
fails it stays closed until the rotation is repeated. Settings that the login needs belong to its database.

Every step may be repeated. Vault's own default statements do none of this, so a role without ours is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

CREATION = (
    """CREATE ROLE "{{name}}" WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS """
    """CONNECTION LIMIT 8 PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"""
)

# Vault's plugin passes a text with the word END on whole, instead of cutting it at the semicolons.
REVOCATION = """\
DO $close$
DECLARE
  login CONSTANT oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = '{{name}}');
BEGIN
  IF login IS NOT NULL THEN
    PERFORM pg_catalog.set_config('lock_timeout', '2s', true);
    ALTER ROLE "{{name}}" WITH NOLOGIN CONNECTION LIMIT 0 PASSWORD NULL;
    BEGIN
      PERFORM pg_catalog.pg_terminate_backend(pid)
        FROM pg_catalog.pg_stat_get_activity(NULL) WHERE usesysid = login;
    EXCEPTION WHEN insufficient_privilege THEN
      NULL;
    END;
  END IF;
END
$close$;
COMMIT;
DO $end$
DECLARE
  login CONSTANT oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = '{{name}}');
  busy integer[];
  alive bigint;
  quiet integer := 0;
BEGIN
  IF login IS NULL THEN
    RETURN;
  END IF;
  FOR attempt IN 1..40 LOOP
    busy := ARRAY(SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'virtualxid' AND pid IS NOT NULL);
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    SELECT count(pg_catalog.pg_terminate_backend(pid)) INTO alive
      FROM pg_catalog.pg_stat_get_activity(NULL) WHERE usesysid = login;
    quiet := CASE WHEN alive > 0 THEN 0 WHEN EXISTS (
      SELECT FROM pg_catalog.unnest(busy) AS one(pid) WHERE pid NOT IN (
        SELECT pid FROM pg_catalog.pg_stat_get_activity(NULL) WHERE usesysid IS NOT NULL)
    ) THEN quiet + 1 ELSE 2 END;
    EXIT WHEN quiet = 2;
    PERFORM pg_catalog.pg_sleep(0.001 * attempt + CASE WHEN alive = 0 THEN 0.006 ELSE 0 END);
  END LOOP;
  IF quiet < 2 THEN
    RAISE EXCEPTION 'the login is closed, but % of its sessions live on', alive;
  END IF;
  PERFORM pg_catalog.set_config('lock_timeout', '2s', true);
  DROP OWNED BY "{{name}}" RESTRICT;
END
$end$;
COMMIT;
DO $drop$
BEGIN
  PERFORM pg_catalog.set_config('lock_timeout', '2s', true);
  DROP ROLE IF EXISTS "{{name}}";
END
$drop$"""

# Vault's plugin cuts a rotation statement at its semicolons, unless it is a list in JSON.
ROTATION = json.dumps(
    [
        """\
DO $close$
BEGIN
  IF NOT (pg_catalog.pg_has_role('{{name}}', 'USAGE') OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))
  THEN
    RAISE EXCEPTION 'its sessions could not be ended: GRANT "{{name}}" TO % WITH INHERIT TRUE', current_user;
  END IF;
  PERFORM pg_catalog.set_config('lock_timeout', '2s', true);
  ALTER ROLE "{{name}}" WITH NOLOGIN PASSWORD '{{password}}';
END
$close$""",
        "COMMIT",
        """\
DO $end$
DECLARE
  login CONSTANT oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = '{{name}}');
  place name;
  alive bigint;
  quiet integer := 0;
BEGIN
  FOR attempt IN 1..40 LOOP
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    SELECT count(pg_catalog.pg_terminate_backend(pid)) INTO alive
      FROM pg_catalog.pg_stat_activity WHERE usesysid = login;
    quiet := CASE WHEN alive = 0 THEN quiet + 1 ELSE 0 END;
    EXIT WHEN quiet = 2;
    PERFORM pg_catalog.pg_sleep(0.005 + 0.001 * attempt);
  END LOOP;
  IF quiet < 2 THEN
    RAISE EXCEPTION 'the login is closed, but % of its sessions live on', alive;
  END IF;
  PERFORM pg_catalog.set_config('lock_timeout', '2s', true);
  ALTER ROLE "{{name}}" RESET ALL;
  FOR place IN SELECT datname FROM pg_catalog.pg_db_role_setting JOIN pg_catalog.pg_database
      ON pg_database.oid = setdatabase WHERE setrole = login LOOP
    EXECUTE pg_catalog.format('ALTER ROLE "{{name}}" IN DATABASE %I RESET ALL', place);
  END LOOP;
  ALTER ROLE "{{name}}" WITH LOGIN;
END
$end$""",
    ]
)

# A comment could hide who really gets it: GRANT … TO somebody -- TO "{{name}}"
_GRANT = re.compile(r'(?!.*(?:--|/\*))GRANT\s+[^;{}]+\s+TO\s+"\{\{name\}\}"', re.IGNORECASE)


def creation_statements(grants: Sequence[str]) -> list[str]:
    """Return the creation statements of a role that holds these grants.

    Args:
        grants: For example `GRANT SELECT ON orders TO "{{name}}"`, without a semicolon.

    Raises:
        ValueError: A grant is not a single GRANT to `"{{name}}"`.
    """
    statements = [CREATION, *(" ".join(grant.split()).removesuffix(";") for grant in grants)]
    problems = find_statement_problems(statements, [REVOCATION])
    if problems:
        raise ValueError("; ".join(problems))
    return statements


def find_statement_problems(creation: Sequence[str], revocation: Sequence[str]) -> list[str]:
    """Compare a Vault role's statements with ours.

    Returns:
        One sentence for each difference; empty when the login that the role makes can be ended.
    """
    problems = []
    if [_squeeze(text) for text in revocation] != [_squeeze(REVOCATION)]:
        problems.append("its revocation_statements are not Toolcrib's: a login could outlive its call")
    if not creation or _squeeze(creation[0]) != _squeeze(CREATION):
        problems.append("its first creation statement is not Toolcrib's CREATE ROLE")
    problems += [
        f'the creation statement "{statement}" is not one GRANT … TO "{{{{name}}}}"'
        for statement in creation[1:]
        if not _GRANT.fullmatch(_squeeze(statement))
    ]
    return problems


def find_rotation_problems(rotation: Sequence[str]) -> list[str]:
    """Compare the statements that change a static login's password with ours.

    Returns:
        One sentence where they differ; empty when they end what used the old password.
    """
    if list(rotation) == [ROTATION]:
        return []
    return ["its rotation_statements are not Toolcrib's: sessions could outlive their call"]


def _squeeze(text: str) -> str:
    return " ".join(text.split())
