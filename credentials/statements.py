"""The SQL that makes and ends a login in PostgreSQL, and the check that a Vault role carries it.

Vault runs a role's statements in one transaction. Rules of ours:

1. The end closes the login first, then ends its sessions and waits until they are gone: an open transaction
   would otherwise commit after the revoke.
2. A session's temporary tables go with the session; what else the login owns or was granted, large objects
   and default privileges included, goes with DROP OWNED; then DROP ROLE. RESTRICT is meant: what others
   built on a tool's objects is not dropped with them.
3. What cannot be dropped (an object in another database of the server) must not keep the login alive: each
   drop is a subtransaction, so that the login stays closed and without a password when it fails.
4. A session that cannot be ended fails the whole, so that the end is not confirmed.

Vault's own default statements do none of this, so a role without ours is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

CREATION = (
    """CREATE ROLE "{{name}}" WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS """
    """CONNECTION LIMIT 8 PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"""
)

# `END` in capitals makes Vault's plugin pass the block on whole instead of cutting it at the semicolons.
REVOCATION = """\
DO $toolcrib$
DECLARE
  login CONSTANT oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = '{{name}}');
  alive bigint := 0;
BEGIN
  IF login IS NULL THEN
    RETURN;
  END IF;
  PERFORM pg_catalog.set_config('lock_timeout', '2s', true);
  ALTER ROLE "{{name}}" WITH NOLOGIN CONNECTION LIMIT 0 PASSWORD NULL;
  FOR attempt IN 1..40 LOOP
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    SELECT count(pg_catalog.pg_terminate_backend(pid)) INTO alive
      FROM pg_catalog.pg_stat_activity WHERE usesysid = login;
    EXIT WHEN alive = 0;
    PERFORM pg_catalog.pg_sleep(0.002 * attempt);
  END LOOP;
  IF alive > 0 THEN
    RAISE EXCEPTION 'toolcrib: % sessions of {{name}} live on', alive;
  END IF;
  BEGIN
    DROP OWNED BY "{{name}}" RESTRICT;
  EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'toolcrib: login {{name}} is closed but keeps what it owns: %', SQLERRM;
  END;
  BEGIN
    DROP ROLE "{{name}}";
  EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'toolcrib: login {{name}} is closed but its role remains: %', SQLERRM;
  END;
END
$toolcrib$"""

_GRANT = re.compile(
    r'^GRANT\s+[^;{}]+\s+ON\s+[^;{}]+\s+TO\s+"\{\{name\}\}"$|^GRANT\s+[^;{}]+\s+TO\s+"\{\{name\}\}"$',
    re.IGNORECASE,
)


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
        if not _GRANT.match(_squeeze(statement))
    ]
    return problems


def _squeeze(text: str) -> str:
    return " ".join(text.split())
