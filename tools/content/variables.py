"""Custom properties of CSS: what `var()` may stand for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tinycss2

from tools.content.kinds import ContentInvalid, Problem
from tools.content.lengths import Tokens, significant

Variables = Mapping[str, Sequence[Tokens]]
"""What custom properties are set to, anywhere in a page, by name."""

_MAX_CHOICES, _MAX_VALUES = 64, 256
_MAX_OPEN, _MAX_PIECES = 24, 4_096


def collect_variables(declarations: Sequence[Any], into: dict[str, list[Tokens]]) -> None:
    """Add the custom properties that are declared."""
    for declaration in declarations:
        if declaration.type == "declaration" and declaration.name.startswith("--"):
            into.setdefault(declaration.name, []).append(declaration.value)


def expand(value: Tokens, variables: Variables, open_names: tuple[str, ...] = ()) -> Iterator[Tokens]:
    """Give a value with every choice of what its variables are set to.

    Where the choices multiply, each variable takes all of its own while the others keep their first.

    Raises:
        ContentInvalid: It is too much to be read.
    """
    places = [at for at, piece in enumerate(value) if is_variable(piece) or holds_variable(piece)]
    if not places:
        yield value
        return
    options = [_list_options(value[at], variables, open_names) for at in places]
    for choice in _combine(options):
        pieces: list[Any] = []
        rest = iter(choice)
        for at, piece in enumerate(value):
            pieces.extend(next(rest) if at in places else (piece,))
            if len(pieces) > _MAX_PIECES:
                raise ContentInvalid(Problem.TOO_MUCH_STYLE)
        yield pieces


def _combine(options: Sequence[Sequence[Tokens]]) -> Iterator[tuple[Tokens, ...]]:
    if not all(options):
        return
    if math.prod(map(len, options)) <= _MAX_VALUES:
        yield from itertools.product(*options)
        return
    first = tuple(option[0] for option in options)
    for at, option in enumerate(options):
        for choice in option:
            yield (*first[:at], choice, *first[at + 1 :])


def _list_options(piece: Any, variables: Variables, open_names: tuple[str, ...]) -> list[Tokens]:
    if not is_variable(piece):
        inner = itertools.islice(expand(piece.arguments, variables, open_names), _MAX_VALUES)
        return [[with_arguments(piece, arguments)] for arguments in inner]
    name, fallback = read_reference(piece)
    if not name or name in open_names:
        return []
    if len(open_names) >= _MAX_OPEN:
        raise ContentInvalid(Problem.TOO_MUCH_STYLE)
    choices = _unique(variables.get(name, ()))
    if fallback is not None:
        choices.append(fallback)
    deeper = (*open_names, name)
    found = (value for choice in choices for value in expand(choice, variables, deeper))
    return list(itertools.islice(found, _MAX_VALUES))


def _unique(choices: Sequence[Tokens]) -> list[Tokens]:
    """Leave out what stands twice; of very many, the first and the last."""
    kept = list({tinycss2.serialize(choice): choice for choice in choices[: 16 * _MAX_CHOICES]}.values())
    return kept if len(kept) <= _MAX_CHOICES else [*kept[: _MAX_CHOICES // 2], *kept[-_MAX_CHOICES // 2 :]]


def read_reference(piece: Any) -> tuple[str, Tokens | None]:
    """Read `var(--name, fallback)`: an empty fallback is one, and stands for nothing.

    Returns:
        The name, empty where there is none; the fallback, None where there is none.
    """
    arguments = significant(piece.arguments)
    if not arguments or arguments[0].type != "ident":
        return "", None
    has_comma = len(arguments) > 1 and arguments[1] == ","
    return arguments[0].value, arguments[2:] if has_comma else None


def is_variable(piece: Any) -> bool:
    """Tell whether a piece of a value is `var()` or its like."""
    return piece.type == "function" and piece.lower_name in ("var", "env")


def holds_variable(piece: Any) -> bool:
    """Tell whether a variable stands within a function."""
    return piece.type == "function" and any(
        is_variable(inner) or holds_variable(inner) for inner in piece.arguments
    )


def with_arguments(function: Any, arguments: Tokens) -> Any:
    """Give a function with other arguments."""
    return tinycss2.ast.FunctionBlock(
        function.source_line, function.source_column, function.name, list(arguments)
    )
