"""What a security team rotates: passwords of Vault at targets, the secret id, secrets, shared logins.

Rules of every rotation:

1. It asks with the administrator's token. The broker's session may do none of it but change a shared login.
2. What was before is made worthless only after what is new was proved, or was made by Vault itself.
3. A new value is never printed, and is in no error. What was done is told step by step (`Rotation`).
4. A request that changes something is sent once. Where its answer is lost, the error says what may have
   happened, and that the same command may be given again.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Rotation"]


@dataclass(frozen=True, slots=True)
class Rotation:
    """What was done.

    Attributes:
        subject: What was rotated.
        done: The steps, in words.
        remaining: What is left for a person to do; empty when nothing is.
    """

    subject: str
    done: tuple[str, ...]
    remaining: tuple[str, ...] = ()
