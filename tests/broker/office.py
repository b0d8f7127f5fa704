"""An assistant's office on the whole way of a call: pages, notes, contacts, mail, money; and who was reached.

What the tools do is here, in the process: they answer what `Office` holds, and note every destination that
they were called with. Nothing reaches anything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from broker.api.broker_service import BrokerService
from broker.api.door import Door, access_rules
from broker.api.workflows_service import WorkflowsService
from broker.catalogue import Catalogue
from broker.errors import CallError
from broker.metrics import Metrics
from broker.model import Answer, Caller, Role
from broker.policy.files import digest_files
from broker.request import Peer, Request
from broker.server import SERVICES
from broker.stages.validate import ENVIRONMENT, KEY, WORKFLOW
from broker.store.memory_state import MemoryState
from broker.store.records import AuditEvent, GrantFiles, VersionRow
from sandboxes.outcome import OutcomeKind, RawArtefact, RawOutcome
from tests.broker.bench import IMAGE, Bench, now
from tests.broker.workshop import MoodyStore, Workshop
from toolcrib.handler.v1 import handler_pb2
from toolcrib.v1 import broker_pb2, workflows_pb2
from tools.catalogue import ToolVersion, load_version
from tools.source import BundleSource, compile_bundle

OFFICE = Path(__file__).parents[1] / "bundles" / "office"
SERVICE = "office.v1.Office"
ASSISTANT = Caller("shop", "assistant", Role.AGENT, "", "spiffe://x/tenant/shop/agent/assistant")
COLLEAGUE = Caller("shop", "colleague", Role.AGENT, "", "spiffe://x/tenant/shop/agent/colleague")
FRONT = Caller("shop", "front", Role.ORCHESTRATOR, "", "spiffe://x/tenant/shop/orchestrator/front")
READS = ("FetchPage", "Search", "ReadNote", "ReadLedger", "LookUpContact", "LookUpCard", "Repeat")
WRITES = ("AddContact", "SendMail", "Pay")
GRANTS = "".join(
    f"""
@id("{agent}-{environment}")
permit (
    principal == Agent::"{agent}",
    action in [{", ".join(f'Action::"{SERVICE}/{method}"' for method in (*READS, *WRITES))}],
    resource == Environment::"{environment}"
);
"""
    for agent in ("assistant", "colleague")
    for environment in ("dev", "prod")
)
DESTINATIONS = """
[[destination]]
value = "https://docs.example"
match = "host"

[[destination]]
value = "boss@office.example"

[[destination]]
value = "iban:DE89370400440532013000"
"""
LISTED = {"boss@office.example", "iban:DE89370400440532013000"}


_registered: list[tuple[Catalogue, MemoryState]] = []


@lru_cache
def office_source() -> BundleSource:
    """Compile the office once."""
    return compile_bundle(OFFICE)


@dataclass
class Desk:
    """What the tools hold and what they were asked.

    Attributes:
        texts: What a tool says, by "METHOD key": the page's URL, the note's id, the query.
        contacts: E-mail and account by name.
        reached: Every destination that a tool was called with.
        files: What ReadLedger gives back beside its text.
        failing: Methods that fail, with their words.
    """

    texts: dict[str, str] = field(default_factory=dict)
    contacts: dict[str, tuple[str, str]] = field(default_factory=dict)
    reached: list[str] = field(default_factory=list)
    files: tuple[RawArtefact, ...] = ()
    failing: dict[str, str] = field(default_factory=dict)

    def answer(self, method: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a tool does."""
        self.reached += [request[name] for name in ("url", "email", "account") if name in request]
        self.reached += request.get("to", [])
        if method in ("FetchPage", "ReadNote", "ReadLedger"):
            return {"text": self.texts.get(f"{method} {next(iter(request.values()))}", "nothing new")}
        if method == "Search":
            return {"hits": [{"title": self.texts.get(f"Search {request['query']}", "nothing found")}]}
        if method == "AddContact":
            self.contacts[request["name"]] = (request["email"], "")
        if method == "LookUpContact":
            email, account = self.contacts.get(request["name"], ("", ""))
            return {"email": email, "account": account}
        if method == "LookUpCard":
            return {"home_page": self.texts.get(f"LookUpCard {request['name']}", "")}
        return {"address": request["address"].strip().lower()} if method == "Repeat" else {}


