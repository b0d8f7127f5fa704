"""Seals what a call holds of its tenant's data before the state sees it, and opens it when it is read.

Rules:
1. Request, result, artefacts and tool log are sealed; everything else of a record the broker must read.
2. Each kept value says by its first byte whether it is clear or sealed: a state may hold both, from before a
   cipher was set and after. A sealed one is never taken for a clear one.
3. What is sealed is bound to its tenant, its call and its field.
4. Sealing comes before the transaction: no lock waits for a key.
5. An artefact's content is sealed in parts, so that reading one opens no more than it needs, and no file of
   16 MiB keeps the event loop for long.
6. A log that cannot be sealed is dropped, and says so: it must not keep a call's end from being recorded.
   A request or a result that cannot be sealed fails the change.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from broker.model import Artefact, CallRecord
from broker.store.connection_text import read_connections, write_connections
from broker.store.records import StoreError

log = logging.getLogger(__name__)

CLEAR, SEALED = b"\x00", b"\x01"
ERASED_LOG = "(erased)"
PART_BYTES = 1024 * 1024
"""An artefact's content is kept in parts of so much; the last one may be shorter."""
DROPPED_LOG = "(the log could not be sealed, and was dropped)"


class KeyErased(StoreError):
    """The key that sealed a value was erased: nobody can read it again."""


class Cipher(Protocol):
    """Seals and opens bytes of a tenant."""

    async def seal(self, tenant: str, context: bytes, plain: bytes) -> bytes:
        """Seal a value; the context has to be given again to open it.

        Raises:
            StoreError: The tenant's key cannot be had now.
        """

    async def open(self, tenant: str, context: bytes, sealed: bytes) -> bytes:
        """Open a sealed value.

        Raises:
            KeyErased: The tenant's key, or the one that sealed it, was erased.
            StoreError: The key cannot be had now, or the value was changed.
        """

    def forget(self, tenant: str) -> None:
        """Drop a tenant's key from memory: it was erased."""


@dataclass(frozen=True, slots=True)
class KeptArtefact:
    """A file that a call gave back, as it is kept.

    Attributes:
        head: Name, media type, size and digest as a JSON list.
        parts: The content; empty where it was not read.
    """

    head: bytes
    parts: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Contents:
    """What a call holds of its tenant's data, as it is kept.

    Attributes:
        request: None where there is none, or it was erased; so is `result`.
        tool_log: Empty where there is none; None where it was erased.
        connections: As broker/store/connection_text.py writes them: clear, nothing of the tenant's is in it.
    """

    request: bytes | None = None
    result: bytes | None = None
    tool_log: bytes | None = b""
    artefacts: tuple[KeptArtefact, ...] = ()
    connections: str = ""


@dataclass(frozen=True, slots=True)
class KeptCall:
    """A call as it is kept: a record without contents, and these beside it."""

    call: CallRecord
    contents: Contents = Contents()

    def ended(self, end: KeptCall) -> KeptCall:
        """Take over another record and what it came to; what was asked stays, and what it connected to."""
        connections = end.contents.connections or self.contents.connections
        contents = replace(end.contents, request=self.contents.request, connections=connections)
        return replace(end, contents=contents)


def strip(call: CallRecord) -> CallRecord:
    """Make the record without contents."""
    if call.request is None and call.result is None and not _is_heavy(call):
        return call
    return replace(
        call,
        request=None,
        result=None,
        tool_log="",
        artefacts=(),
        connections=(),
        connections_dropped=0,
    )


def _is_heavy(call: CallRecord) -> bool:
    return bool(call.tool_log or call.artefacts or call.connections or call.connections_dropped)


