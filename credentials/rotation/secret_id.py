"""The broker's secret id: a new one made, proved, written to its file, and only then the others destroyed.

After a crash at any line the file holds a secret id that logs in. What was made and never written is
destroyed by the next rotation; the session of the proof ends with its period. A running broker reads the
file at its next login; its session stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from credentials.errors import Cause
from credentials.logins import read_token
from credentials.policies import BROKER_ROLE
from credentials.rotation import Rotation
from credentials.rotation.private_file import replace_private_file
from credentials.secret import Secret
from credentials.vault_api import VaultApi, VaultFault, take

_MADE_BY = '{"made_by": "toolcrib credentials rotate"}'


class FileNotWritten(Exception):
    """The new secret id could not be written to its file, and was destroyed."""


@dataclass(frozen=True, slots=True)
class BrokerLogin:
    """Where the broker's secret id is.

    Attributes:
        file: What the broker reads it from.
        mount: Of AppRole, below auth/.
    """

    role_id: Secret
    file: Path
    mount: str = "approle"
    role: str = BROKER_ROLE

    @property
    def path(self) -> str:
        """Where Vault keeps the role."""
        return f"auth/{self.mount}/role/{self.role}"


async def list_secret_ids(api: VaultApi, token: Secret, login: BrokerLogin) -> list[str]:
    """List the accessors of the role's secret ids.

    Raises:
        VaultFault: Vault does not have the role, or gave no answer.
    """
    try:
        return list(take(await api.ask("list", f"{login.path}/secret-id", token), "data", "keys")["keys"])
    except VaultFault as fault:
        if fault.cause is Cause.UNKNOWN and "does not exist" not in str(fault):
            return []
        raise


async def rotate_secret_id(api: VaultApi, token: Secret, login: BrokerLogin) -> Rotation:
    """Make, prove and write a new secret id; destroy all others of the role.

    Raises:
        VaultFault: Vault refused something, or gave no answer. The file's secret id logs in.
        FileNotWritten: The file is what it was.
    """
    older = await list_secret_ids(api, token, login)
    body = {"metadata": _MADE_BY}
    made = take(
        await api.ask("post", f"{login.path}/secret-id", token, body, repeatable=False),
        "data",
        "secret_id",
        "secret_id_accessor",
    )
    secret_id, accessor = Secret(made["secret_id"]), str(made["secret_id_accessor"])
    try:
        await _prove(api, login, secret_id)
        replace_private_file(login.file, secret_id)
    except (VaultFault, OSError) as error:
        await _destroy(api, token, login, [accessor])
        if isinstance(error, VaultFault):
            text = f"the new secret id does not log in from here, and was destroyed: {error}"
            raise VaultFault(text, error.cause) from error
        text = f"{login.file}: cannot be written ({error.strerror}); the new secret id was destroyed"
        raise FileNotWritten(text) from error
    await _destroy(api, token, login, older)
    return Rotation(
        f"secret id of {login.role}",
        (
            "a new secret id was made, and logs in",
            f"{login.file} holds it; a running broker reads it at its next login",
            f"{len(older)} older destroyed",
        ),
    )


async def _prove(api: VaultApi, login: BrokerLogin, secret_id: Secret) -> None:
    """Log in with it, as the broker will, and end that session at once."""
    body = {"role_id": login.role_id.reveal(), "secret_id": secret_id.reveal()}
    session = read_token(await api.ask("post", f"auth/{login.mount}/login", None, body))
    await api.revoke_session(session.value)


async def _destroy(api: VaultApi, token: Secret, login: BrokerLogin, accessors: Sequence[str]) -> None:
    for accessor in accessors:
        body = {"secret_id_accessor": accessor}
        try:
            await api.ask("post", f"{login.path}/secret-id-accessor/destroy", token, body)
        except VaultFault as fault:
            if "failed to find accessor entry" not in str(fault):  # it ended by its own time meanwhile
                raise
