"""What a container lacks so that it breaks S10 or S11; never on the host itself."""

from __future__ import annotations

from dataclasses import dataclass

from sandboxes.hardening import Measure

_HOST_NETWORK = Measure("host-network", "HostConfig.NetworkMode", lambda spec: "host", "nothing")
_LARGE_TMP = Measure(
    "large-tmp", "HostConfig.Tmpfs", lambda spec: {"/tmp": "rw,size=64m,mode=1777"}, "nothing"
)


@dataclass(frozen=True, slots=True)
class Weakness:
    """Which measures are missing, and which stand in their place."""

    lacking: tuple[str, ...]
    more: tuple[Measure, ...] = ()


CONTAINMENT_VIOLATORS: dict[str, tuple[Weakness, ...]] = {
    "S10": (
        Weakness(("memory", "no-swap")),
        Weakness(("pids", "processes-inside")),
        Weakness(("tmp",), (_LARGE_TMP,)),
        Weakness(("open-files",)),
    ),
    "S11": (Weakness(("no-network",), (_HOST_NETWORK,)), Weakness(("seccomp",))),
}
