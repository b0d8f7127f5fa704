"""What a handler gives back as files: what is taken, and what is refused before anybody opens it."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes.artefacts import MAX_RATIO, ArtefactRefused, Basket
from sandboxes.docker_driver import DockerDriver
from sandboxes.outcome import OutcomeKind, RawArtefact
from tests.parts.engine import Obedient, TestLimits
from toolcrib.handler.v1.handler_pb2 import Artefact

LIMITS = TestLimits(artefacts=2, artefact_kib=4)
ZEROS = bytes(10_000_000)


def _zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", content)
    return buffer.getvalue()


def test_takes_what_the_manifest_allows() -> None:
    basket = Basket(LIMITS)
    basket.take(Artefact(name="a.csv", media_type="text/csv", content=b"1,2"))
    basket.take(Artefact(name="b", content=bytes(4093)))
    basket.check_ratios()
    assert basket.files[0] == RawArtefact("a.csv", "text/csv", b"1,2")
    assert basket.files[1].media_type == "application/octet-stream"


@pytest.mark.parametrize(
    ("artefact", "why"),
    [
        (Artefact(name="big", content=bytes(4097)), "larger"),
        (Artefact(name="../up"), "name"),
        (Artefact(name=".hidden"), "name"),
        (Artefact(name="a/b"), "name"),
        (Artefact(name=""), "name"),
        (Artefact(name="x" * 101), "name"),
        (Artefact(name="a\u202eb"), "name"),
        (Artefact(name="a", media_type="text/csv; x=\n"), "media type"),
    ],
)
def test_refuses(artefact: Artefact, why: str) -> None:
    with pytest.raises(ArtefactRefused, match=why):
        Basket(LIMITS).take(artefact)


def test_refuses_one_name_twice_and_one_file_too_many() -> None:
    basket = Basket(LIMITS)
    basket.take(Artefact(name="a"))
    with pytest.raises(ArtefactRefused, match="twice"):
        basket.take(Artefact(name="a"))
    with pytest.raises(ArtefactRefused, match="more artefacts"):
        basket.take(Artefact(name="b"))


@pytest.mark.parametrize("pack", [_zip, gzip.compress, zlib.compress])
def test_refuses_what_unpacks_to_too_much(pack: object) -> None:
    assert callable(pack)
    basket = Basket(replace(LIMITS, artefact_kib=1024))
    basket.take(Artefact(name="bomb", content=pack(ZEROS)))
    with pytest.raises(ArtefactRefused, match=f"{MAX_RATIO} times"):
        basket.check_ratios()


def _second_member(content: bytes) -> bytes:
    return gzip.compress(b"") + gzip.compress(content)


def _behind_a_letter(content: bytes) -> bytes:
    return b"x" + _zip(content)


def _zip_that_lies(content: bytes) -> bytes:
    data = bytearray(_zip(content))
    place = data.rindex(b"PK\x01\x02") + 24  # the size of the entry unpacked
    data[place : place + 4] = (5).to_bytes(4, "little")
    return bytes(data)


def _xz_of_much_memory(content: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 << 20}]
    return lzma.compress(content[:1], filters=filters)


@pytest.mark.parametrize(
    "pack",
    [_second_member, _behind_a_letter, _zip_that_lies, bz2.compress, lzma.compress, _xz_of_much_memory],
)
def test_refuses_a_bomb_that_hides(pack: Callable[[bytes], bytes]) -> None:
    basket = Basket(replace(LIMITS, artefact_kib=1024))
    basket.take(Artefact(name="bomb", content=pack(ZEROS)))
    with pytest.raises(ArtefactRefused, match=f"{MAX_RATIO} times"):
        basket.check_ratios()


def test_refuses_an_archive_whose_index_alone_would_fill_the_memory() -> None:
    basket = Basket(replace(LIMITS, artefact_kib=1024))
    basket.take(Artefact(name="bomb", content=(b"PK\x01\x02" + bytes(42)) * 10_001))
    with pytest.raises(ArtefactRefused, match="10000 files"):
        basket.check_ratios()


@given(st.sampled_from([_zip, gzip.compress, bz2.compress, lzma.compress, zlib.compress]), st.data())
def test_has_no_error_of_its_own_for_a_broken_archive(
    pack: Callable[[bytes], bytes], data: st.DataObject
) -> None:
    content = bytearray(pack(b"a" * 300))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place : place + 8] = data.draw(st.binary(max_size=8))
    basket = Basket(LIMITS)
    basket.take(Artefact(name="a", content=bytes(content)))
    with contextlib.suppress(ArtefactRefused):
        basket.check_ratios()


@pytest.mark.parametrize("content", [b"PK\x03\x04 no zip", b"\x1f\x8b no gzip", b"x is no zlib", b""])
def test_takes_what_only_looks_like_an_archive(content: bytes) -> None:
    basket = Basket(LIMITS)
    basket.take(Artefact(name="a", content=content))
    basket.check_ratios()


GIVE = """
import os
folder = context.artefact_folder
open(folder + "/a.txt", "w").write("hello" * 1000)
context.give_artefact("a.txt", "text/plain")
"""


@pytest.mark.engine
async def test_gives_files_back_from_a_container(obedient: Obedient) -> None:
    outcome = await obedient.within(artefacts=1, artefact_kib=8).run(GIVE)
    assert outcome.artefacts == (RawArtefact("a.txt", "text/plain", b"hello" * 1000),)


@pytest.mark.engine
async def test_calls_a_file_that_nobody_allowed_a_crash(obedient: Obedient, driver: DockerDriver) -> None:
    outcome = await obedient.run(GIVE)
    assert outcome.kind is OutcomeKind.CRASHED
    assert "none are allowed" in outcome.detail


@pytest.mark.engine
async def test_keeps_the_cap_of_other_output(obedient: Obedient) -> None:
    allowed = obedient.within(artefacts=1, artefact_kib=512, output_kib=4)
    outcome = await allowed.run("answer = 'x' * 5000")
    assert outcome.kind is OutcomeKind.OUTPUT_TOO_LARGE
