"""What on the server differs from what it should hold, is too broad, or is missing.

The broker's own session sees what it needs to see: its token, its policy, the token role, tools' roles and
policies, the tenants' keys. An administrator's token sees more: the login role, what nobody needs any more,
and whether Vault's audit can be compared with the broker's record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from credentials.audit_settings import DEVICE_OPTIONS
from credentials.bootstrap.blueprint import Wish, list_data_keys
from credentials.bootstrap.items import read_if_there
from credentials.bootstrap.plan import Change, Kind, engine_of, list_policy_names, make_plan
from credentials.engines import ENGINES
from credentials.errors import Cause
from credentials.lease import CredentialWanted
from credentials.policies import BROKER_POLICY_NAME, broker_policy, heading, tool_policy_name
from credentials.role_check import BOOTSTRAP, Finding, check_token_role, find_unfit
from credentials.secret import Secret
from credentials.vault_api import VaultApi, VaultFault, take

_SHOWN_LINES = 3


async def review_as_broker(api: VaultApi, session: Secret, wish: Wish) -> list[Finding]:
    """Look with the rights that a call has.

    Raises:
        VaultFault: Vault gave no answer.
    """
    findings = await _check_own_token(api, session)
    findings += await _check_own_policy(api, session, wish)
    findings += await check_token_role(api, session)
    for engine, role in wish.all_roles:
        findings += await find_unfit(api, session, wish.mounts, CredentialWanted(role, engine, role))
    return findings + await check_data_keys(api, session, wish.tenants)


async def review_as_administrator(api: VaultApi, token: Secret, wish: Wish) -> list[Finding]:
    """Look with an administrator's rights, at what the session cannot see.

    Raises:
        VaultFault: Vault gave no answer, or denies the token a look.
    """
    plan = await make_plan(api, token, wish)
    findings = [_describe(change) for change in plan.changes]
    findings += plan.problems
    findings += await _check_secret_ids(api, token, wish)
    findings += await _find_unneeded(api, token, wish)
    return findings + await _check_audit(api, token)


async def check_data_keys(api: VaultApi, session: Secret, tenants: Sequence[str]) -> list[Finding]:
    """See that each tenant has a key that wraps its data keys, which nobody can take out.

    Raises:
        VaultFault: Vault gave no answer.
    """
    findings = []
    for item in list_data_keys(tenants):
        current = await item.read(api, session)
        if current is None:
            text = "it is missing: the tenant's writes are refused"
            findings.append(Finding(item.subject, text, f"{BOOTSTRAP}, or: vault write -f {item.path}"))
            continue
        for name, (before, after) in item.compare(current).items():
            text = f"{name} is {before!r} and should be {after!r}"
            findings.append(Finding(item.subject, text, f"look at {item.path} and decide"))
    return findings


# --- the session ---
async def _check_own_token(api: VaultApi, session: Secret) -> list[Finding]:
    data = take(await api.ask("get", "auth/token/lookup-self", session), "data", "policies")
    subject, remedy = "the broker's session", "correct the role by which the broker logs in, docs/vault.md"
    problems = []
    policies = sorted({*data["policies"], *(data.get("identity_policies") or ())})
    if policies != [BROKER_POLICY_NAME]:
        named = ", ".join(policies)
        problems.append(f"it has the policies {named}, and may have {BROKER_POLICY_NAME} and no other")
    if not data.get("period"):
        problems.append("it has no period: it ends in the middle of calls, or outlives the broker for long")
    if data.get("type") != "service":
        problems.append("it is no service token: its children could not be ended")
    if data.get("num_uses") or data.get("explicit_max_ttl"):
        problems.append("it ends by its number of uses or its greatest age, in the middle of calls")
    return [Finding(subject, problem, remedy) for problem in problems]


async def _check_own_policy(api: VaultApi, session: Secret, wish: Wish) -> list[Finding]:
    subject = f"Vault's policy {BROKER_POLICY_NAME}"
    try:
        current = await read_if_there(api, session, f"sys/policies/acl/{BROKER_POLICY_NAME}")
    except VaultFault as fault:
        if fault.cause is not Cause.DENIED:
            raise
        return [Finding(subject, "it is not ours: it does not even let the broker read it", BOOTSTRAP)]
    if current is None:
        return [Finding(subject, "it is missing", BOOTSTRAP)]
    theirs = str(current.get("policy", "")).strip()
    present = {name for name in ENGINES if heading(name) in f"{theirs}\n"}
    with_present = replace(wish, engines=wish.engines | present)
    ours = broker_policy(with_present.used_engines, wish.mounts).strip()
    if theirs != ours:
        return [Finding(subject, _compare_texts(theirs, ours), BOOTSTRAP)]
    unneeded = sorted(present - {engine.name for engine in wish.used_engines})
    if not unneeded:
        return []
    text = f"it names engines that no registered tool wants: {', '.join(unneeded)}"
    remedy = "fine while their tools are not registered yet; else delete their tools' policies and bootstrap"
    return [Finding(subject, text, remedy, is_warning=True)]


def _compare_texts(theirs: str, ours: str) -> str:
    """Say what a policy has and should not, and what it lacks, by its first lines."""
    their_lines, our_lines = ([line.strip() for line in text.splitlines()] for text in (theirs, ours))
    more = [line for line in their_lines if line and line not in our_lines]
    less = [line for line in our_lines if line and line not in their_lines]
    parts = []
    if more:
        parts.append(f"it is too broad, or other than ours: {_cut(more)}")
    if less:
        parts.append(f"it lacks: {_cut(less)}")
    return "; ".join(parts) or "its lines stand in another order than ours"


def _cut(lines: list[str]) -> str:
    more = f" … and {len(lines) - _SHOWN_LINES} more lines" if len(lines) > _SHOWN_LINES else ""
    return " ¶ ".join(lines[:_SHOWN_LINES]) + more


# --- what only an administrator sees ---
def _describe(change: Change) -> Finding:
    if change.kind is Kind.ADD:
        return Finding(change.item.subject, "it is missing", BOOTSTRAP)
    texts = []
    for name, (before, after) in change.fields.items():
        if name == "policy":
            texts.append(_compare_texts(str(before), str(after)))
        else:
            texts.append(f"{name} is {shorten(before)} and should be {shorten(after)}")
    return Finding(change.item.subject, "; ".join(texts), BOOTSTRAP)


def shorten(value: Any) -> str:
    """Spell a value in a line; long statements are cut."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}…"


