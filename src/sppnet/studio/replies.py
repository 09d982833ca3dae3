"""Answers in JSON, and errors as messages that the page can show."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sppnet.errors import SppnetError
from sppnet.studio.project import ConflictError

__all__ = ["AsciiJSON", "failure", "json_handler"]

_log = logging.getLogger("sppnet.studio")


class AsciiJSON(JSONResponse):
    """JSON in ASCII: names of files needn't be UTF-8, and would end a list of images with an error."""

    def render(self, content: Any) -> bytes:
        """Give the body."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def json_handler(work: Callable[[Request, Any], Any]) -> Callable[[Request], Awaitable[Response]]:
    """Make a handler that reads JSON, works in a thread, and writes JSON; errors of the project become messages.

    Args:
        work: takes the request and its body, gives the answer.
    """

    async def handler(request: Request) -> Response:
        body: Any = None
        if request.method in ("POST", "PUT", "PATCH"):
            raw = await request.body()
            try:
                body = json.loads(raw) if raw else None
            except (ValueError, RecursionError):
                return AsciiJSON({"error": "the request is not JSON"}, 400)
        try:
            result = await run_in_threadpool(work, request, body)
        except (SppnetError, OSError) as error:
            return failure(error)
        return AsciiJSON(result, headers={"cache-control": "no-store"})

    return handler


def failure(error: Exception) -> AsciiJSON:
    """Give what the page shows of an error of the project, or of the disk."""
    if isinstance(error, ConflictError):
        return AsciiJSON({"error": str(error), "present": error.present}, 409)
    if isinstance(error, SppnetError):
        return AsciiJSON({"error": str(error)}, 400)
    _log.error("%s", error)
    return AsciiJSON({"error": f"the disk says: {error}"}, 507)
