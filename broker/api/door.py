"""What every rpc passes first: who calls, whether this rpc is for them, and how its errors leave.

The access rule is an option on each rpc (`(toolcrib.v1.tool).access`); an rpc without one stops the server
from starting.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from broker.api.status import abort
from broker.errors import CallError, Failed, Refused
from broker.metrics import Metrics
from broker.model import Caller, Role
from broker.request import Peer
from broker.stages.authenticate import Authenticator
from broker.stages.validate import WORKFLOW
from broker.store.records import StaleEpoch, StoreError
from broker.tenure import Tenure, taken_over
from toolcrib.v1 import options_pb2
from toolcrib.v1.reasons_pb2 import Reason

log = logging.getLogger(__name__)

AUTHORIZATION = "authorization"

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

_ROLES = {
    options_pb2.AUTHOR: {Role.AUTHOR, Role.REVIEWER, Role.OPERATOR},
    options_pb2.REVIEWER: {Role.REVIEWER},
    options_pb2.OPERATOR: {Role.OPERATOR},
    options_pb2.ORCHESTRATOR: {Role.ORCHESTRATOR},
    options_pb2.ANY_CALLER: set(Role),
    options_pb2.ANY_PERSON: {Role.AUTHOR, Role.REVIEWER, Role.OPERATOR},
}


class AccessRuleMissing(Exception):
    """An rpc of a service has no access rule; the server does not start."""


def access_rules(services: Iterable[ServiceDescriptor]) -> dict[str, frozenset[Role]]:
    """Read who may call each rpc, by full path ("/toolcrib.v1.Broker/Invoke").

    Raises:
        AccessRuleMissing: Naming every rpc without a rule.
    """
    rules: dict[str, frozenset[Role]] = {}
    missing = []
    for service in services:
        for method in service.methods:
            options: Any = method.GetOptions()
            access = options.Extensions[options_pb2.tool].access
            if access in _ROLES:
                rules[f"/{service.full_name}/{method.name}"] = frozenset(_ROLES[access])
            else:
                missing.append(f"{service.full_name}/{method.name}")
    if missing:
        raise AccessRuleMissing(f"no access rule: {', '.join(missing)}; add (toolcrib.v1.tool).access")
    return rules


def peer_of(context: Any) -> Peer:
    """Read what the channel proved, and the token beside it; nothing else can say who calls."""
    pems = context.auth_context().get("x509_pem_cert") or [b""]
    metadata = context.invocation_metadata() or ()
    return Peer(
        unverified_pem=pems[0],
        unverified_authorization=tuple(value for name, value in metadata if name == AUTHORIZATION),
    )


def handle_of(context: Any) -> str:
    """Read the workflow's handle; two of them are none that was ever given."""
    metadata = context.invocation_metadata() or ()
    return ",".join(str(value) for name, value in metadata if name == WORKFLOW)


def deadline_of(context: Any) -> float:
    """Say when the caller stops waiting, on the monotonic clock; infinity when never."""
    remaining = context.time_remaining()
    return math.inf if remaining is None else time.monotonic() + remaining


class Door:
    """Guards the broker's own services: authenticate, access rule, errors to statuses."""

    def __init__(
        self,
        authenticate: Authenticator,
        rules: dict[str, frozenset[Role]],
        metrics: Metrics,
        tenure: Tenure | None = None,
        platform_operators: Collection[str] = (),
    ) -> None:
        self._tenure = tenure
        self._platform_operators = frozenset(platform_operators)
        self._authenticate = authenticate
        self._rules = rules
        self._metrics = metrics

    def guard(
        self, path: str, serve: Callable[[RequestT, Caller], Awaitable[ResponseT]]
    ) -> Callable[[RequestT, Any], Awaitable[ResponseT]]:
        """Wrap one rpc: only those whom its rule names reach `serve`."""
        return self.guard_reading(path, lambda request, caller, _: serve(request, caller))

    def guard_reading(
        self, path: str, serve: Callable[[RequestT, Caller, str], Awaitable[ResponseT]]
    ) -> Callable[[RequestT, Any], Awaitable[ResponseT]]:
        """Wrap one rpc that brings content of calls; `serve` gets the handle of the workflow that reads."""
        allowed = self._rules[path]

        async def guarded(request: RequestT, context: Any) -> ResponseT:
            try:
                peer = peer_of(context)
                if peer.unverified_authorization:
                    await self._authenticate.prepare(peer)
                caller = self._authenticate(peer)
                _check_role(caller, allowed, path)
                if self._tenure is not None and self._tenure.over.is_set():
                    raise taken_over()
                return await serve(request, caller, handle_of(context))
            except CallError as error:
                self._metrics.refusals.labels(error.reason_name).inc()
                await abort(context, error, {})
            except StoreError as error:
                log.exception("store unavailable")
                await abort(context, self._explain(error), {})
            except grpc.aio.AbortError:
                raise
            except Exception:
                log.exception("rpc failed")
                await abort(context, Failed(Reason.REASON_UNSPECIFIED, "the broker failed; see its log"), {})

        return guarded

    def is_platform_operator(self, caller: Caller) -> bool:
        """Tell whether a caller may act on every tenant: an operator whose very identity is configured."""
        return caller.role is Role.OPERATOR and caller.identity in self._platform_operators

    def check_platform_operator(self, caller: Caller, what: str) -> None:
        """See that a caller may act on every tenant.

        Raises:
            Refused: ROLE_REQUIRED.
        """
        if not self.is_platform_operator(caller):
            raise Refused(
                Reason.REASON_ROLE_REQUIRED,
                f"{what} is for platform operators, whom server.platform_operators in the broker's "
                f"configuration names; you are {caller.identity}",
            )

    def _explain(self, error: StoreError) -> Failed:
        if not isinstance(error, StaleEpoch):
            return unavailable(error)
        if self._tenure is not None:
            self._tenure.end()
        return taken_over()


def unavailable(error: StoreError) -> Failed:
    """Say that the state cannot be read or written."""
    return Failed(
        Reason.REASON_RECORD_UNAVAILABLE,
        f"the broker's state is unavailable ({error}); nothing changed. Retry later",
        retry_after_seconds=1.0,
    )


def _check_role(caller: Caller, allowed: frozenset[Role], path: str) -> None:
    if caller.role not in allowed:
        raise Refused(
            Reason.REASON_ROLE_REQUIRED,
            f"{path.lstrip('/')} is for {', '.join(sorted(allowed))}; this certificate says {caller.role}",
        )
