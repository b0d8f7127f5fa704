"""Says what the HTTP proxy would do with one request of a tool, and why. Nothing is sent, no name looked up.

It takes the way of the proxy (sandboxes/proxy/exchange.py): URL, target, opaque, rules of the manifest, rules
of the grant; and judges by the same `tools.http_rules.judge`, on the access that the run stage would make.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from broker.policy.permits import Permit
from broker.stages.http_access import make_access, narrow
from credentials.injection import Form
from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.injecting import find_dropped
from tools.http_rules import Ask, Check, Url, judge, read_target
from tools.manifest import Manifest

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Request:
    """A request of a tool, as somebody imagines it.

    Attributes:
        method: Capital letters.
        url: Absolute.
        headers: Names in lower case.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of it.

    Attributes:
        check: `Check.ALLOWED`, or which check refuses.
        why: For people: what allows it, or what refuses it and what to change.
        target: The operator's name for what the URL leads to; empty for none.
        rule: The manifest's rule that matches; empty where none does.
        grant_rule: The grant's; empty where it has none, or none was asked for.
        grant_id: The grant that was looked at; empty where none was.
        opened: Whether TLS is opened on the way.
        injected: The manifest's name of the credential that would be added; empty for none.
        injected_form: How it would be.
        dropped: Names of headers that would be left out.
    """

    check: Check
    why: str
    target: str = ""
    rule: str = ""
    grant_rule: str = ""
    grant_id: str = ""
    opened: bool = False
    injected: str = ""
    injected_form: str = ""
    dropped: tuple[str, ...] = ()

    @property
    def is_allowed(self) -> bool:
        """Whether it would be sent."""
        return self.check is Check.ALLOWED


class EgressExplainer:
    """Explains requests of one method of one version."""

    def __init__(self, manifest: Manifest, method: str, targets: Mapping[str, HttpTarget]) -> None:
        """Prepare.

        Args:
            manifest: Of the tool's version.
            method: The tool, which the manifest has.
            targets: All of kind "http" that the operator declared, by name.
        """
        self._manifest, self._tool = manifest, manifest.method(method)
        self._method = method
        self._wanted = manifest.http_targets(method)
        self._targets = {name: targets[name] for name in self._wanted if name in targets}

    def explain(self, request: Request, permits: Sequence[Permit] | None = None) -> Explanation:
        """Say what would become of a request.

        Args:
            request: What is asked.
            permits: The grants that the call could come by, in the order in which one is chosen; None: grants
                are not looked at.
        """
        url = self._read(request)
        if url is None:
            return Explanation(Check.URL, f"the URL is refused: {find_fault(request.url)}")
        names = [name for name, target in self._targets.items() if url.origin in target.origins]
        if len(names) != 1:
            return Explanation(Check.TARGET, self._explain_no_target(url, names))
        if permits is None:
            return self._judge(request, url, names[0], None)
        if not permits:
            text = "no grant lets this agent call the tool there; see `toolcrib grants explain`"
            return self._begin(names[0], Check.GRANT, text)
        found = [self._judge(request, url, names[0], permit) for permit in permits]
        chosen = next((one for one in found if one.is_allowed), found[0])
        refusing = [one.grant_id for one in found if not one.is_allowed]
        if not chosen.is_allowed or not refusing:
            return chosen
        other = f", where the call comes by {chosen.grant_id}: {_name_some(refusing)} would refuse it"
        return replace(chosen, why=chosen.why + other)

    def _read(self, request: Request) -> Url | None:
        named = [value for name, value in request.headers if name == "host"]
        scheme, mark, rest = request.url.partition("://")
        if len(named) > 1 or not mark:
            return None
        opening = read_target(f"{scheme}://{rest.partition('/')[0]}/")
        if opening is not None and self._is_unread(opening):
            return opening  # what is asked for in a tunnel is not seen, however it is spelled
        return read_target(request.url, *named)

    def _is_unread(self, url: Url) -> bool:
        names = [name for name, target in self._targets.items() if url.origin in target.origins]
        return url.scheme == "https" and len(names) == 1 and self._manifest.targets[names[0]].opaque

    def _begin(self, name: str, check: Check, why: str) -> Explanation:
        target, wanted = self._targets[name], self._manifest.targets[name]
        return Explanation(check, why, name, opened=target.is_tls and not wanted.opaque)

    def _judge(self, request: Request, url: Url, name: str, permit: Permit | None) -> Explanation:
        narrowed = None if permit is None else narrow(permit.grant, name)
        access = make_access(self._manifest, name, None, narrowed)
        grant_id = "" if permit is None else permit.grant.grant_id
        if access.opaque:
            return replace(self._explain_opaque(name, url, narrowed is not None), grant_id=grant_id)
        ask = Ask(request.method, url.path, url.query, request.headers)
        verdict = judge(access.allow, ask, access.narrowed)
        why = verdict.why + self._advise(verdict.check, name, permit)
        found = replace(
            self._begin(name, verdict.check, why),
            rule=verdict.rule.text if verdict.rule else "",
            grant_rule=verdict.grant_rule.text if verdict.grant_rule else "",
            grant_id=grant_id,
            dropped=verdict.dropped,
        )
        kept = verdict.rule.headers if verdict.rule else ()
        return self._add_credential(found, request, kept) if found.is_allowed else found

    def _add_credential(self, found: Explanation, request: Request, kept: Collection[str]) -> Explanation:
        for credential in self._tool.credentials:
            wanted = self._manifest.credentials[credential]
            if wanted.inject is not None and wanted.target == found.target:
                form = Form(wanted.inject.form)
                dropped = find_dropped(form, wanted.inject.name or "", request.headers, kept)
                dropped = tuple(dict.fromkeys((*found.dropped, *dropped)))
                return replace(found, injected=credential, injected_form=form.value, dropped=dropped)
        return found

    def _explain_opaque(self, name: str, url: Url, narrows: bool) -> Explanation:
        if url.scheme != "https":
            text = "the target is opaque: it is reached over https, which goes through unread"
            return self._begin(name, Check.OPAQUE, text)
        if narrows:
            text = "the target is opaque, so the grant's rules cannot be held to it; remove its @egress"
            return self._begin(name, Check.GRANT, text)
        text = "the target is opaque: TLS goes through unread, whatever is asked in it"
        return self._begin(name, Check.ALLOWED, text)

    def _explain_no_target(self, url: Url, names: Sequence[str]) -> str:
        if names:
            return f"{' and '.join(names)} both have the origin {url.origin}; the operator has to change one"
        if not self._wanted:
            return f"the manifest gives {self._method} no target of kind http"
        known = ", ".join(origin for target in self._targets.values() for origin in target.origins)
        text = f"no target of the tool has the origin {url.origin}; its targets have {known or 'none'}"
        missing = [name for name in self._wanted if name not in self._targets]
        if missing:
            text += f"; the operator declares no target {missing[0]} of kind http: add [targets.{missing[0]}]"
        return text

    def _advise(self, check: Check, name: str, permit: Permit | None) -> str:
        """Say what to change; after what the judge said."""
        if check is Check.ALLOWED:
            return "" if permit is None or permit.is_sure else ", where the grant's conditions are met"
        if check is Check.GRANT and permit is not None:
            known = [rule.text for target, rule in permit.grant.egress or () if target == name]
            return f"; @egress of {permit.grant.grant_id} has for {name}: {_name_some(known)}"
        known = [rule.text for rule in self._manifest.targets[name].rules]
        return f"; targets.{name}.allow in tool.yaml has: {_name_some(known)}"


def _name_some(rules: Sequence[str]) -> str:
    more = f" and {len(rules) - _MOST_NAMED} more" if len(rules) > _MOST_NAMED else ""
    return ("; ".join(rules[:_MOST_NAMED]) or "nothing") + more


def find_fault(url: str) -> str:
    """Say what is wrong with a URL that is not of the one form (tools/http_urls.py)."""
    scheme, mark, rest = url.partition("://")
    authority, slash, _ = rest.partition("/")
    faults = (
        (not mark or scheme not in ("http", "https"), "write http://HOST/PATH or https://HOST/PATH"),
        ("#" in url, "leave the fragment out: it is never sent"),
        (not slash, 'write a "/" after the host'),
        ("@" in authority, "it names a user before the host"),
        (authority != authority.lower(), "write the host in lower case"),
        (authority.endswith(".") or ".:" in authority, "the host ends in a dot"),
        ("//" in rest.partition("?")[0], "the path has an empty segment"),
        ("%" in rest, "an escape hides something, or stands for what needs none"),
    )
    return next((text for wrong, text in faults if wrong), "it, or its Host, is read differently by parsers")
