"""Whole numbers in a range, said as a pattern: for integers that JSON writes as strings."""

from __future__ import annotations

from collections.abc import Iterator

MAX_PATTERN_CHARACTERS = 300
"""A longer pattern says nothing to a reader, and a model pays for each character."""


def match_digits(least: int, greatest: int) -> str | None:
    """Write the pattern of exactly the whole numbers from `least` to `greatest`, in decimal without padding.

    Returns:
        None where the range is empty, or the pattern would be too long.
    """
    parts = []
    if least < 0:
        inner = "|".join(_split(max(1, -greatest), -least))
        parts.append(f"-({inner})" if "|" in inner else f"-{inner}")
    if greatest >= 0:
        parts += _split(max(0, least), greatest)
    pattern = f"^({'|'.join(parts)})$"
    return pattern if least <= greatest and len(pattern) <= MAX_PATTERN_CHARACTERS else None


def match_length(least: int, greatest: int) -> str:
    """Write a pattern that takes a whole range by sign and number of digits, and more beside it."""
    digits = len(str(max(abs(least), abs(greatest))))
    if least > 0:
        return f"^[1-9][0-9]{{{len(str(least)) - 1},{digits - 1}}}$"
    sign = "-?" if least < 0 else ""
    return f"^(0|{sign}[1-9][0-9]{{0,{digits - 1}}})$"


def _split(low: int, high: int) -> Iterator[str]:
    """Cut a range where the set of digits of a place changes; yield a pattern for each piece."""
    if low == 0:
        yield _write(0, min(9, high), 0)
        low = min(9, high) + 1
    while low <= high:
        places = _count_places(low, high)
        if low == 10**places and 10 ** (places + 1) - 1 <= high:
            most = len(str(high + 1)) - 2
            yield f"[1-9][0-9]{{{places},{most}}}" if most > places else _write(1, 8, places)
            low = 10 ** (most + 1)
            continue
        size = 10**places
        many = min(9 - low // size % 10, (high - low + 1) // size - 1)
        yield _write(low // size, many, places)
        low += (many + 1) * size


def _count_places(low: int, high: int) -> int:
    """Find the largest block of 10^n numbers that begins at `low` and ends within the range; returns n."""
    places = 0
    while low % 10 ** (places + 1) == 0 and low + 10 ** (places + 1) - 1 <= high:
        places += 1
    return places


def _write(head: int, many: int, places: int) -> str:
    """Write numbers that begin with `head`, whose last digit may grow by `many`, and end with any digits."""
    digits = str(head)
    front, last = digits[:-1], digits[-1]
    digit = last if many == 0 else f"[{last}-{int(last) + many}]"
    tail = "" if places == 0 else "[0-9]" if places == 1 else f"[0-9]{{{places}}}"
    return front + digit + tail
