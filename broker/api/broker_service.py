"""`toolcrib.v1.Broker`: find tools, call them as JSON, read what became of a call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from broker.api.door import Door, deadline_of, peer_of
from broker.api.messages import bad_page, call_message, page_size, slice_page, tool_message
from broker.api.tools_door import ToolsDoor, read, trailers
from broker.catalogue import STABLE, Catalogue
from broker.errors import Refused
from broker.labels import UNTRUSTED, label_record
from broker.model import Artefact, Caller, CallRecord, CallState, Role
from broker.request import Request
from broker.stages.validate import ENVIRONMENT, KEY, VERSION, WORKFLOW
from broker.store.protocol import Store
from broker.workflow_records import WorkflowName
from broker.workflows import WorkflowBook
from toolcrib.v1 import broker_pb2
from toolcrib.v1.reasons_pb2 import Reason
from tools.errors import Violation

SERVICE = broker_pb2.DESCRIPTOR.services_by_name["Broker"]


class BrokerService:
    """The door for agents beside the tools' own services."""

    def __init__(
        self, door: Door, tools: ToolsDoor, catalogue: Catalogue, store: Store, workflows: WorkflowBook
    ) -> None:
        self._workflows = workflows
        self._tools = tools
        self._catalogue = catalogue
        self._store = store
        base = f"/{SERVICE.full_name}/"
        self.ListTools = door.guard(base + "ListTools", self._list_tools)
        self.DescribeTool = door.guard(base + "DescribeTool", self._describe_tool)
        self.GetArtefact = door.guard_reading(base + "GetArtefact", self._get_artefact)
        self.GetCall = door.guard_reading(base + "GetCall", self._get_call)
        self.ListCalls = door.guard(base + "ListCalls", self._list_calls)

    async def Invoke(self, request: broker_pb2.InvokeRequest, context: Any) -> broker_pb2.InvokeResponse:
        """Call a tool with JSON; passes the same path as a native call, which guards it."""
        metadata = read(context.invocation_metadata())
        named = {
            KEY: request.idempotency_key,
            ENVIRONMENT: request.environment,
            VERSION: request.tool_version,
            WORKFLOW: request.workflow,
        }
        metadata |= {name: value for name, value in named.items() if value}
        answer = await self._tools.answer(
            Request(
                peer_of(context),
                request.tool,
                request.arguments_json.encode(),
                deadline_of(context),
                is_json=True,
                metadata=metadata,
            ),
            context,
        )
        context.set_trailing_metadata(tuple(trailers(answer).items()))
        return broker_pb2.InvokeResponse(
            call_id=answer.call_id,
            result_json=answer.contract.result_json(answer.result),
            replayed=answer.replayed,
            labels=answer.labels,
        )

    async def _list_tools(
        self, request: broker_pb2.ListToolsRequest, caller: Caller
    ) -> broker_pb2.ListToolsResponse:
        tools = [
            tool_message(entry, contract)
            for entry in self._catalogue.stable(caller.tenant)
            for contract in entry.version.contracts.values()
        ]
        tools.sort(key=lambda tool: tool.name)
        page, token = slice_page(tools, page_size(request.page_size, 100), request.page_token)
        return broker_pb2.ListToolsResponse(tools=page, next_page_token=token)

    async def _describe_tool(
        self, request: broker_pb2.DescribeToolRequest, caller: Caller
    ) -> broker_pb2.DescribeToolResponse:
        version = self._catalogue.resolve(caller.tenant, request.name, request.version or STABLE)
        contract = version.contracts[request.name]
        entry = self._catalogue.find(caller.tenant, version.bundle, version.version)
        assert entry is not None, "resolve returns registered versions only"
        return broker_pb2.DescribeToolResponse(
            tool=tool_message(entry, contract),
            request_json_schema=contract.strict_request_json_schema
            if request.strict_schema
            else contract.request_json_schema,
            response_json_schema=contract.response_json_schema,
            client_descriptor_set=version.client_descriptor_set,
        )

    async def _get_call(
        self, request: broker_pb2.GetCallRequest, caller: Caller, handle: str
    ) -> broker_pb2.GetCallResponse:
        record = await self._find_call(caller, request.call_id)
        is_maker = caller.role is Role.AGENT
        if is_maker:
            await self._take_in(caller, record, handle)
        return broker_pb2.GetCallResponse(
            call=_show(caller, record),
            result_json=self._result_json(record) if is_maker else "",
        )

    async def _get_artefact(
        self, request: broker_pb2.GetArtefactRequest, caller: Caller, handle: str
    ) -> broker_pb2.GetArtefactResponse:
        record = await self._find_call(caller, request.call_id)
        if caller.role is not Role.AGENT:
            raise Refused(
                Reason.REASON_ROLE_REQUIRED,
                "what a call gave back is only for the agent that made it; GetCall lists its artefacts",
            )
        await self._take_in(caller, record, handle)
        position, artefact = _find_artefact(record, request.name)
        _check_offset(request.offset, artefact)
        content = await self._store.read_artefact(caller.tenant, record.call_id, position, request.offset)
        end = request.offset + len(content)
        if not content and end < artefact.size_bytes:
            raise _no_artefact("it was erased while it was read")
        return broker_pb2.GetArtefactResponse(
            content=content,
            media_type=artefact.media_type,
            sha256=artefact.sha256,
            size_bytes=artefact.size_bytes,
            next_offset=end if end < artefact.size_bytes else 0,
        )

    async def _take_in(self, caller: Caller, record: CallRecord, handle: str) -> None:
        """Let what the agent reads count for its workflow, or for the agent itself, before it has it."""
        environment = record.environment
        workflow = self._workflows.read(handle, caller, environment) if handle else ""
        name = WorkflowName(caller.tenant, environment, caller.name, workflow)
        await self._workflows.take_in(self._store, name, record, caller)

    async def _find_call(self, caller: Caller, call_id: str) -> CallRecord:
        _check_reader(caller)
        record = await self._store.get_call(caller.tenant, call_id)
        if record is None or not _may_see(caller, record):
            raise Refused(
                Reason.REASON_CALL_UNKNOWN, "no such call that you may see; ListCalls names those you may"
            )
        return record

    async def _list_calls(
        self, request: broker_pb2.ListCallsRequest, caller: Caller
    ) -> broker_pb2.ListCallsResponse:
        _check_reader(caller)
        is_agent = caller.role is Role.AGENT
        state = _read_state(request.state)
        try:
            page = await self._store.list_calls(
                caller.tenant,
                agent=caller.name if is_agent else "",
                method=request.tool,
                state=state,
                page_size=page_size(request.page_size, 50),
                page_token=request.page_token,
            )
        except ValueError as error:
            raise bad_page(str(error)) from error
        calls = [
            _show(caller, _shorten(record, is_agent=is_agent))
            for record in page.items
            if _may_see(caller, record)
        ]
        return broker_pb2.ListCallsResponse(calls=calls, next_page_token=page.next_token)

    def _result_json(self, record: CallRecord) -> str:
        """Show a result as JSON by the contract of the version that made it."""
        if record.result is None:
            return ""
        version = self._catalogue.find_method(record.tenant, record.method, record.tool_version)
        if version is None:
            return ""
        return version.contracts[record.method].result_json(record.result)


