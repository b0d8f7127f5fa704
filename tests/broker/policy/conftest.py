"""The shop's real contracts, and a desk that asks grants about calls to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.model import Call, Caller, Role
from broker.policy.grants import Explanation, GrantSet, GrantsInvalid, Question, compile_grants
from tools.catalogue import ToolVersion, load_version
from tools.source import compile_bundle

SHOP = Path(__file__).parents[3] / "tools" / "bundles" / "shop"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ENVIRONMENTS = ("dev", "prod")
REFUND = "shop.v1.Orders/IssueRefund"
DRAFT = "shop.v1.Orders/CreateRefundDraft"
LOOKUP = "shop.v1.Orders/LookupOrder"


def write_permit(
    policy_id: str,
    when: str = "",
    *,
    annotations: str = '@targets("orders-db")',
    agent: str = "desk",
    method: str = REFUND,
    environment: str = "dev",
) -> str:
    """Write a permit for one agent, tool and environment."""
    where = f'resource == Environment::"{environment}"'
    scope = f'principal == Agent::"{agent}", action == Action::"{method}", {where}'
    return f'@id("{policy_id}")\n{annotations}\npermit ({scope})' + (
        f"\nwhen {{ {when} }};\n" if when else ";\n"
    )


def write_forbid(policy_id: str, when: str, scope: str = "principal, action, resource") -> str:
    """Write a forbid; its scope covers everything unless told."""
    return f'@id("{policy_id}")\nforbid ({scope})\nwhen {{ {when} }};\n'


@dataclass(frozen=True)
class Desk:
    """The agent "desk" of tenant "acme", and what grants say to its calls."""

    version: ToolVersion = field(repr=False)
    agent: str = "desk"

    def named(self, agent: str) -> Desk:
        return replace(self, agent=agent)

    def compile(self, text: str, destinations: str = "") -> GrantSet:
        files = {"shop.cedar": text} | ({"destinations.toml": destinations} if destinations else {})
        return compile_grants(files, tuple(self.version.contracts.values()), ENVIRONMENTS, "acme")

    def find_wrong(self, text: str, destinations: str = "") -> Mapping[str, str]:
        """Compile what must not compile; descriptions by place."""
        with pytest.raises(GrantsInvalid) as caught:
            self.compile(text, destinations)
        found: dict[str, str] = {}
        for violation in caught.value.violations:
            found[violation.field] = f"{found.get(violation.field, '')}{violation.description}; "
        return found

    def refund(
        self, minor_units: int = 1250, currency: str = "EUR", account: str = "", **changes: object
    ) -> Call:
        text = (
            f'{{"order_id": "A-1042", "payout_account": "{account}", '
            f'"amount": {{"minor_units": "{minor_units}", "currency": "{currency}"}}}}'
        )
        return self.call(REFUND, text, **changes)

    def lookup(self, **changes: object) -> Call:
        return self.call(LOOKUP, '{"order_id": "A-1042"}', **changes)

    def call(self, method: str, arguments: str, **changes: object) -> Call:
        contract = self.version.contracts[method]
        message = contract.parse_request_json(arguments)
        call = Call(
            call_id="call-1",
            caller=Caller("acme", self.agent, Role.AGENT, "", f"spiffe://acme/agent/{self.agent}"),
            environment="dev",
            workflow="",
            key="key-1",
            version=self.version,
            contract=contract,
            message=message,
            canonical=contract.canonical(message),
            digest="",
            deadline=0.0,
            started=NOW,
        )
        return replace(call, **changes)  # type: ignore[arg-type]

    def explain(self, grants: GrantSet, call: Call, now: datetime = NOW) -> Explanation:
        return grants.explain(Question.of(call), now)


@pytest.fixture(scope="session")
def shop() -> ToolVersion:
    source = compile_bundle(SHOP)
    return load_version(source.descriptor_set, source.manifest_yaml, "sha256:" + "0" * 64)


@pytest.fixture(scope="session")
def desk(shop: ToolVersion) -> Desk:
    return Desk(shop)
