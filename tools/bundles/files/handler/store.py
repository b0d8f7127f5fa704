"""A tenant's folder on the file server, one request at a time.

Rules:
1. Every address is /TENANT/ and then the path, each part percent-encoded. The tenant is the call's, so no
   argument can name another one's folder; the contract lets no part begin with a dot, so none leads up and
   none reaches `.toolcrib`, where the marks of writes are.
2. What the server says never stands in a message of ours.
3. Until the MOVE of a write was sent, nothing happened that an agent could see.
4. The login is not here: it is added to requests on their way, as tool.yaml says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from toolcrib.handler import Failure
from toolcrib.handler.http_target import HttpAnswer, HttpFailed, HttpRequest, send

if TYPE_CHECKING:
    from toolcrib.handler import Context

TARGET = "files-store"
MOST_FILE_BYTES = 2 * 1024 * 1024
# Kept back from the deadline, so that the answer still gets out.
_RESERVE_SECONDS = 1.0
_NO_PART = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f\\]")


class Store:
    """The folder of the call's tenant."""

    def __init__(self, context: Context) -> None:
        self._target = context.targets[TARGET]
        self._host = self._target.settings.get("host", "files.invalid")
        self._context = context

    def place(self, path: str) -> str:
        """Give the address of a file or folder on the server.

        Raises:
            Failure: PATH_INVALID; the contract refuses it before, this is the second look.
        """
        if path and _NO_PART.search(path.removesuffix("/")):
            raise Failure("PATH_INVALID", "The path has an empty part, '.', '..' or a control character.")
        return f"/{quote(self._context.tenant, safe='')}/{quote(path)}"

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        effect_if_lost: bool = False,
    ) -> HttpAnswer:
        """Send one request about a path.

        Args:
            method: HTTP's.
            path: In the tenant's folder.
            body: Of a PUT.
            headers: More headers.
            effect_if_lost: Without an answer nobody knows whether the write happened.

        Raises:
            Failure: STORE_UNAVAILABLE, STORE_DENIED, TARGET_NOT_SET_UP, or WRITE_UNKNOWN.
        """
        request = HttpRequest(method, self.place(path), self._host, headers or {}, body, MOST_FILE_BYTES)
        try:
            answer = send(self._target, request, self._seconds())
        except HttpFailed as error:
            if effect_if_lost and error.was_sent:
                text = "The connection ended before the file server said whether it wrote."
                raise Failure("WRITE_UNKNOWN", text, effect="unknown") from error
            text = "The file server cannot be reached, or gave no answer. Nothing was written."
            raise Failure("STORE_UNAVAILABLE", text, retryable=True) from error
        except ValueError as error:  # before anything is sent
            raise Failure("TARGET_NOT_SET_UP", "The target's setting `host` is no name of a host.") from error
        if answer.status in (401, 403):
            raise Failure("STORE_DENIED", "The file server does not let this tool do that.")
        return answer

    def read(self, path: str) -> HttpAnswer | None:
        """Get a file; None where there is none.

        Raises:
            Failure: FILE_TOO_LARGE, IS_FOLDER, or what `ask` raises.
        """
        answer = self.ask("GET", path)
        if answer.status == 404:
            return None
        if 300 <= answer.status <= 399:  # nginx sends from a folder to its name with a slash
            raise Failure("IS_FOLDER", "That is a folder; ListFolder lists it.")
        if answer.is_cut:
            raise Failure("FILE_TOO_LARGE", "The file is larger than 2 MiB.")
        return self.expect(answer, 200)

    def expect(self, answer: HttpAnswer, *statuses: int) -> HttpAnswer:
        """Give the answer back where its status is one of these.

        Raises:
            Failure: STORE_REFUSED.
        """
        if answer.status not in statuses:
            text = f"The file server answered {answer.status}; nothing was written."
            raise Failure("STORE_REFUSED", text, retryable=answer.status >= 500)
        return answer

    def address(self, path: str) -> str:
        """Give the whole URL of a path, as the header Destination wants it."""
        return f"http://{self._host}{self.place(path)}"

    def _seconds(self) -> float:
        return max(self._context.remaining_seconds - _RESERVE_SECONDS, 0.1)
