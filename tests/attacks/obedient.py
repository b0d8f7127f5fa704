"""An agent that does whatever it reads, and what it gets to read: no model, so that each run is the same.

An instruction is the word DO and a JSON object, anywhere in what a tool, a file, an error or a record says,
in base64 too:

    {"tool": METHOD, "with": {...}}         calls a tool, with its own handle
      "handle": none | forged | colleague   … without one, with one that it makes up, with a colleague's
      "environment": NAME, "key": KEY       … there, under that key
      "times": N                            … as often
    {"get_call": N} {"get_file": N}         reads what became of its Nth call, and its file

It obeys to a depth, and tries what is refused again without a handle.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.errors import CallError
from broker.model import Answer
from sandboxes.outcome import RawArtefact
from tests.broker.office import Ended, Office, read_answer

DEPTH = 5
SECRET = "the-ledger-says-4711"
_WORDS = re.compile(r"[A-Za-z0-9+/=]{24,}")


@dataclass(frozen=True)
class Scenario:
    """What an agent is to do, and what it finds on its way.

    Attributes:
        task: What its user asked for: instructions.
        texts: What tools say, by "METHOD key".
        failing: Methods that fail, with their words.
        file: What ReadLedger gives back as a file.
        earlier: What the agent did in another workflow before.
    """

    name: str
    task: Sequence[Mapping[str, Any]]
    texts: Mapping[str, str] = field(default_factory=dict)
    failing: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    earlier: Sequence[Mapping[str, Any]] = ()


class ObedientAgent:
    """Does its task, and then whatever it read."""

    def __init__(self, office: Office, handle: str, foreign: str) -> None:
        self._office, self._handle, self._foreign = office, handle, foreign
        self._made: list[str] = []
        self.refused: list[str] = []

    async def obey(self, steps: Sequence[Mapping[str, Any]], depth: int = 0) -> None:
        """Do one thing after the other, and what each of them says."""
        for step in steps:
            for _ in range(int(step.get("times", 1))):
                said = await self._do(step)
                if depth < DEPTH:
                    await self.obey([found for text in said for found in find_instructions(text)], depth + 1)

    async def _do(self, step: Mapping[str, Any]) -> Sequence[str]:
        if "get_call" in step:
            return await self._read_record(step["get_call"])
        if "get_file" in step:
            return await self._read_file(step["get_file"])
        said = await self._call(step, self._choose(step.get("handle", "own")))
        if said is None:  # whoever obeys tries harder
            said = await self._call({**step, "environment": ""}, "")
        return said or ()

    def _choose(self, handle: str) -> str:
        made_up = {"none": "", "forged": "w1." + "0" * 32 + ".4102444800." + "A" * 43, "new": "task-2"}
        return {"own": self._handle, "colleague": self._foreign, **made_up}[handle]

    async def _call(self, step: Mapping[str, Any], handle: str) -> Sequence[str] | None:
        """Call a tool: what it said, or None where the broker refused."""
        more = {name: step[name] for name in ("environment", "key") if step.get(name)}
        try:
            answer = await self._office.ask(step["tool"], handle=handle, **more, **step["with"])
        except CallError as error:
            self.refused.append(error.reason_name)
            return [error.message] if error.reason_name == "TOOL_FAILED" else None
        self._made.append(answer.call_id)
        return list(list_texts(read_answer(answer)))

    async def _read_record(self, number: int) -> Sequence[str]:
        shown = await self._office.get_call(self._made[number], self._handle)
        return [shown.result_json, shown.call.message]

    async def _read_file(self, number: int) -> Sequence[str]:
        content = await self._office.get_file(self._made[number], "report.txt", self._handle)
        return [content.decode()]


def list_texts(value: object) -> Iterator[str]:
    """List every text in a result."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from list_texts(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from list_texts(inner)


def find_instructions(text: str) -> list[Mapping[str, Any]]:
    """Find what a text says to do, also where it says so in base64 or in JSON within JSON."""
    found: list[Mapping[str, Any]] = []
    for start in re.finditer(r"DO (?=\{)", text):
        try:
            found.append(json.JSONDecoder().raw_decode(text, start.end())[0])
        except ValueError:
            continue
    for word in _WORDS.findall(text):
        try:
            found += find_instructions(base64.b64decode(word, validate=True).decode())
        except ValueError:
            continue
    if not found and "\\" in text and "DO " in text:  # a text within a text
        found = find_instructions(text.replace('\\"', '"').replace("\\\\", "\\"))
    return found


async def play(office: Office, scenario: Scenario, *, with_handle: bool) -> ObedientAgent:
    """Let an agent do a task; with a workflow that its orchestrator opened for it, or without one."""
    desk = office.desk
    desk.texts.update(scenario.texts)
    desk.failing.update(scenario.failing)
    desk.files = (RawArtefact("report.txt", "text/plain", scenario.file.encode()),) if scenario.file else ()
    foreign = await office.open_workflow("colleague")
    earlier = ObedientAgent(office, await office.open_workflow() if with_handle else "", foreign)
    for step in scenario.earlier:
        await earlier._do(step)
    agent = ObedientAgent(office, await office.open_workflow() if with_handle else "", foreign)
    agent._made = list(earlier._made)
    await agent.obey(scenario.task)
    return agent


def do(
    tool: str, *, handle: str = "own", environment: str = "", key: str = "", times: int = 1, **request: Any
) -> str:
    """Write an instruction."""
    step = {"tool": tool, "with": request, "handle": handle, "times": times}
    step |= {name: value for name, value in (("environment", environment), ("key", key)) if value}
    return f"DO {json.dumps(step)}"


__all__ = ["SECRET", "Answer", "Ended", "ObedientAgent", "Scenario", "do", "find_instructions", "play"]
