"""A secret of the key-value engine: a new version, with values that were given or are made here.

The values have to be changed at their target as well, which Vault cannot do. So the versions of before stay
readable for whoever reads a version by its number, until they are destroyed on demand.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from typing import Any

from credentials.engines.base import MIN_SECRET_LENGTH
from credentials.engines.kv import find_value_problems
from credentials.errors import Cause
from credentials.rotation import Rotation
from credentials.secret import Secret
from credentials.vault_api import VaultApi, VaultFault, take

_SIGNS = string.ascii_letters + string.digits
DEFAULT_LENGTH = 32
MAX_LENGTH = 1024


def generate_value(length: int = DEFAULT_LENGTH) -> Secret:
    """Make a value of letters and digits from the system's source of randomness.

    Raises:
        ValueError: The length is too small or too big.
    """
    if not MIN_SECRET_LENGTH <= length <= MAX_LENGTH:
        raise ValueError(f"a value has {MIN_SECRET_LENGTH} to {MAX_LENGTH} characters, not {length}")
    return Secret("".join(secrets.choice(_SIGNS) for _ in range(length)))


async def rotate_values(
    api: VaultApi, token: Secret, path: tuple[str, str], values: Mapping[str, Secret], *, destroy_older: bool
) -> Rotation:
    """Write a new version of a secret: these values, and the other keys as they are.

    Args:
        api: With the administrator's rights.
        token: The administrator's token.
        path: The engine's mount and the secret's name.
        values: New values by key.
        destroy_older: Destroy every version of before, for good.

    Raises:
        VaultFault: Vault does not have the secret, somebody else wrote it meanwhile, a value is unfit, or
            Vault gave no answer.
    """
    mount, name = path
    before, version = await _read_newest(api, token, mount, name)
    after = before | {key: value.reveal() for key, value in values.items()}
    same = sorted(key for key, value in values.items() if before.get(key) == value.reveal())
    if same:
        raise VaultFault(f"{', '.join(same)}: the new value is the old one", Cause.INVALID)
    problems = find_value_problems(after)
    if problems:
        raise VaultFault("; ".join(problems), Cause.INVALID)
    body = {"data": after, "options": {"cas": version}}
    answer = await api.ask("post", f"{mount}/data/{name}", token, body, repeatable=False)
    written = int(take(answer, "data", "version")["version"])
    done = [f"version {written} has new values of {', '.join(sorted(values))}; calls that begin now get them"]
    if not destroy_older:
        return Rotation(f"secret {name}", tuple(done), (_change_there(values), _destroy_later(name)))
    older = await _list_versions(api, token, f"{mount}/metadata/{name}", written)
    if older:
        await api.ask("post", f"{mount}/destroy/{name}", token, {"versions": older})
    done.append(f"{len(older)} older {'version' if len(older) == 1 else 'versions'} destroyed")
    return Rotation(f"secret {name}", tuple(done), (_change_there(values),))


async def _read_newest(api: VaultApi, token: Secret, mount: str, name: str) -> tuple[dict[str, Any], int]:
    try:
        data = take(await api.ask("get", f"{mount}/data/{name}", token), "data", "data", "metadata")
    except VaultFault as fault:
        if fault.cause is not Cause.UNKNOWN:
            raise
        text = (
            f"it has no secret {name}, or its newest version is deleted: vault kv put -mount={mount} {name}"
        )
        raise VaultFault(text, Cause.UNKNOWN) from fault
    return dict(data["data"] or {}), int(data["metadata"]["version"])


async def _list_versions(api: VaultApi, token: Secret, path: str, below: int) -> Sequence[int]:
    versions = take(await api.ask("get", path, token), "data", "versions")["versions"]
    return [int(number) for number, one in versions.items() if int(number) < below and not one["destroyed"]]


def _change_there(values: Mapping[str, Secret]) -> str:
    return f"change {', '.join(sorted(values))} at the target too: Vault cannot"


def _destroy_later(name: str) -> str:
    return f"the versions of before can be read until they are destroyed: rotate kv {name} --destroy-older"
