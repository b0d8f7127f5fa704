"""Parts of the messages between broker and HTTP proxy: targets, rules, caps, credentials, doors.

Each is `access.py`'s type in numbers and text: `write()` makes it of that, and a property gives that back. No
error text and no `repr` holds a value of a field in which a secret may stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from credentials.injection import FIELDS, Form, Injection
from sandboxes.egress.addresses import HOST, TARGET_NAME
from sandboxes.egress.codec import ControlError, check_flag, check_list, check_text, check_whole
from sandboxes.proxy.access import HttpAccess, HttpCaps, HttpTarget
from tools.http_rules import HttpRule, RuleInvalid, parse_rule

MAX_RULES = 200
PEM = re.compile(r"[\n\r\t -~]{0,100000}")

_NAME = re.compile(r"[ -~]{1,200}")
_LINE = re.compile(r"[ -~]{1,2000}")
_SECRET = re.compile(r"[^\x00]{0,100000}", re.DOTALL)
_ORIGIN = re.compile(r"https?://[A-Za-z0-9_.:\[\]-]{1,262}")
_NETWORK = re.compile(r"[0-9a-fA-F.:]{2,45}/[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """A declared target of kind "http", as `HttpTarget` has it."""

    name: str
    host: str
    port: int
    origins: list[str]
    ca_pem: str
    networks: list[str]
    digests: bool

    def __post_init__(self) -> None:
        check_text(self.name, "target name", TARGET_NAME)
        check_text(self.host, "target host", HOST)
        check_whole(self.port, "target port", 1, 65_535)
        for origin in check_list(self.origins, "origins", 64):
            check_text(origin, "origin", _ORIGIN)
        if len({origin.partition(":")[0] for origin in self.origins}) != 1:
            raise ControlError(f"target {self.name}: wants one origin or more, all of one scheme")
        check_text(self.ca_pem, "ca_pem", PEM)
        for network in check_list(self.networks, "networks", 64):
            check_text(network, "network", _NETWORK)
        check_flag(self.digests, "digests")

    @classmethod
    def write(cls, target: HttpTarget) -> TargetEntry:
        """Write a target down."""
        origins, networks = list(target.origins), list(target.networks)
        return cls(target.name, target.host, target.port, origins, target.ca_pem, networks, target.digests)

    @property
    def target(self) -> HttpTarget:
        """The same as the child keeps it."""
        origins, networks = tuple(self.origins), tuple(self.networks)
        return HttpTarget(self.name, self.host, self.port, origins, self.ca_pem, networks, self.digests)


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """A rule as it is written in manifest or grant; the child parses it once, when the call opens."""

    text: str
    require: list[str]
    headers: dict[str, str]

    def __post_init__(self) -> None:
        check_text(self.text, "rule", _LINE)
        for name in check_list(self.require, "require", 100):
            check_text(name, "require", _NAME)
        if type(self.headers) is not dict or len(self.headers) > 100:
            raise ControlError("rule headers: are no object of at most 100")
        for name, pattern in self.headers.items():
            check_text(name, "rule header", _NAME)
            check_text(pattern, "rule header", _LINE)

    @classmethod
    def write(cls, rule: HttpRule) -> RuleEntry:
        """Write a rule down."""
        return cls(rule.text, sorted(rule.require), dict(rule.headers))

    @property
    def rule(self) -> HttpRule:
        """The same, parsed.

        Raises:
            ControlError: It is none.
        """
        try:
            return parse_rule(self.text, tuple(self.require), self.headers)
        except RuleInvalid as error:
            raise ControlError(f"rule {self.text[:80]!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class CapsEntry:
    """`HttpCaps`, with times in milliseconds."""

    request_bytes: int
    response_bytes: int
    milliseconds: int
    requests: int

    def __post_init__(self) -> None:
        check_whole(self.request_bytes, "request_bytes", 0, 2**40)
        check_whole(self.response_bytes, "response_bytes", 0, 2**40)
        check_whole(self.milliseconds, "milliseconds", 1, 86_400_000)
        check_whole(self.requests, "requests", 1, 1_000_000)

    @classmethod
    def write(cls, caps: HttpCaps) -> CapsEntry:
        """Write caps down."""
        return cls(caps.request_bytes, caps.response_bytes, round(caps.seconds * 1_000), caps.requests)

    @property
    def caps(self) -> HttpCaps:
        """The same as the child keeps them."""
        return HttpCaps(self.request_bytes, self.response_bytes, self.milliseconds / 1_000, self.requests)


@dataclass(frozen=True, slots=True, repr=False)
class InjectionEntry:
    """A credential on its way into the child. Nothing of its fields stands in an error or a `repr`."""

    credential: str
    form: str
    fields: dict[str, str]

    def __post_init__(self) -> None:
        check_text(self.credential, "credential", _NAME)
        if self.form not in list(Form):
            raise ControlError("injection: its form is unknown")
        if type(self.fields) is not dict or set(self.fields) != set(FIELDS[Form(self.form)]):
            raise ControlError(f"injection: {self.form} wants exactly {sorted(FIELDS[Form(self.form)])}")
        for name, value in self.fields.items():
            if type(value) is not str or not _SECRET.fullmatch(value):
                raise ControlError(f"injection: its {name} is no text that can be used")

    @classmethod
    def write(cls, injection: Injection) -> InjectionEntry:
        """Write a credential down."""
        return cls(injection.credential, str(injection.form), dict(injection.fields))

    @property
    def injection(self) -> Injection:
        """The same as the child keeps it."""
        return Injection(self.credential, Form(self.form), dict(self.fields))


@dataclass(frozen=True, slots=True)
class AccessEntry:
    """What a call may do at one target, as `HttpAccess` has it."""

    NESTED: ClassVar[Mapping[str, type[Any]]] = {
        "allow": RuleEntry,
        "narrowed": RuleEntry,
        "caps": CapsEntry,
        "injection": InjectionEntry,
    }
    target: str
    allow: list[RuleEntry]
    narrowed: list[RuleEntry] | None
    opaque: bool
    caps: CapsEntry
    injection: InjectionEntry | None

    def __post_init__(self) -> None:
        check_text(self.target, "access target", TARGET_NAME)
        check_list(self.allow, "allow", MAX_RULES)
        if self.narrowed is not None:
            check_list(self.narrowed, "narrowed", MAX_RULES)
        check_flag(self.opaque, "opaque")
        if type(self.caps) is not CapsEntry or type(self.injection) not in (InjectionEntry, type(None)):
            raise ControlError(f"access {self.target}: caps are missing, or its injection is a list")
        # Nothing is judged behind a blind tunnel: rules there would say what nobody holds to.
        if self.opaque and (self.allow or self.injection):
            raise ControlError(f"access {self.target}: an opaque target has neither rules nor an injection")

    @classmethod
    def write(cls, access: HttpAccess) -> AccessEntry:
        """Write an access down."""
        narrowed, injection = access.narrowed, access.injection
        return cls(
            target=access.target,
            allow=[RuleEntry.write(rule) for rule in access.allow],
            narrowed=None if narrowed is None else [RuleEntry.write(rule) for rule in narrowed],
            opaque=access.opaque,
            caps=CapsEntry.write(access.caps),
            injection=None if injection is None else InjectionEntry.write(injection),
        )

    @property
    def access(self) -> HttpAccess:
        """The same as the child keeps it.

        Raises:
            ControlError: A rule cannot be read.
        """
        narrowed = None if self.narrowed is None else tuple(entry.rule for entry in self.narrowed)
        return HttpAccess(
            target=self.target,
            allow=tuple(entry.rule for entry in self.allow),
            narrowed=narrowed,
            opaque=self.opaque,
            caps=self.caps.caps,
            injection=self.injection.injection if self.injection else None,
        )


@dataclass(frozen=True, slots=True)
class DoorEntry:
    """One door of a call: an ordinary forward proxy where `target` is empty, else for that target alone."""

    target: str

    def __post_init__(self) -> None:
        if self.target != "":
            check_text(self.target, "door target", TARGET_NAME)
