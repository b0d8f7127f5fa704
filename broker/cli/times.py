"""Times, durations and enum values of the public API as people read them."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp


def write_time(message: Any, name: str) -> str:
    """Write a timestamp field as UTC with milliseconds; "" when it is not set."""
    if not message.HasField(name):
        return ""
    moment: Timestamp = getattr(message, name)
    return moment.ToDatetime(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_second(message: Any, name: str) -> str:
    """Write a timestamp field to the second, for tables."""
    return write_time(message, name)[:19].replace("T", " ")


def write_span(micros: int) -> str:
    """Write a duration in the unit that suits it: "840 µs", "12.3 ms", "2.10 s"."""
    if micros < 1_000:
        return f"{micros} µs"
    if micros < 1_000_000:
        return f"{micros / 1_000:.1f} ms"
    return f"{micros / 1_000_000:.2f} s"


def write_short_id(image_or_container: str) -> str:
    """Shorten an image or container id as the engine's own tools do."""
    return image_or_container.removeprefix("sha256:")[:12]