async def _check_secret_ids(api: VaultApi, token: Secret, wish: Wish) -> list[Finding]:
    """See that a stolen secret id is not good for ever and from everywhere."""
    if wish.login.method != "approle":
        return []
    role = await read_if_there(api, token, wish.login.path)
    if role is None:
        return []  # the plan says it
    bounds = ("secret_id_ttl", "secret_id_bound_cidrs", "token_bound_cidrs")
    if any(role.get(name) for name in bounds):
        return []
    remedy = "give the broker's addresses with --cidr, or set secret_id_ttl and rotate"
    text = "a stolen secret id logs in for ever and from everywhere"
    return [Finding(f"login role {wish.login.role}", text, remedy)]


async def _find_unneeded(api: VaultApi, token: Secret, wish: Wish) -> list[Finding]:
    needed = {tool_policy_name(engine, role) for engine, role in wish.all_roles}
    return [
        Finding(
            f"policy {name}",
            "no registered tool and no named bundle needs it",
            f"when its tool is gone: vault policy delete {name}",
            is_warning=True,
        )
        for name in await list_policy_names(api, token)
        if engine_of(name) and name not in needed
    ]


async def _check_audit(api: VaultApi, token: Secret) -> list[Finding]:
    try:
        devices = await read_if_there(api, token, "sys/audit") or {}
    except VaultFault as fault:
        if fault.cause is not Cause.DENIED:
            raise
        text = "this token may not see the audit devices, so nothing is known of them"
        return [Finding("Vault's audit", text, "look with a token that has sudo on sys/audit", True)]
    if not devices:
        text = "Vault keeps no audit: nobody can see for which call a credential was made"
        return [Finding("Vault's audit", text, "enable an audit device")]
    wanted = dict(DEVICE_OPTIONS)
    if any(wanted.items() <= (device.get("options") or {}).items() for device in devices.values()):
        return []
    options = " ".join(f"{name}={value}" for name, value in wanted.items())
    text = "no device shows what is compared with the broker's record"
    return [Finding("Vault's audit", text, f"give a device the option {options}", is_warning=True)]
