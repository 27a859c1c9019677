"""Who may ask the web process, and what every answer says to a browser. It answers questions and changes nothing.

Bound to loopback it is open to this machine, but only under a name of this machine: a page of the internet that lets its
own name mean 127.0.0.1 (DNS rebinding) asks under another. Bound elsewhere it wants the token, and without one it answers
`/health` and `/ready` alone, in short. Wrong tokens are bounded by address: one of 16 characters or more is not found so.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.clock import monotonic_s

#: Asked by platforms that know no token, who are told the customer's five fields and nothing else (app/web/health.py).
OPEN = ("/health", "/ready")
#: Wrong tokens that one address may bring in a minute, and addresses that are counted.
MOST_WRONG, MOST_ADDRESSES, MINUTE_S = 30, 10_000, 60
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",
}
NO_TOKEN = (
    "this address can be reached by others and no token is set: set COLLECTOR_WEB__TOKEN (or COLLECTOR_WEB__TOKEN_FILE, "
    "or [web] token in .secrets.toml) to at least 16 characters, or bind to 127.0.0.1; /health and /ready are open"
)


class Guard:
    """`app` behind the rules above. `host`: the address that is listened on; `token`: [web] token."""

    def __init__(
        self, app: ASGIApp, host: str, token: str | None, monotonic_s: Callable[[], float] = monotonic_s
    ) -> None:
        self._app, self._token, self._now_s = app, token, monotonic_s
        self._loopback = is_loopback(host)
        #: Wrong tokens by address, of this minute.
        self._wrong: dict[str, int] = {}
        self._minute = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers, address = Headers(scope=scope), (scope.get("client") or ("",))[0]
        refusal = self.refusal(scope["method"], scope["path"], headers, address)
        #: `request.state.stranger`: asked by somebody who is told no more than is open.
        scope.setdefault("state", {})["stranger"] = self.keeps_out(headers) is not None
        await (refusal or self._app)(scope, receive, answer)

    def refusal(self, method: str, path: str, headers: Headers, address: str = "") -> JSONResponse | None:
        """The answer to a question of `address` that is refused, None where it is not."""
        if method not in ("GET", "HEAD"):
            return JSONResponse({"error": "nothing can be changed here"}, 405, {"Allow": "GET, HEAD"})
        given = headers.get("authorization", "")
        if self._token is not None and given and (wait_s := self._guessing(address, given, self._token)):
            error = f"{MOST_WRONG} wrong tokens came from your address within a minute: ask again in {wait_s} s"
            return JSONResponse({"error": error}, 429, {"Retry-After": str(wait_s)})
        return None if path in OPEN else self.keeps_out(headers)

    def keeps_out(self, headers: Headers) -> JSONResponse | None:
        """The answer to whoever may see only what is open, None to whoever may see everything."""
        if self._token is not None:
            if carries(headers.get("authorization", ""), self._token):
                return None
            ask = {"WWW-Authenticate": 'Basic realm="Collector", charset="UTF-8"'}
            return JSONResponse({"error": "give the token: as password of any user, or as bearer token"}, 401, ask)
        if not self._loopback:
            return JSONResponse({"error": NO_TOKEN}, 403)
        if not is_loopback(name := hostname(headers.get("host", ""))):
            error = f"{name[:255]!r} is no name of this machine: ask for 127.0.0.1 or localhost, or set [web] token"
            return JSONResponse({"error": error}, 403)
        return None

    def _guessing(self, address: str, given: str, token: str) -> int:
        """Seconds until a token of `address` is looked at again, also the right one; 0: this one was, and counts if wrong."""
        now_s = self._now_s()
        if (minute := int(now_s // MINUTE_S)) != self._minute or len(self._wrong) >= MOST_ADDRESSES:
            self._wrong, self._minute = {}, minute
        wrong = self._wrong.get(address, 0)
        if wrong >= MOST_WRONG:
            return int((minute + 1) * MINUTE_S - now_s) + 1
        if not carries(given, token):
            self._wrong[address] = wrong + 1
        return 0


def carries(authorization: str, token: str) -> bool:
    """Whether the header has the token, as bearer token or as the password of a user of any name.

    The comparison takes as long whatever is wrong with it.
    """
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given.strip(), validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode(), token.encode())


def hostname(host: str) -> str:
    """The name in a Host header, without its port and the brackets of an IPv6 address."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine and no other."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
