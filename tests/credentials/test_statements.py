"""A role's statements are ours, or the role is refused."""

from __future__ import annotations

import pytest

from credentials.statements import CREATION, REVOCATION, creation_statements, find_statement_problems

GRANT = 'GRANT SELECT ON orders TO "{{name}}"'


def test_accepts_our_statements_with_grants() -> None:
    assert find_statement_problems(creation_statements([GRANT]), [REVOCATION]) == []


def test_accepts_other_white_space() -> None:
    assert find_statement_problems([CREATION], ["\n  ".join(REVOCATION.split("\n"))]) == []


@pytest.mark.parametrize("revocation", [[], ["DROP ROLE x"], [REVOCATION, "SELECT 1"], [REVOCATION[:-20]]])
def test_refuses_other_revocation_statements(revocation: list[str]) -> None:
    assert "revocation_statements" in find_statement_problems([CREATION], revocation)[0]


@pytest.mark.parametrize("creation", [[], ["CREATE ROLE x SUPERUSER"], [GRANT]])
def test_refuses_another_create_role(creation: list[str]) -> None:
    assert "CREATE ROLE" in find_statement_problems(creation, [REVOCATION])[0]


@pytest.mark.parametrize(
    "grant",
    [
        'ALTER ROLE "{{name}}" SUPERUSER',
        "GRANT SELECT ON orders TO PUBLIC",
        'GRANT SELECT ON orders TO somebody -- TO "{{name}}"',
        'GRANT SELECT ON orders TO somebody /* TO */ TO "{{name}}"',
        'GRANT SELECT ON orders TO "{{name}}" WITH GRANT OPTION',
        'GRANT SELECT ON orders TO "{{name}}"; DROP TABLE orders; GRANT SELECT ON orders TO "{{name}}"',
    ],
)
def test_refuses_what_is_not_one_grant_to_the_login(grant: str) -> None:
    with pytest.raises(ValueError, match="is not one GRANT"):
        creation_statements([grant])


def test_allows_a_semicolon_at_the_end_of_a_grant() -> None:
    assert creation_statements([GRANT + ";"])[1] == GRANT
