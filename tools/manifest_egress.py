"""What a manifest says of HTTP targets and of credentials that the proxy adds: checked against each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tools.errors import Violation, breach
from tools.http_rules import RuleInvalid, is_unlistable, parse_rule

if TYPE_CHECKING:
    from tools.manifest import CredentialWanted, Inject, Manifest, TargetWanted

_LOGINS = ("kv", "database", "database_static", "ldap", "ldap_static")
ENGINES = {
    "bearer": ("kv", "oauth2"),
    "header": ("kv", "oauth2"),
    "query": ("kv",),
    "basic": _LOGINS,
    "client_certificate": ("pki",),
    "sigv4": ("kv",),
}
"""Which engines' credentials have what a form needs."""
_FIELDS = {
    "name": ("header", "query"),
    "prefix": ("header",),
    "region": ("sigv4",),
    "service": ("sigv4",),
    "key": ("bearer", "header", "query"),
}
"""Which forms know a field."""
_NEEDED = {"header": ("name",), "query": ("name",), "sigv4": ("region", "service")}
_OWN_HEADERS = {
    "bearer": ("authorization",),
    "basic": ("authorization",),
    "sigv4": ("authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"),
}
"""What the proxy writes itself: a rule cannot let the tool's pass."""


_NEVER_INJECTED = frozenset({"content-encoding", "range"})
"""Beside those that no rule can list: they say how a body is meant, and which part of it is wanted."""


def check_egress(manifest: Manifest) -> Iterator[Violation]:
    """Yield what is wrong, each at its field."""
    for name, target in manifest.targets.items():
        yield from _check_target(f"tool.yaml: targets.{name}", target)
    for name, wanted in manifest.credentials.items():
        yield from _check_credential(f"tool.yaml: credentials.{name}", wanted, manifest)
    yield from _check_methods(manifest)


def _check_target(place: str, target: TargetWanted) -> Iterator[Violation]:
    if target.kind != "http":
        for field in sorted(target.model_fields_set & {"allow", "opaque", "limits"}):
            yield breach("HTTP_ALLOW", f"{place}.{field}", "is for targets of kind http", "leave it out")
        return
    if target.opaque and target.allow:
        problem = "stands beside opaque, where nobody can see what is asked"
        yield breach("HTTP_ALLOW", f"{place}.allow", problem, "keep one of both")
    elif not target.opaque and not target.allow:
        problem = "says nothing of what may be asked"
        yield breach("HTTP_ALLOW", place, problem, 'write allow: ["GET /path/{name}"], or opaque: true')
    for index, wanted in enumerate(target.allow):
        try:
            parse_rule(wanted.rule, wanted.require, wanted.headers)
        except RuleInvalid as error:
            yield breach("HTTP_RULE", f"{place}.allow.{index}", str(error))


def _check_credential(place: str, wanted: CredentialWanted, manifest: Manifest) -> Iterator[Violation]:
    inject = wanted.inject
    if inject is None:
        if wanted.engine == "oauth2":
            problem = "is required for oauth2: its tokens go to no tool"
            yield breach("INJECT_FORM", f"{place}.inject", problem, "write inject: {form: bearer}")
        return
    if wanted.engine not in ENGINES[inject.form]:
        engines = " or ".join(ENGINES[inject.form])
        problem = f"needs the engine {engines}: {wanted.engine} has nothing that it could add"
        yield breach("INJECT_FORM", f"{place}.inject.form", problem, "choose another form or engine")
    yield from _check_fields(f"{place}.inject", inject)
    yield from _check_place(place, wanted, manifest)


def _check_fields(place: str, inject: Inject) -> Iterator[Violation]:
    for field in _NEEDED.get(inject.form, ()):
        if getattr(inject, field) is None:
            yield breach(
                "INJECT_FORM", f"{place}.{field}", f"is required for the form {inject.form}", "add it"
            )
    for field, forms in _FIELDS.items():
        if field in inject.model_fields_set and inject.form not in forms:
            yield breach("INJECT_FORM", f"{place}.{field}", f"is for {' and '.join(forms)}", "leave it out")
    if inject.form == "header" and inject.name is not None and _is_uninjectable(inject.name):
        problem = f"is {inject.name}, which belongs to the connection or leads past the rules"
        yield breach("INJECT_FORM", f"{place}.name", problem, "name the header that the target documents")


def _is_uninjectable(header: str) -> bool:
    return is_unlistable(header) or header.lower().replace("_", "-") in _NEVER_INJECTED


def _check_place(place: str, wanted: CredentialWanted, manifest: Manifest) -> Iterator[Violation]:
    target = manifest.targets.get(wanted.target or "")
    if target is None:
        if wanted.target is None:
            yield breach("INJECT_TARGET", f"{place}.target", "is required: name where it is to be added")
        return  # a name that leads to nothing was said already
    if target.kind != "http":
        problem = f"cannot be: {wanted.target} is of kind {target.kind}"
        yield breach("INJECT_TARGET", f"{place}.inject", problem, "name a target of kind http")
    elif target.opaque:
        problem = f"cannot be: {wanted.target} is opaque, so nothing can be added on the way"
        yield breach("INJECT_TARGET", f"{place}.inject", problem, "write rules instead of opaque")
    elif wanted.inject is not None:
        yield from _find_clashes(f"tool.yaml: targets.{wanted.target}", target, wanted.inject)


def _find_clashes(place: str, target: TargetWanted, inject: Inject) -> Iterator[Violation]:
    """Yield rules that let the tool send what the proxy writes."""
    own = _OWN_HEADERS.get(inject.form, ((inject.name or "").lower(),) if inject.form == "header" else ())
    for index, wanted in enumerate(target.allow):
        listed = sorted({name.lower() for name in wanted.headers} & set(own))
        query = wanted.rule.partition("?")[2]
        if inject.form == "query" and inject.name in [part.partition("=")[0] for part in query.split("&")]:
            listed.append(inject.name or "")
        for name in listed:
            problem = f"lets the tool send {name}, which the proxy adds"
            yield breach("INJECT_TARGET", f"{place}.allow.{index}", problem, "leave it out of the rule")


def _check_methods(manifest: Manifest) -> Iterator[Violation]:
    for method, tool in manifest.tools.items():
        seen: dict[str, str] = {}
        for name in tool.credentials:
            wanted = manifest.credentials.get(name)
            if wanted is None or wanted.inject is None or wanted.target is None:
                continue
            other = seen.setdefault(wanted.target, name)
            if other != name:
                problem = f"adds {name} and {other} to {wanted.target}: one is possible"
                yield breach("INJECT_TARGET", f"tool.yaml: tools.{method}.credentials", problem, "keep one")
