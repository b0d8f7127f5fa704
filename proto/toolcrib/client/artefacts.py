"""Follows the parts of a file that a call gave back, and checks the whole of them."""

from __future__ import annotations

import hashlib

from toolcrib.client.errors import Failed
from toolcrib.v1 import broker_pb2


class PartCheck:
    """Where to read on, and whether what was read is the file that the first part announced.

    Args:
        call_id: The call.
        name: The file.
    """

    def __init__(self, call_id: str, name: str) -> None:
        self.is_open = True
        self._call_id, self._name = call_id, name
        self._offset = 0
        self._announced: tuple[int, str] | None = None
        self._hash = hashlib.sha256()

    def request(self) -> broker_pb2.GetArtefactRequest:
        """Ask for the next part."""
        return broker_pb2.GetArtefactRequest(call_id=self._call_id, name=self._name, offset=self._offset)

    def take(self, part: broker_pb2.GetArtefactResponse) -> None:
        """Note a part.

        Raises:
            Failed: RESULT_INVALID, it does not follow the one before, or the whole is not what the first part
                announced.
        """
        size_bytes, sha256 = self._announced = self._announced or (part.size_bytes, part.sha256)
        self._hash.update(part.content)
        end = self._offset + len(part.content)
        self.is_open = part.next_offset != 0
        follows = part.next_offset == end < size_bytes if self.is_open else end == size_bytes
        whole = self.is_open or self._hash.hexdigest() == sha256
        if not (follows and whole) or (self.is_open and not part.content):
            self.is_open = False
            message = f"{self._name}: the parts are not the file; read it again"
            raise Failed("RESULT_INVALID", message, call_id=self._call_id)
        self._offset = end
