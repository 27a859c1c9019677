"""Who may ask: by the address that is listened on, by the token, and by the name that was asked for."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from starlette.datastructures import Headers

from app.web.guard import HEADERS, MOST_ADDRESSES, MOST_WRONG, Guard, carries, hostname, is_loopback

TOKEN = "a-token-of-some-length"


def basic(password: str, user: str = "me") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def refused(
    path: str,
    name: str = "127.0.0.1:9090",
    *,
    listens: str = "127.0.0.1",
    token: str | None = None,
    method: str = "GET",
    **headers: str,
) -> tuple[int, str] | None:
    """Status and body of the refusal of a question under `name`, None where there is none."""
    guard = Guard(lambda *_: pytest.fail("not asked for"), listens, token)  # type: ignore[arg-type]
    answer = guard.refusal(method, path, Headers({"host": name} | headers))
    return None if answer is None else (answer.status_code, bytes(answer.body).decode())


@pytest.mark.parametrize(
    "name", ["127.0.0.1:9090", "localhost:9090", "LOCALHOST", "[::1]:9090", "127.8.9.1", "localhost."]
)
def test_on_loopback_this_machine_may_ask_under_its_own_names(name: str) -> None:
    assert refused("/api/overview", name) is None


@pytest.mark.parametrize(
    "name",
    ["evil.example:9090", "127.0.0.1.evil.example", "", "10.0.0.7:9090", "[::1", "localhost@evil.example", "0.0.0.0"],
)
def test_on_loopback_a_page_that_lets_its_name_mean_this_machine_is_refused(name: str) -> None:
    for path in ("/", "/api/overview", "/metrics", "/static/main.js"):
        status, words = refused(path, name) or (0, "")
        assert status == 403 and "no name of this machine" in words


def elsewhere(path: str, token: str | None = TOKEN, **headers: str) -> tuple[int, str] | None:
    """The same where others can ask."""
    return refused(path, "collector.example", listens="0.0.0.0", token=token, **headers)


def test_where_others_can_ask_nothing_but_health_is_told_without_a_token_and_the_words_say_what_to_set() -> None:
    for path in ("/", "/api/overview", "/api/stream", "/metrics", "/static/main.js", "/health/", "//health"):
        status, words = elsewhere(path, token=None) or (0, "")
        assert status == 403 and "COLLECTOR_WEB__TOKEN" in words and "127.0.0.1" in words
    assert elsewhere("/health", token=None) is None
    assert elsewhere("/ready", token=None) is None


@pytest.mark.parametrize(
    "given",
    [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN), basic(TOKEN, user=""), basic(TOKEN, user="päul")],
)
def test_the_token_opens_everything_as_bearer_or_as_password_of_anybody(given: str) -> None:
    for path in ("/", "/api/overview", "/metrics"):
        assert elsewhere(path, authorization=given) is None


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Digest {TOKEN}", "Basic", "Basic %%%",
     "Basic /w==", basic(""), basic(TOKEN[:-1]), basic("x", user=TOKEN), "Basic " + base64.b64encode(TOKEN.encode()).decode()],
)  # fmt: skip
def test_anything_else_is_asked_for_the_token(given: str) -> None:
    guard = Guard(lambda *_: pytest.fail("not asked for"), "0.0.0.0", TOKEN)  # type: ignore[arg-type]
    answer: Any = guard.refusal("GET", "/metrics", Headers({"authorization": given}))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert TOKEN not in bytes(answer.body).decode()


def test_a_token_that_is_set_is_wanted_on_loopback_too() -> None:
    assert (refused("/", token=TOKEN) or (0, ""))[0] == 401
    assert refused("/", "collector.example", token=TOKEN, authorization=basic(TOKEN)) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_nothing_can_be_changed(method: str) -> None:
    for path in ("/health", "/", "/api/overview"):
        assert (refused(path, method=method) or (0, ""))[0] == 405


def test_the_token_is_compared_as_a_whole() -> None:
    assert carries(f"Bearer {TOKEN}", TOKEN)
    assert not carries(f"Bearer {TOKEN} {TOKEN}", TOKEN)
    assert not carries("Bearer ", TOKEN)


def test_who_brings_too_many_wrong_tokens_is_looked_at_again_in_the_next_minute_and_others_at_once() -> None:
    now_s = 60_015.0
    guard = Guard(lambda *_: pytest.fail("not asked for"), "0.0.0.0", TOKEN, lambda: now_s)  # type: ignore[arg-type]

    def ask(authorization: str, address: str = "192.0.2.1", path: str = "/metrics") -> Any:
        headers = Headers({"authorization": authorization} if authorization else {})
        return guard.refusal("GET", path, headers, address)

    def status(*of: str) -> int:
        answer = ask(*of)
        return 200 if answer is None else int(answer.status_code)

    right, wrong = f"Bearer {TOKEN}", basic("a-guess-of-some-length")
    # /health is open, and no way to guess either.
    assert [status(wrong), status(wrong, "192.0.2.1", "/health")] == [401, 200]
    assert [status(wrong) for _ in range(MOST_WRONG)] == [401] * (MOST_WRONG - 2) + [429] * 2
    refused = ask(right)
    assert refused.status_code == 429 and 45 <= int(refused.headers["retry-after"]) <= 46
    assert TOKEN not in bytes(refused.body).decode()
    assert status(wrong, "192.0.2.1", "/health") == 429
    # Who brings no token guesses nothing, and who is elsewhere did not.
    assert [status(""), status("", "192.0.2.1", "/health")] == [401, 200]
    assert [status(right, "192.0.2.2"), status(wrong, "192.0.2.2")] == [200, 401]
    now_s += 45
    assert [status(right), status(wrong)] == [200, 401]
    for number in range(MOST_ADDRESSES + 5):
        status(wrong, str(number))
    assert len(guard._wrong) <= MOST_ADDRESSES


def test_the_right_token_is_welcome_however_often_it_comes() -> None:
    guard = Guard(lambda *_: pytest.fail("not asked for"), "0.0.0.0", TOKEN)  # type: ignore[arg-type]
    for _ in range(5 * MOST_WRONG):
        assert guard.refusal("GET", "/metrics", Headers({"authorization": f"Bearer {TOKEN}"}), "192.0.2.1") is None


def test_names_and_addresses() -> None:
    assert [hostname(h) for h in ("a.b:80", "[::1]:9", "a@b:1", "x:y:z", "[")] == ["a.b", "::1", "b", "x", ""]
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "", "192.168.0.1")] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip


def test_the_policy_allows_own_files_and_nothing_inline() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in HEADERS["Content-Security-Policy"].split(";"))
    assert rules == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'",
        "img-src": "'self' data:", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip
