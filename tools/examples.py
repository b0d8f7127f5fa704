"""Examples of a bundle: what a tool is asked, and what has to come of it.

They stand beside the bundle, in `examples/*.yaml`, are no part of what is registered, and are run by
`toolcrib tools test`. Each file is a list:

    - name: greets by name
      method: greeter.v1.Greeter/Greet
      request: {name: Ada}
      result: {message: "Hello, Ada!"}

Exactly one of these says what has to come: `result` (all of it), `result_includes` (a part of it), `failure`
(the handler's own), `violations` (fields of a request that the contract refuses). Within a result a mapping
with one key that begins with `$` is a matcher: `$matches` a regular expression, `$contains` a text, `$any`
whatever is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches, unified_diff
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jsonschema_rs
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tools.errors import BundleInvalid, Violation
from tools.http_rules import read_origin
from tools.manifest_yaml import StrictLoader

FOLDER = "examples"
MAX_EXAMPLES = 1_000
MAX_FILE_BYTES = 1024 * 1024
_ENDS = ("result", "result_includes", "failure", "violations")
_PATTERN_BYTES = 1024 * 1024
_MATCHERS = ("$matches", "$contains", "$any")


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FailureWanted(_Closed):
    """A failure of the handler's own; what is left out may be anything.

    Attributes:
        message: A text that its message holds.
    """

    code: str
    message: str = ""
    retryable: bool | None = None
    effect: Literal["none", "applied", "unknown"] | None = None


class FakeTarget(_Closed):
    """A program that plays a target.

    Attributes:
        fake: Path in the bundle's folder, below `examples/`.
        settings: What the operator would declare, for example {"database": "shop"}.
        origins: So are these, of a target of kind "http": "http://api.example". A fake speaks no TLS, so they
            are http; without them the tool is told where the fake is.
    """

    fake: str = Field(pattern=r"^examples/[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}\.py$")
    settings: Mapping[str, str] = Field(default_factory=dict)
    origins: tuple[str, ...] = Field((), max_length=8)

    @model_validator(mode="after")
    def _check_origins(self) -> FakeTarget:
        for origin in self.origins:
            if not origin.startswith("http://") or read_origin(origin) != origin:
                raise ValueError(f"origins: {origin!r} is none that a fake has; write http://NAME")
        return self

    @model_validator(mode="after")
    def _check_path(self) -> FakeTarget:
        if ".." in self.fake.split("/"):
            raise ValueError("fake: must stay within examples/")
        return self


class Example(_Closed):
    """One question and its answer.

    Attributes:
        file: Where it stands, "examples/greet.yaml".
        credentials: By the manifest's name: the fields of what would be minted.
        artefacts: Names of the files that come back.
    """

    file: str = ""
    name: str = Field(min_length=1, max_length=200)
    method: str
    request: Mapping[str, Any] = Field(default_factory=dict)
    key: str = ""
    credentials: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    targets: Mapping[str, FakeTarget] = Field(default_factory=dict)
    result: Mapping[str, Any] | None = None
    result_includes: Mapping[str, Any] | None = None
    failure: FailureWanted | None = None
    violations: tuple[str, ...] | None = None
    artefacts: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_end(self) -> Example:
        ends = [name for name in _ENDS if getattr(self, name) is not None]
        if len(ends) != 1:
            raise ValueError(f"say one of {', '.join(_ENDS)}; it says {' and '.join(ends) or 'none'}")
        for wanted in (self.result, self.result_includes):
            check_matchers(wanted or {})
        json.dumps(self.request, default=str)  # ValueError: a number of thousands of digits
        return self


class _Loader(StrictLoader):
    """A date is the text that JSON has for it."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_examples(folder: Path) -> list[Example]:
    """Read the examples of a bundle's folder, file by file.

    Raises:
        BundleInvalid: Something in them is not right; every fault, by file and example.
    """
    found: list[Example] = []
    problems: list[Violation] = []
    if (folder / FOLDER).is_symlink():
        raise BundleInvalid([Violation(f"{FOLDER}/", "must be a plain folder: links are not followed")])
    for file in sorted((folder / FOLDER).glob("*.yaml")):
        where = f"{FOLDER}/{file.name}"
        for number, item in enumerate(_read_list(file, where, problems), 1):
            _read_one(item, where, number, found, problems)
    if len(found) > MAX_EXAMPLES:
        problems.append(Violation(f"{FOLDER}/", f"has more than {MAX_EXAMPLES} examples"))
    if problems:
        raise BundleInvalid(problems)
    return found


def _read_list(file: Path, where: str, problems: list[Violation]) -> list[object]:
    if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_FILE_BYTES:
        problems.append(Violation(where, f"must be a plain file of at most {MAX_FILE_BYTES} bytes"))
        return []
    try:
        items = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader) or []  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        problems.append(Violation(_find_place(where, error), f"is not valid YAML: {_say(error)}"))
        return []
    if isinstance(items, list):
        return items
    problems.append(Violation(where, "must be a list of examples, each with `name` and `method`"))
    return []


