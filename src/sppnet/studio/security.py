"""Who may talk to the studio: pages that were opened with the token, from this server's own address.

The token in the address becomes a cookie that scripts can't read and other sites can't send. ``Host`` is checked
against the names of this server (DNS rebinding), ``Origin`` and ``Sec-Fetch-Site`` against other sites' requests.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.responses import JSONResponse, RedirectResponse, Response

__all__ = ["CONTENT_SECURITY_POLICY", "Guard"]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
]

_log = logging.getLogger("sppnet.studio")


class Guard:
    """ASGI middleware: checks of each request, and headers of each answer.

    Args:
        app: what is guarded.
        token: that a request must know; None lets every request in that passes the other checks.
        hosts: values of ``Host`` that are this server; None allows each (the server listens on other addresses).
        max_body_bytes: of requests.
        open_paths: paths that need no token.
        large_paths: paths of files that are written to the disk as they come, with the most bytes of each.
        cookie: its name. Browsers tell cookies by the host, not by the port: two studios need two names.
    """

    def __init__(
        self,
        app: Any,
        token: str | None,
        hosts: frozenset[str] | None,
        max_body_bytes: int,
        open_paths: frozenset[str] = frozenset(),
        large_paths: Mapping[str, int] | None = None,
        cookie: str = "sppnet_studio",
    ) -> None:
        self.app, self.token, self.hosts, self.max_body_bytes = app, token, hosts, max_body_bytes
        self.open_paths = open_paths
        self.large_paths = large_paths or {}
        self.cookie = cookie

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await self._finish(refusal, scope, receive, send)
            return
        await self.app(scope, self._bounded(receive, self._most(scope)), self._with_headers(send))

    def _refusal(self, scope: Any) -> Response | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.hosts is not None and host.lower() not in self.hosts:
            return _refuse(scope, 421, f"the studio is not {host!r:.60}; use the address that it printed")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return _refuse(scope, 403, "requests of other sites are refused")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            navigation = (
                headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET" and scope["path"] == "/"
            )
            if not navigation:
                return _refuse(scope, 403, "requests of other sites are refused")
        length = headers.get("content-length", "0")
        most = self._most(scope)
        if not length.isdigit() or int(length) > most:
            return _refuse(scope, 413, f"the request is larger than {most >> 20} MB")
        if self.token is None or scope["path"] in self.open_paths:
            return None
        if scope["path"] == "/" and scope["method"] == "GET":
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if given and self._is_token(given):
                response = RedirectResponse("/", 303)
                response.set_cookie(self.cookie, given, httponly=True, samesite="strict", max_age=31536000)
                return response
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind == "Bearer" and self._is_token(secret):
            return None
        if kind == "Basic" and self._is_token(_password(secret)):
            return None
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            cookie = None
        if cookie is not None and self._is_token(cookie.value):
            return None
        return _refuse(scope, 401, "the token is missing or wrong; open the address that the studio printed")

    def _is_token(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def _most(self, scope: Any) -> int:
        return (
            self.large_paths.get(scope["path"], self.max_body_bytes)
            if scope["method"] == "POST"
            else self.max_body_bytes
        )

    def _bounded(self, receive: Any, most: int) -> Any:
        """Count what comes in: a body without a length must not be endless."""
        total = 0

        async def bounded() -> Any:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > most:
                return {"type": "http.disconnect"}
            return message

        return bounded

    def _with_headers(self, send: Any) -> Any:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in _HEADERS if h[0] not in names)]
            await send(message)

        return with_headers

    async def _finish(self, response: Response, scope: Any, receive: Any, send: Any) -> None:
        await response(scope, receive, self._with_headers(send))


def _password(secret: str) -> str:
    try:
        return base64.b64decode(secret, validate=True).decode("utf-8", "replace").partition(":")[2]
    except binascii.Error:
        return ""


def _refuse(scope: Any, status: int, message: str) -> Response:
    _log.warning("refused %s %r: %s", scope["method"], scope["path"][:200], message)
    return JSONResponse({"error": message}, status, headers={"connection": "close"})