def _find_artefact(record: CallRecord, name: str) -> tuple[int, Artefact]:
    """Find a file that a call gave back, and which one it is."""
    for position, artefact in enumerate(record.artefacts):
        if artefact.name == name:
            return position, artefact
    raise _no_artefact(
        "the call gave no file of this name back, or it was erased; GetCall lists its artefacts"
    )


def _check_offset(offset: int, artefact: Artefact) -> None:
    if not 0 <= offset <= artefact.size_bytes:
        violation = Violation(
            "offset", f"must be 0, or the next_offset of an answer: at most {artefact.size_bytes}"
        )
        raise Refused(
            Reason.REASON_REQUEST_INVALID, "there is nothing at this offset", violations=[violation]
        )


def _no_artefact(message: str) -> Refused:
    return Refused(Reason.REASON_CALL_UNKNOWN, message)


def _may_see(caller: Caller, record: CallRecord) -> bool:
    """People see every call of their tenant; an agent its own, on behalf of the same subject."""
    if caller.role is not Role.AGENT:
        return True
    return (record.agent, record.subject) == (caller.name, caller.subject)


def _show(caller: Caller, record: CallRecord) -> broker_pb2.Call:
    """Show a record: the tool's log and the minted user names are for people only."""
    is_agent = caller.role is Role.AGENT
    message = call_message(record, for_people=not is_agent)
    if is_agent:
        for lease in message.leases:
            lease.ClearField("username")
    return message


def _shorten(record: CallRecord, *, is_agent: bool) -> CallRecord:
    """Leave out what would make a page of calls too long for one message; GetCall has all of it.

    An agent's list has no words of a tool either: it belongs to no workflow that they could count for.
    """
    has_words = record.state is not CallState.SUCCEEDED and UNTRUSTED in label_record(record)
    message = "GetCall tells what the tool said" if is_agent and has_words else record.message[:200]
    return replace(record, tool_log="", message=message)


def _check_reader(caller: Caller) -> None:
    """See that a caller is one who may read calls: an orchestrator opens workflows, and that is all."""
    if caller.role is Role.ORCHESTRATOR:
        raise Refused(
            Reason.REASON_ROLE_REQUIRED,
            "calls are read by the agent that made them and by people of its tenant; this identity is an "
            "orchestrator's",
        )


def _read_state(number: int) -> CallState | None:
    if not number:
        return None
    try:
        return CallState(broker_pb2.CallState.Name(broker_pb2.CallState.ValueType(number)))
    except ValueError as error:
        raise bad_page(f"state {number} is not known") from error