def _read_one(item: object, where: str, number: int, found: list[Example], problems: list[Violation]) -> None:
    if not isinstance(item, dict):
        problems.append(Violation(f"{where}: example {number}", "must be a mapping"))
        return
    try:
        found.append(Example.model_validate({**item, "file": where}))
    except ValidationError as error:
        name = f"{where}: {item.get('name') or f'example {number}'}"
        for fault in error.errors():
            field = ".".join(str(part) for part in fault["loc"])
            text = _explain_extra(field) if fault["type"] == "extra_forbidden" else fault["msg"]
            problems.append(Violation(f"{name}: {field}".rstrip(": "), text.removeprefix("Value error, ")))


def _explain_extra(field: str) -> str:
    near = get_close_matches(field, Example.model_fields, n=1)
    return "is no field of an example" + (f"; did you mean {near[0]}?" if near else "")


def _find_place(where: str, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{where}:{mark.line + 1}" if mark else where


def _say(error: Exception) -> str:
    return str(getattr(error, "problem", None) or error)


def check_matchers(wanted: object) -> None:
    """See that every matcher is one, and that its regular expression can be read.

    Raises:
        ValueError: Naming the first that is not.
    """
    if isinstance(wanted, Mapping):
        for key, value in wanted.items():
            if str(key).startswith("$"):
                _check_matcher(wanted, str(key), value)
            check_matchers(value)
    elif isinstance(wanted, list):
        for item in wanted:
            check_matchers(item)


def _check_matcher(wanted: Mapping[str, object], key: str, value: object) -> None:
    if key not in _MATCHERS or len(wanted) != 1:
        raise ValueError(f"{key}: a matcher is one of {', '.join(_MATCHERS)}, alone in its mapping")
    if key == "$matches":
        try:
            _compile(str(value))
        except ValueError as error:
            text = "is no regular expression; it may have no lookaround and no back references"
            raise ValueError(f"$matches: {value!r} {text}") from error


@cache
def _compile(pattern: str) -> jsonschema_rs.Draft202012Validator:
    """Prepare a regular expression for an engine that takes linear time: it is somebody else's.

    Raises:
        ValueError: It is none.
    """
    options = jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES)
    schema = {"pattern": rf"\A(?:{pattern})\z"}
    return jsonschema_rs.Draft202012Validator(schema, pattern_options=options)


def fits(wanted: object, got: object, *, whole: bool) -> bool:
    """Tell whether a value is what an example wants.

    Args:
        wanted: With matchers.
        got: JSON of the result.
        whole: Whether members that the example does not name are a fault.
    """
    if isinstance(wanted, Mapping):
        matcher = next((key for key in wanted if key in _MATCHERS), None)
        if matcher:
            return _matches(matcher, wanted[matcher], got)
        if not isinstance(got, Mapping) or not wanted.keys() <= got.keys():
            return False
        if whole and wanted.keys() != got.keys():
            return False
        return all(fits(value, got[key], whole=whole) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(got, list)
            and len(wanted) == len(got)
            and all(fits(one, other, whole=whole) for one, other in zip(wanted, got, strict=True))
        )
    return type(wanted) is type(got) and wanted == got


def _matches(matcher: str, wanted: object, got: object) -> bool:
    text = got if isinstance(got, str) else json.dumps(got)
    if matcher == "$matches":
        return _compile(str(wanted)).is_valid(text)
    return str(wanted) in text if matcher == "$contains" else True


def compare(wanted: Mapping[str, Any], got: object, *, whole: bool) -> str:
    """Show how a result differs from what is wanted; empty where it does not.

    Returns:
        A unified diff of both as JSON. What fits is shown as it came, so that a matcher that holds is no
        difference.
    """
    if fits(wanted, got, whole=whole):
        return ""
    want, have = _lines(_settle(wanted, got, whole=whole)), _lines(_trim(wanted, got, whole=whole))
    return "\n".join(unified_diff(want, have, "wanted", "came", lineterm="", n=2))


def _settle(wanted: Any, got: object, *, whole: bool) -> object:
    """Give what is wanted, with what came in place of each part that fits."""
    if fits(wanted, got, whole=whole):
        return _trim(wanted, got, whole=whole)
    if isinstance(wanted, Mapping) and isinstance(got, Mapping):
        return {
            key: _settle(value, got[key], whole=whole) if key in got else value
            for key, value in wanted.items()
        }
    if isinstance(wanted, list) and isinstance(got, list):
        return [
            _settle(value, got[at], whole=whole) if at < len(got) else value
            for at, value in enumerate(wanted)
        ]
    return wanted


def _trim(wanted: Any, got: Any, *, whole: bool) -> object:
    """Leave out of what came the members that nobody asked about."""
    if whole or not (isinstance(wanted, Mapping) and isinstance(got, Mapping)):
        return got
    if any(key in _MATCHERS for key in wanted):
        return got
    return {key: _trim(wanted[key], got[key], whole=whole) for key in got if key in wanted}


def _lines(value: object) -> Sequence[str]:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str).splitlines()