class Sealing:
    """Turns calls into kept ones and back; without a cipher their contents are kept clear."""

    def __init__(self, cipher: Cipher | None) -> None:
        self._cipher = cipher

    async def seal_new(self, call: CallRecord) -> KeptCall:
        """Seal what a new record holds.

        Raises:
            StoreError: The tenant's key cannot be had now.
        """
        kept = await self.seal_end(call)
        if call.request is None:
            return kept
        request = await self._seal(call, "request", call.request)
        return replace(kept, contents=replace(kept.contents, request=request))

    async def seal_end(self, call: CallRecord) -> KeptCall:
        """Seal what a call came to; what was asked is kept already.

        Raises:
            StoreError: There is a result, and the tenant's key cannot be had now.
        """
        result = await self._seal(call, "result", call.result)
        artefacts = [await self._seal_artefact(call, *one) for one in enumerate(call.artefacts)]
        contents = Contents(
            None, result, await self._seal_log(call), tuple(artefacts), write_connections(call)
        )
        return KeptCall(strip(call), contents)

    async def open(self, kept: KeptCall) -> CallRecord:
        """Open a call's contents; what was erased is None, and an erased log says so.

        Raises:
            StoreError: A key cannot be had now, or a value was changed.
        """
        contents, call = kept.contents, kept.call
        tool_log = b"" if contents.tool_log == b"" else await self._open(call, "tool_log", contents.tool_log)
        connections, dropped = read_connections(call.call_id, contents.connections)
        return replace(
            call,
            request=await self._open(call, "request", contents.request),
            result=await self._open(call, "result", contents.result),
            tool_log=ERASED_LOG if tool_log is None else tool_log.decode("utf-8", "replace"),
            artefacts=await self._open_artefacts(call, contents.artefacts),
            connections=connections,
            connections_dropped=dropped,
        )

    async def open_part(self, call: CallRecord, position: int, part: int, kept: bytes | None) -> bytes:
        """Open a part of an artefact's content; nothing where there is none, or it was erased.

        Raises:
            StoreError: The key cannot be had now, or the value was changed.
        """
        return await self._open(call, _part_field(position, part), kept) or b""

    async def open_all(self, found: Sequence[KeptCall]) -> Sequence[CallRecord]:
        """Open calls of several tenants; one that cannot be opened now is left out.

        Raises:
            StoreError: None of them can be opened.
        """
        opened: list[CallRecord] = []
        failed: StoreError | None = None
        for kept in found:
            try:
                opened.append(await self.open(kept))
            except StoreError as error:
                log.warning("call left out", extra={"call_id": kept.call.call_id, "cause": str(error)})
                failed = error
        if failed is not None and not opened:
            raise failed
        return opened

    def forget(self, tenant: str) -> None:
        """Drop an erased tenant's key from memory."""
        if self._cipher is not None:
            self._cipher.forget(tenant)

    async def _seal_artefact(self, call: CallRecord, position: int, artefact: Artefact) -> KeptArtefact:
        head = artefact.name, artefact.media_type, artefact.size_bytes, artefact.sha256
        sealed = await self._seal(call, f"artefact/{position}", json.dumps(head).encode())
        content = artefact.content or b""
        parts = [
            await self._seal(call, _part_field(position, number), content[at : at + PART_BYTES])
            for number, at in enumerate(range(0, len(content), PART_BYTES))
        ]
        return KeptArtefact(sealed or b"", tuple(part or b"" for part in parts))

    async def _open_artefacts(self, call: CallRecord, kept: Sequence[KeptArtefact]) -> tuple[Artefact, ...]:
        heads = [
            await self._open(call, f"artefact/{position}", one.head) for position, one in enumerate(kept)
        ]
        return tuple(Artefact(*json.loads(head)) for head in heads if head is not None)

    async def _seal_log(self, call: CallRecord) -> bytes:
        if not call.tool_log:
            return b""
        try:
            return await self._seal(call, "tool_log", call.tool_log.encode("utf-8", "replace")) or b""
        except StoreError as error:
            log.warning("tool log dropped", extra={"call_id": call.call_id, "cause": str(error)})
            return CLEAR + DROPPED_LOG.encode()

    async def _seal(self, call: CallRecord, field: str, plain: bytes | None) -> bytes | None:
        if plain is None:
            return None
        if self._cipher is None:
            return CLEAR + plain
        return SEALED + await self._cipher.seal(call.tenant, _context(call, field), plain)

    async def _open(self, call: CallRecord, field: str, kept: bytes | None) -> bytes | None:
        if kept is None:
            return None
        mark, body = kept[:1], kept[1:]
        if mark == CLEAR:
            return body
        if mark != SEALED or self._cipher is None:
            why = "its form is not known" if mark != SEALED else "it is sealed, and the store has no cipher"
            raise StoreError(f"call {call.call_id}: its {field} cannot be read: {why}")
        try:
            return await self._cipher.open(call.tenant, _context(call, field), body)
        except KeyErased:
            return None


def _part_field(position: int, part: int) -> str:
    return f"artefact/{position}/{part}"


def _context(call: CallRecord, field: str) -> bytes:
    return f"{call.call_id}/{field}".encode()
