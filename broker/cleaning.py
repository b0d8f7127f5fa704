"""Cleans the untrusted strings of results: light ones here, the others in worker processes.

Rules:
1. HTML, Markdown and long JSON are parsed in no process that holds a secret (tools/content/worker).
2. Tenants share no worker: one that a page took over reads no other tenant's pages, and answers none.
3. Short and long content have a worker each: one tool's longest page keeps nobody's short one waiting.
4. What cannot be cleaned is refused. What a worker gives back is not believed: it is cleaned as TEXT again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from broker.redaction import off_loop
from tools.content.fields import Piece, put_back, shorten_path
from tools.content.formats import clean_content, is_light
from tools.content.kinds import Cleaned, ContentInvalid, Problem
from tools.content.text import clean_text
from tools.content.worker.frames import Job, Rejected
from tools.content.worker.process import CLEAN_SECONDS, Worker, WorkerBroken
from tools.contract import Contract
from tools.errors import ContractError

LONG_CHARACTERS = 64 * 1024
"""What is longer waits for the worker of long content."""
MAX_IDLE_TENANTS = 8
"""Of so many tenants workers are kept, at some 40 MiB each; those of others end when they have no work."""


class NotCleaned(Exception):
    """A result whose untrusted fields cannot be cleaned; the text names the field and why, never content."""


@dataclass(slots=True)
class _Crew:
    """The workers of one tenant, and how many results wait for them."""

    short: Worker
    long: Worker
    waiting: int = 0

    async def close(self) -> None:
        await self.short.close()
        await self.long.close()


class Cleaner:
    """Cleans results. Workers are started when the first content of a tenant needs one."""

    def __init__(self, clean_seconds: float = CLEAN_SECONDS) -> None:
        self._clean_seconds = clean_seconds
        self._crews: OrderedDict[str, _Crew] = OrderedDict()

    async def clean(
        self, contract: Contract, message: Message, allowed_origins: Collection[str] = (), tenant: str = ""
    ) -> tuple[Message, tuple[str, ...]]:
        """Clean the untrusted fields of a checked result, and check what is left against the contract.

        Args:
            contract: The result's.
            message: The result; it stays as it is.
            allowed_origins: To which links in Markdown keep their targets.
            tenant: Whose result it is.

        Returns:
            A cleaned copy, and the report, a line for each field that lost something.

        Raises:
            NotCleaned: A field cannot be cleaned, or breaks its contract once it was.
        """
        if not contract.untrusted:
            return message, ()
        copy, pieces = await off_loop(message.ByteSize(), lambda: contract.open_content(message))
        cleaned = await self._clean_pieces(pieces, allowed_origins, tenant)
        report = put_back(pieces, cleaned)
        if any(piece.text != done.text for piece, done in zip(pieces, cleaned, strict=True)):
            await off_loop(copy.ByteSize(), lambda: _check(contract, copy))
        return copy, report

    async def close(self) -> None:
        """End the workers."""
        for crew in list(self._crews.values()):
            await crew.close()

    def find_worker(self, tenant: str, *, is_long: bool) -> Worker:
        """Give a tenant's worker of short or of long content."""
        crew = self._find_crew(tenant)
        return crew.long if is_long else crew.short

    def _find_crew(self, tenant: str) -> _Crew:
        if tenant not in self._crews:
            self._crews[tenant] = _Crew(Worker(self._clean_seconds), Worker(self._clean_seconds))
        self._crews.move_to_end(tenant)
        return self._crews[tenant]

    async def _end_idle(self) -> None:
        idle = [tenant for tenant, crew in self._crews.items() if not crew.waiting]
        for tenant in idle[: max(len(self._crews) - MAX_IDLE_TENANTS, 0)]:
            await self._crews.pop(tenant).close()

    async def _clean_pieces(
        self, pieces: Sequence[Piece], origins: Collection[str], tenant: str
    ) -> list[Cleaned]:
        light = [piece for piece in pieces if is_light(piece.form, piece.text)]
        heavy = [piece for piece in pieces if not is_light(piece.form, piece.text)]
        size = sum(len(piece.text) for piece in light)
        done = iter(await off_loop(size, lambda: _clean_here(light)))
        worked = iter(await self._clean_there(heavy, origins, tenant))
        return [next(done) if is_light(piece.form, piece.text) else next(worked) for piece in pieces]

    async def _clean_there(
        self, pieces: Sequence[Piece], origins: Collection[str], tenant: str
    ) -> list[Cleaned]:
        if not pieces:
            return []
        size = sum(len(piece.text) for piece in pieces)
        crew = self._find_crew(tenant)
        worker = crew.long if size > LONG_CHARACTERS else crew.short
        job = Job(tuple(sorted(origins)), tuple((piece.form, piece.text) for piece in pieces))
        crew.waiting += 1
        try:
            cleaned = await worker.clean(job)
        except Rejected as error:
            raise _refusal(pieces[error.at], error.problem) from error
        except WorkerBroken as error:
            raise _refusal(max(pieces, key=lambda piece: len(piece.text)), error.problem) from error
        finally:
            crew.waiting -= 1
        await self._end_idle()
        return await off_loop(size, lambda: [_distrust(done) for done in cleaned])


def _clean_here(pieces: Sequence[Piece]) -> list[Cleaned]:
    cleaned: list[Cleaned] = []
    for piece in pieces:
        try:
            cleaned.append(clean_content(piece.form, piece.text))
        except ContentInvalid as error:
            raise _refusal(piece, error.problem) from error
    return cleaned


def _distrust(done: Cleaned) -> Cleaned:
    text, found = clean_text(done.text)
    return Cleaned(text, done.removed + found)


def _check(contract: Contract, message: Message) -> None:
    try:
        contract.check_result(message)
    except ContractError as error:
        raise NotCleaned("a field breaks its contract once what nobody sees was taken out of it") from error


def _refusal(piece: Piece, problem: Problem) -> NotCleaned:
    return NotCleaned(f"{shorten_path(piece.path)} ({piece.form.name}) {problem}")
