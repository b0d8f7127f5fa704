"""What a child token did is compared with what its policy is for, also where that is in two mounts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.reconciliation.children import find_other_use
from broker.reconciliation.vault_log import Happening, What
from credentials.policies import tool_policy_name


@pytest.mark.parametrize(
    ("path", "kind", "is_own"),
    [
        ("team/kv/data/oauth2/crm", "kv", True),
        ("team/sign/sign/oauth2_crm", "transit", True),
        ("team/kv/data/oauth2/other", "kv", False),
        ("team/kv/data/crm", "kv", False),
        ("team/sign/sign/crm", "transit", False),
        ("team/pki/data/oauth2/crm", "pki", False),
    ],
)
def test_knows_what_a_child_of_two_mounts_may_ask(path: str, kind: str, is_own: bool):
    mount = "/".join(path.split("/")[:2])
    policy = tool_policy_name("oauth2", "crm")
    use = Happening(
        What.USED, 1, datetime.now(UTC), policies=(policy,), path=path, mount=mount, mount_type=kind
    )
    assert (find_other_use(use) == "") is is_own