class Office(Workshop):
    """The whole way, with the office's tools beside the shop's."""

    environments = ("dev", "prod")

    def __init__(self, bench: Bench, store: MoodyStore) -> None:
        super().__init__(bench, store)
        self.caller, self.desk, self.tool = ASSISTANT, Desk(), self.work
        self._keys = (f"k{number}" for number in itertools.count())
        authenticate: Any = self
        door = Door(authenticate, access_rules(SERVICES), Metrics())
        tools: Any = None
        self.broker = BrokerService(door, tools, self.catalogue, store, self.workflows)
        self.flows = WorkflowsService(door, self.workflows, store, self.environments, now)

    def __call__(self, _peer: Peer) -> Caller:
        """Stand for the authenticator of the doors."""
        return self.caller

    @property
    def version(self) -> ToolVersion:
        """The office's tools."""
        return self.catalogue.resolve("shop", f"{SERVICE}/ReadNote", "stable")

    async def work(self, start: handler_pb2.Start) -> RawOutcome:
        """Run a tool."""
        method, contract = start.method.rpartition("/")[2], self.version.contracts[start.method]
        request = MessageToDict(contract.parse_request(start.request), preserving_proto_field_name=True)
        result = self.desk.answer(method, request)
        if method in self.desk.failing:
            failure = handler_pb2.Failure(
                code="broken", message=self.desk.failing[method], effect=handler_pb2.EFFECT_NONE
            )
            return RawOutcome(OutcomeKind.FAILURE, failure=failure)
        files = self.desk.files if method == "ReadLedger" else ()
        message = ParseDict(result, _make(contract.response_descriptor))
        return RawOutcome(OutcomeKind.RESULT, response=message.SerializeToString(), artefacts=files)

    async def ask(
        self, method: str, *, key: str = "", handle: str = "", environment: str = "", **request: Any
    ) -> Answer:
        """Call a tool; a write gets a key where none is given."""
        contract = self.version.contracts[f"{SERVICE}/{method}"]
        named = {
            KEY: key or (next(self._keys) if method in WRITES else ""),
            WORKFLOW: handle,
            ENVIRONMENT: environment,
        }
        raw = ParseDict(request, _make(contract.request_descriptor)).SerializeToString()
        metadata = {name: value for name, value in named.items() if value}
        return await self.path.answer(Request(Peer(b""), contract.method, raw, math.inf, metadata=metadata))

    async def read(self, method: str, **request: Any) -> dict[str, Any]:
        """Call a tool and read its answer."""
        return read_answer(await self.ask(method, **request))

    async def reason(self, method: str, **request: Any) -> str:
        """Call a tool; "OK" or the reason."""
        try:
            await self.ask(method, **request)
        except CallError as error:
            return error.reason_name
        return "OK"

    async def open_workflow(
        self, agent: str = "assistant", environment: str = "dev", seconds: int = 0, by: Caller = FRONT
    ) -> str:
        """Let the orchestrator open a workflow; its handle."""
        caller, self.caller = self.caller, by
        try:
            opened = await self.flows.OpenWorkflow(
                workflows_pb2.OpenWorkflowRequest(agent=agent, environment=environment, ttl_seconds=seconds),
                Channel(),
            )
        finally:
            self.caller = caller
        return str(opened.handle)

    async def get_call(self, call_id: str, handle: str = "") -> broker_pb2.GetCallResponse:
        """Read a call as the caller."""
        return await self.broker.GetCall(broker_pb2.GetCallRequest(call_id=call_id), Channel(handle))

    async def get_file(self, call_id: str, name: str, handle: str = "") -> bytes:
        """Read a file as the caller."""
        request = broker_pb2.GetArtefactRequest(call_id=call_id, name=name)
        answer = await self.broker.GetArtefact(request, Channel(handle))
        return bytes(answer.content)


class Ended(Exception):
    """An rpc that was ended with a status; the text is the status's message."""


class Channel:
    """What a door knows of a caller's channel."""

    def __init__(self, handle: str = "") -> None:
        self._metadata = ((WORKFLOW, handle),) if handle else ()

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return self._metadata

    async def abort(self, code: Any, message: str, _trailers: object = ()) -> None:
        raise Ended(f"{code.name}: {message}")


def read_answer(answer: Answer) -> dict[str, Any]:
    """Read an answer as JSON's values."""
    message = answer.contract.parse_result(answer.result)
    return dict(MessageToDict(message, preserving_proto_field_name=True))


async def open_office(kind: type[Office] = Office, at: Callable[[], datetime] = now) -> Office:
    """Open an office on a store in memory, with its grants and its list of destinations."""
    store = MoodyStore()
    bench = Bench(store, await _register(store))
    bench.workflows.clock = at
    office = kind(bench, store)
    event = AuditEvent("test", "shop", "", now())
    files = {"office.cedar": GRANTS, "destinations.toml": DESTINATIONS}
    await store.apply_grants("shop", GrantFiles(files, digest_files(files)), "", event)
    await office.grants.refresh("shop")
    return office


async def register(store: MoodyStore, source: BundleSource) -> Catalogue:
    """Register a bundle in a store, as the version to use."""
    version = load_version(source.descriptor_set, source.manifest_yaml, IMAGE)
    row = VersionRow(
        "shop",
        version.bundle,
        version.version,
        version.digest,
        "USABLE",
        source.descriptor_set,
        source.manifest_yaml,
        IMAGE,
        "ada",
        now(),
        "rob",
        now(),
    )
    event = AuditEvent("test", "shop", "", now())
    await store.put_version(row, event)
    await store.move_alias("shop", version.bundle, "stable", version.version, event)
    catalogue = Catalogue(store)
    await catalogue.load()
    return catalogue


async def _register(store: MoodyStore) -> Catalogue:
    """Register the office's tools; they are read only once."""
    if not _registered:
        _registered.append((await register(store, office_source()), store.state))
    catalogue, state = _registered[0]
    store.state.versions, store.state.aliases = dict(state.versions), dict(state.aliases)
    return catalogue


class MovedClock:
    """The time, moved on by a test."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def _make(descriptor: Any) -> Message:
    return GetMessageClass(descriptor)()
