"""The gRPC server: one list of doors, mutual TLS (and TLS for callers with tokens), health.

The server refuses to start while an rpc of its own services has no access rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from broker.api import (
    broker_service,
    egress_service,
    grants_service,
    operations_service,
    registry_service,
    workflows_service,
)
from broker.api.door import Door, access_rules
from broker.api.tools_door import ToolsDoor
from broker.catalogue import Catalogue
from broker.decision import Decider
from broker.grant_book import GrantBook
from broker.lever import Lever
from broker.metrics import Metrics
from broker.path import Path
from broker.settings import Server as ServerSettings
from broker.settings import SettingsInvalid, Tenant
from broker.stages.authenticate import Authenticator
from broker.store.protocol import Store
from broker.tenure import Tenure
from broker.vetting import Vetting
from broker.workflows import WorkflowBook
from sandboxes.proxy.access import HttpTarget
from toolcrib.v1 import (
    broker_pb2_grpc,
    egress_pb2_grpc,
    grants_pb2_grpc,
    operations_pb2_grpc,
    registry_pb2_grpc,
    workflows_pb2_grpc,
)

SERVICES = (
    broker_service.SERVICE,
    registry_service.SERVICE,
    grants_service.SERVICE,
    operations_service.SERVICE,
    workflows_service.SERVICE,
    egress_service.SERVICE,
)
# grpc.aio cancels at random beyond its own queue; admission sheds load long before these are reached.
MAX_PENDING = 100_000
GRACE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Doors:
    """What the services need.

    Attributes:
        platform_operators: Identities of operators who may act on every tenant.
        http_targets: What the operator declared of kind "http", by name.
        tenants: What the operator lets each tenant's tools use.
    """

    path: Path
    authenticate: Authenticator
    catalogue: Catalogue
    grants: GrantBook
    store: Store
    workflows: WorkflowBook
    decider: Decider
    lever: Lever
    vetting: Vetting
    platform_operators: frozenset[str]
    tenure: Tenure
    metrics: Metrics
    clock: Callable[[], datetime]
    http_targets: Mapping[str, HttpTarget]
    tenants: Mapping[str, Tenant]


class Server:
    """Listens for callers with client certificates, and for callers with tokens."""

    def __init__(self, settings: ServerSettings, doors: Doors, token_listen: str = "") -> None:
        self._settings = settings
        self._token_listen = token_listen
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                ("grpc.server.max_pending_requests", MAX_PENDING),
                ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
                ("grpc.so_reuseport", 0),
                # Over gRPC's own 8 KiB our stage answers, with the name of the value that is too long.
                ("grpc.max_metadata_size", 32 * 1024),
                ("grpc.absolute_max_metadata_size", 64 * 1024),
            ]
        )
        self._add(doors)

    async def start(self) -> tuple[str, str]:
        """Listen at the door for certificates, and at the one for tokens if there is to be one.

        Returns:
            Their addresses, with the port that was chosen where 0 was asked for; empty where there is none.

        Raises:
            SettingsInvalid: A certificate file cannot be read, or the address is taken.
        """
        settings = self._settings
        try:
            credentials = grpc.ssl_server_credentials(
                [(settings.private_key.read_bytes(), settings.certificate.read_bytes())],
                root_certificates=settings.client_ca.read_bytes(),
                require_client_auth=True,
            )
        except OSError as error:
            raise SettingsInvalid(f"server: {error.filename}: {error.strerror}") from error
        host = settings.listen.rpartition(":")[0]
        try:
            port = self._server.add_secure_port(settings.listen, credentials)
        except RuntimeError as error:
            raise SettingsInvalid(f"server.listen: {settings.listen} cannot be listened on") from error
        token_address = self._open_token_door()
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        return f"{host}:{port}", token_address

    def _open_token_door(self) -> str:
        """Listen for callers with tokens: gRPC cannot ask for a certificate that may be missing.

        Returns:
            The address; empty where there is no such door.

        Raises:
            SettingsInvalid: The address is taken.
        """
        settings, listen = self._settings, self._token_listen
        if not listen:
            return ""
        credentials = grpc.ssl_server_credentials(
            [(settings.private_key.read_bytes(), settings.certificate.read_bytes())]
        )
        try:
            port = self._server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            raise SettingsInvalid(f"identity.listen: {listen} cannot be listened on") from error
        return f"{listen.rpartition(':')[0]}:{port}"

    async def stop_serving(self) -> None:
        """Tell whoever asks for health that this broker takes no new calls, and will not again."""
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        """Close every channel."""
        await self._server.stop(GRACE_SECONDS)
        await asyncio.sleep(0)

    def _add(self, doors: Doors) -> None:
        door = Door(
            doors.authenticate,
            access_rules(SERVICES),
            doors.metrics,
            doors.tenure,
            doors.platform_operators,
        )
        tools = ToolsDoor(doors.path, doors.metrics)
        catalogue, grants, store = doors.catalogue, doors.grants, doors.store
        server: Any = self._server
        broker_pb2_grpc.add_BrokerServicer_to_server(
            broker_service.BrokerService(door, tools, catalogue, store, doors.workflows), server
        )
        registry_pb2_grpc.add_RegistryServicer_to_server(
            registry_service.RegistryService(door, catalogue, grants, store, doors.vetting, doors.clock),
            server,
        )
        grants_pb2_grpc.add_GrantsServicer_to_server(
            grants_service.GrantsService(door, catalogue, grants, store, doors.clock), server
        )
        operations_pb2_grpc.add_OperationsServicer_to_server(
            operations_service.OperationsService(door, doors.decider, doors.lever, store, doors.clock), server
        )
        workflows_pb2_grpc.add_WorkflowsServicer_to_server(
            workflows_service.WorkflowsService(
                door, doors.workflows, store, grants.environments, doors.clock
            ),
            server,
        )
        egress_pb2_grpc.add_EgressServicer_to_server(
            egress_service.EgressService(
                door, catalogue, grants, doors.http_targets, doors.tenants, doors.clock
            ),
            server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        server.add_generic_rpc_handlers((tools,))
