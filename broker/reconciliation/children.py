"""What a child token may do, by its policy's name: from the definitions that the policies are made of."""

from __future__ import annotations

import re

from broker.reconciliation.vault_log import Happening
from credentials.engines import ENGINES
from credentials.policies import TOOL_POLICY_PREFIX

_PATH = re.compile(r'^path "([^"]+)"', re.MULTILINE)


def name_role(policy: str) -> tuple[str, str]:
    """Take engine and role from a tool policy's name; no engine's name has a "-"."""
    engine, _, role = policy.removeprefix(TOOL_POLICY_PREFIX).partition("-")
    return engine, role


def find_other_use(use: Happening) -> str:
    """Say what is wrong with what a child did; empty when it went where its role's credentials are."""
    if use.wrapped:
        return f"{use.path}: asked for a wrapped answer, which hides what it got from the log"
    for policy in use.policies:
        engine, role = name_role(policy)
        kind = ENGINES.get(engine)
        if kind is None:
            return f'{use.path}: with {policy}, and there is no engine "{engine}"'
        mount = use.mount or use.path.partition("/")[0]
        if use.mount_type in ("", *kind.plugins) and any(
            _matches(pattern, use.path)
            for pattern in _PATH.findall(kind.child_policy(dict.fromkeys(kind.plugins, mount), role))
        ):
            return ""
    return f"{use.path}: a token for {', '.join(use.policies)} asked for this"


def _matches(pattern: str, path: str) -> bool:
    """Compare with a path of a policy: "+" is one part, "*" at the end is anything."""
    text = re.escape(pattern).replace(r"\+", "[^/]+")
    if text.endswith(r"\*"):
        text = f"{text[:-2]}.*"
    return re.fullmatch(text, path) is not None
