"""Fuzz registration with damaged descriptor sets: python -m tests.fuzz.fuzz_descriptors --seconds 600.

What must hold for every case:

1. `load_version` gives a version, or raises BundleInvalid with violations; nothing else, and no crash.
2. It does so within `CASE_SECONDS` of the processor, in `MEMORY_BYTES`.
3. A version that it gives can be used: its schemas, its client view, its advice, and random requests.

The cases run in a child. One that hangs or crashes the child is found by its number, and the next child goes
on behind it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.message_factory import GetMessageClass

from tests.fuzz.mutation import Mutator, fill_message
from tests.tools.protos import HEAD, IMAGE_ID, compile_text, write_manifest
from tools.advice import Subject, advise
from tools.catalogue import ToolVersion, load_version
from tools.contract import Contract
from tools.errors import BundleInvalid, ContractError
from tools.places import ProtoPlaces
from tools.proto_text import print_file
from tools.registration import register_set
from tools.set_form import name_methods
from tools.source import compile_protos

ROOT = Path(__file__).resolve().parents[2]
CASE_SECONDS = 10
"""Of the processor, for one case; most take 20 ms."""
STILL_SECONDS = 600
"""A case that uses no processor may wait for a busy machine; no longer than this."""
MEMORY_BYTES = 3 << 30
CASES_A_CHILD = 1_000
TRIES = 4
"""Requests and results tried on each contract that was accepted."""

BROAD = (
    HEAD
    + """
service Things {
  // Does a thing.
  rpc Do(Request) returns (Response) {
    option (toolcrib.v1.tool) = {effect: WRITE, reach: OUTWARD, scope: "things.do", probe: "Look"};
  }
  rpc Look(LookRequest) returns (LookResponse) {
    option (toolcrib.v1.tool) = {effect: READ, scope: "things.look"};
  }
}
message Money { int64 minor_units = 1; string currency = 2; }
message Node { Node left = 1; repeated Node more = 2; map<string, Node> named = 3; }
enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; }
message Request {
  option (buf.validate.message).cel = {id: "r", message: "no", expression: "this.a.size() < 9"};
  string a = 1 [(buf.validate.field).string.pattern = "^[a-z]{1,9}$"];
  optional int64 b = 2 [(buf.validate.field).int64 = {gte: 0, lte: 9}];
  oneof choice { string c = 3; Money d = 4 [(toolcrib.v1.field).amount = true]; }
  map<string, Money> e = 5 [(buf.validate.field).map.max_pairs = 3];
  repeated string f = 6 [(toolcrib.v1.field).destination = true, (buf.validate.field).repeated.max_items = 2];
  google.protobuf.Timestamp g = 7;
  google.protobuf.StringValue h = 8;
  Node i = 9;
  repeated Colour j = 10;
  bytes k = 11 [(buf.validate.field).bytes.max_len = 9];
  double l = 12;
  fixed64 m = 13;
  string n = 14 [(toolcrib.v1.field).secret = true];
  message Inner { string o = 1 [(buf.validate.field).cel = {id: "o", expression: "this != 'x'"}]; }
  Inner p = 15;
  reserved 20 to 30;
}
message Response { string text = 1 [(toolcrib.v1.field) = {untrusted: true, content: TEXT}]; Node tree = 2; }
message LookRequest { string key = 1 [(toolcrib.v1.field).probe = PROBE_KEY]; }
message LookResponse {
  bool done = 1 [(toolcrib.v1.field).probe = PROBE_HAPPENED];
  Response result = 2 [(toolcrib.v1.field).probe = PROBE_RESULT];
}
"""
)


@dataclass
class Tally:
    """What came of the cases.

    Attributes:
        failures: What must not be, each with the number of its case.
        slowest_seconds: Of the processor.
    """

    cases: int = 0
    accepted: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    slowest_case: int = 0
    peak_kib: int = 0

    def add(self, other: Tally) -> None:
        """Add what another child found."""
        self.cases += other.cases
        self.accepted += other.accepted
        self.codes += other.codes
        self.failures += other.failures
        self.peak_kib = max(self.peak_kib, other.peak_kib)
        if other.slowest_seconds > self.slowest_seconds:
            self.slowest_seconds, self.slowest_case = other.slowest_seconds, other.slowest_case


def load_originals() -> list[bytes]:
    """Compile the good sets that cases are made of."""
    bundles = [ROOT / "tools/bundles/shop", ROOT / "tools/bundles/git", ROOT / "tests/bundles/engines"]
    broad = compile_text(BROAD)
    return [broad, broad, *(compile_protos(bundle) for bundle in bundles)]


def try_case(data: bytes, rng: random.Random, tally: Tally) -> None:
    """Register one set, and use what is accepted.

    Raises:
        Exception: An invariant does not hold.
    """
    tally.cases += 1
    try:
        version = load_version(data, write_manifest(*sorted(name_methods(data))), IMAGE_ID)
    except BundleInvalid as error:
        assert error.violations, "refused without a violation"
        assert all(each.field and each.description and each.code for each in error.violations), (
            error.violations
        )
        tally.codes.update({each.code for each in error.violations})
        return
    tally.accepted += 1
    use_version(version, rng)


def use_version(version: ToolVersion, rng: random.Random) -> None:
    """Do with an accepted version what the broker and `check` do."""
    places = ProtoPlaces(version.descriptor_set)
    for advice in advise(Subject(register_set(version.descriptor_set), version.manifest)):
        places.find(advice.field)
    for file in descriptor_pb2.FileDescriptorSet.FromString(version.client_descriptor_set).file:
        print_file(file)
    for contract in version.contracts.values():
        contract.policy_schema()
        for _ in range(TRIES):
            _ask(contract, rng)


def _ask(contract: Contract, rng: random.Random) -> None:
    request = GetMessageClass(contract.request_descriptor)()
    fill_message(request, rng)
    for raw in (rng.randbytes(rng.choice((0, 3, 40))), request.SerializePartialToString()):
        try:
            parsed = contract.parse_request(raw)
        except ContractError as error:
            assert error.violations
            continue
        contract.destinations(parsed), contract.amounts(parsed), contract.policy_view(parsed)
        contract.parse_request(contract.canonical(parsed))
    result = GetMessageClass(contract.response_descriptor)()
    fill_message(result, rng)
    try:
        contract.sanitize_result(contract.parse_result(result.SerializePartialToString()))
    except ContractError as error:
        assert error.violations


def _work(seed: int, first: int, last: int, folder: Path, out: Connection) -> None:
    """Run cases in a child; say each one's number before it, and the tally at the end."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    mutator, tally = Mutator(seed, [path.read_bytes() for path in sorted(folder.iterdir())]), Tally()
    for number in range(first, last):
        data = mutator.make(number)
        out.send(number)
        began = time.process_time()
        try:
            try_case(data, random.Random(number), tally)
        except Exception:  # an invariant that does not hold, whatever it is
            tally.failures.append(f"case {seed}:{number}\n{traceback.format_exc()}")
        took = time.process_time() - began
        if took > tally.slowest_seconds:
            tally.slowest_seconds, tally.slowest_case = took, number
    tally.peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out.send(tally)


