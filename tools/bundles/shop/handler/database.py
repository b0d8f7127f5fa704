"""One transaction on the shop's database, with the login that was minted for this call.

Rules:
1. What fails before COMMIT is sent did not happen: the failure says so (`effect="none"`).
2. What fails while COMMIT is on its way may have happened: `effect="unknown"`, and nobody guesses.
3. A message names the error's SQLSTATE, never its text: that can hold rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import asyncpg

from toolcrib.handler import Failure, Login

if TYPE_CHECKING:
    from toolcrib.handler import Context

TARGET = "orders-db"
_CONNECT_SECONDS = 3.0
# Kept back from the deadline, so that the answer still gets out.
_RESERVE_SECONDS = 0.5
# Of these the same call may well succeed a moment later.
_TRANSIENT = (
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
)
# With these a server says for certain that a COMMIT became a rollback.
_ROLLED_BACK = (asyncpg.IntegrityConstraintViolationError, asyncpg.TransactionRollbackError)


@contextlib.asynccontextmanager
async def open_transaction(context: Context, credential: str, *, readonly: bool) -> AsyncIterator[Any]:
    """Connect, begin, yield the connection and commit; the connection is closed on every path.

    Args:
        context: The call's context.
        credential: Name of the login in the manifest.
        readonly: Begin READ ONLY, so that not even a mistake of ours writes.

    Raises:
        Failure: DATABASE_UNAVAILABLE, DATABASE_BUSY, DATABASE_DENIED, DATABASE_ERROR or COMMIT_UNKNOWN.
    """
    connection = await _connect(context, credential, readonly=readonly)
    try:
        # A reader sees one state of the shop; a writer sees the newest one once it holds its lock.
        isolation = "repeatable_read" if readonly else "read_committed"
        transaction = connection.transaction(isolation=isolation, readonly=readonly)
        try:
            await transaction.start()
            yield connection
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise _explain(error) from error
        await _commit(transaction)
        with contextlib.suppress(asyncpg.PostgresError, OSError, TimeoutError):
            await connection.close(timeout=1)
    finally:
        # Closing without COMMIT is a rollback; on a closed connection this does nothing.
        connection.terminate()


async def _connect(context: Context, credential: str, *, readonly: bool) -> Any:
    target = context.targets[TARGET]
    login = context.credential(credential, Login)
    seconds = max(context.remaining_seconds - _RESERVE_SECONDS, 0.1)
    millis = str(int(seconds * 1000))
    try:
        return await asyncpg.connect(
            host=target.socket_dir,
            port=int(target.settings.get("port", "5432")),
            user=login.username,
            password=login.password,
            database=target.settings["database"],
            ssl=False,
            timeout=min(seconds, _CONNECT_SECONDS),
            server_settings={
                "application_name": "toolcrib-shop",
                "default_transaction_read_only": "on" if readonly else "off",
                "statement_timeout": millis,
                "lock_timeout": millis,
                "idle_in_transaction_session_timeout": millis,
            },
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise Failure(
            "DATABASE_UNAVAILABLE",
            f"The shop's database took no connection ({_name(error)}); nothing was changed.",
            retryable=True,
            effect="none",
        ) from error


async def _commit(transaction: Any) -> None:
    try:
        await transaction.commit()
    except _ROLLED_BACK as error:
        raise _explain(error) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise Failure(
            "COMMIT_UNKNOWN",
            f"The database did not say whether it committed ({_name(error)}).",
            effect="unknown",
        ) from error


def _explain(error: Exception) -> Failure:
    """Turn an error from before the commit into a failure that changed nothing."""
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        code, message = "DATABASE_DENIED", "The call's login lacks a right that the tool needs"
    elif isinstance(error, _TRANSIENT):
        code, message = "DATABASE_BUSY", "The shop's database did not finish in time"
    else:
        code, message = "DATABASE_ERROR", "The shop's database refused a statement"
    return Failure(
        code,
        f"{message} ({_name(error)}); nothing was changed.",
        retryable=isinstance(error, (*_TRANSIENT, OSError)),
        effect="none",
    )


def _name(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or type(error).__name__
