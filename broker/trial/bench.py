"""What a bundle's examples are tried on, and whether they fit the bundle at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandboxes.sandbox import Driver
from tools.catalogue import ToolVersion
from tools.contract import Contract
from tools.errors import BundleInvalid, Violation
from tools.examples import Example
from tools.manifest import MethodRuntime

Address = tuple[str, int]
"""Host and TCP port."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What examples are tried on.

    Attributes:
        folder: The bundle's: fakes are there.
        driver: Makes the sandboxes.
        real_targets: Addresses to use instead of fakes, by the manifest's names.
        fakes_allowed: Whether programs of the bundle may run outside of a sandbox, as fakes.
    """

    folder: Path
    version: ToolVersion
    driver: Driver
    real_targets: Mapping[str, Address] = field(default_factory=dict)
    fakes_allowed: bool = False

    def contract(self, example: Example) -> Contract:
        """Find the contract of what an example calls; `check_examples` saw that there is one."""
        return self.version.contracts[example.method]

    def runtime(self, example: Example) -> MethodRuntime:
        """Find what the manifest says of what an example calls."""
        return self.version.manifest.method(example.method)


def check_examples(bench: Bench, examples: Sequence[Example]) -> None:
    """See that every example fits its bundle, before one is run.

    Raises:
        BundleInvalid: With every fault, by file and example.
    """
    problems = [
        Violation(f"{example.file}: {example.name}", fault)
        for example in examples
        for fault in _find_faults(bench, example)
    ]
    if not bench.fakes_allowed:
        problems.extend(_find_unread(bench, examples))
    if problems:
        raise BundleInvalid(problems)


def find_untried(bench: Bench, examples: Sequence[Example]) -> list[str]:
    """Name the methods that no example calls."""
    tried = {example.method for example in examples}
    return [method for method in bench.version.contracts if method not in tried]


def _find_faults(bench: Bench, example: Example) -> Iterator[str]:
    if example.method not in bench.version.contracts:
        yield f'method: "{example.method}" is no tool of it; it has: {", ".join(bench.version.contracts)}'
    elif example.violations is None:  # else nothing is run
        yield from _find_credential_faults(bench, example)
        yield from _find_target_faults(bench, example)


def _find_credential_faults(bench: Bench, example: Example) -> Iterator[str]:
    wanted = bench.runtime(example).credentials
    for name in wanted:
        is_made = bench.version.manifest.credentials[name].engine == "transit"
        if name not in example.credentials and not is_made:
            yield f"credentials: the tool gets {name}: say what of it is minted"
    for name in example.credentials:
        if name not in wanted:
            yield f"credentials.{name}: the tool gets none of that name"


def _find_target_faults(bench: Bench, example: Example) -> Iterator[str]:
    wanted = bench.runtime(example).targets
    for name in example.targets:
        if name not in wanted:
            yield f"targets.{name}: the tool reaches none of that name"
    for name in wanted:
        if name in bench.real_targets:
            continue
        if name not in example.targets:
            yield f"targets: the tool reaches {name}: name a fake, or say --target {name}=HOST:PORT"
            continue
        fake = example.targets[name].fake
        program = bench.folder / fake
        if not program.is_file() or program.resolve() != (bench.folder.resolve() / fake):
            yield f"targets.{name}: there is no plain file {fake}"


def _find_unread(bench: Bench, examples: Sequence[Example]) -> Iterator[Violation]:
    """Name each program that would run here, once; whoever tests may not have read it."""
    fakes = {
        target.fake: None
        for example in examples
        for name, target in example.targets.items()
        if name not in bench.real_targets and example.violations is None
    }
    text = "is a program of the bundle that would run here, outside of any sandbox: read it, then say --fakes"
    yield from (Violation(fake, text) for fake in fakes)