def run_child(seed: int, first: int, last: int, folder: Path) -> tuple[Tally, int]:
    """Run cases in a child and watch it.

    Args:
        seed, first, last: Which cases.
        folder: With the good sets, a file each. As an argument they would not fit into the pipe to the child,
            and one that dies at its start would hang us.

    Returns:
        What it found, and the number of the case to go on with.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(seed, first, last, folder, theirs))
    child.start()
    theirs.close()
    tally, current = Tally(), first - 1
    try:
        while _waits_for_word(child.pid or 0, ours):
            message = ours.recv()
            if isinstance(message, Tally):
                return message, last
            current = message
        tally.failures.append(f"case {seed}:{current} takes longer than {CASE_SECONDS} s")
    except EOFError:
        child.join()
        tally.failures.append(f"case {seed}:{current} ended the process: exit code {child.exitcode}")
    finally:
        child.kill()
        child.join()
        ours.close()
    tally.cases = current - first + 1
    return tally, current + 1


def _waits_for_word(pid: int, ours: Connection) -> bool:
    """Wait for the child to say something; False when it works on one case for too long."""
    used, ends = cpu_seconds(pid), time.monotonic() + STILL_SECONDS
    while not ours.poll(1):
        if cpu_seconds(pid) - used > CASE_SECONDS or time.monotonic() > ends:
            return False
    return True


def cpu_seconds(pid: int) -> float:
    """Read what a process has used of the processor."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fuzz(seed: int, originals: list[bytes], seconds: float) -> Iterator[Tally]:
    """Run cases until the time is over; yield what each child found."""
    ends = time.monotonic() + seconds
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        for index, data in enumerate(originals):
            (Path(folder) / f"{index:03}.binpb").write_bytes(data)
        while time.monotonic() < ends:
            tally, number = run_child(seed, number, number + CASES_A_CHILD, Path(folder))
            yield tally


def main() -> int:
    """Fuzz, and say what came of it."""
    parser = argparse.ArgumentParser(description="Fuzz registration with damaged descriptor sets.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="Run this case only, here, to see what it does.")
    options = parser.parse_args()
    originals = load_originals()
    if options.case is not None:
        data = Mutator(options.seed, originals).make(options.case)
        try_case(data, random.Random(options.case), tally := Tally())
        print(tally)
        return 0
    began, total = time.monotonic(), Tally()
    for tally in fuzz(options.seed, originals, options.seconds):
        total.add(tally)
        rate = total.cases / (time.monotonic() - began)
        print(
            f"{total.cases} cases, {rate:.0f} a second, {total.accepted} accepted, "
            f"{len(total.failures)} failures, slowest {total.slowest_seconds:.1f} s "
            f"(case {total.slowest_case}), peak {total.peak_kib >> 10} MiB",
            flush=True,
        )
        for failure in tally.failures:
            print(failure, flush=True)
    print("refused with: " + ", ".join(f"{code} {count}" for code, count in total.codes.most_common()))
    return 1 if total.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
