"""Tokens, verified with the public key as the venue would, and keys that are none. All keys are made here."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from app.exchanges.coinbase_jwt import private_key, signer

NAME = "organizations/0f/apiKeys/1e"
FRAME = '{"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}'
NOW_S = 1_790_000_000
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any, form: s.PrivateFormat, password: bytes = b"") -> str:
    lock = s.BestAvailableEncryption(password) if password else s.NoEncryption()
    return str(key.private_bytes(s.Encoding.PEM, form, lock), "ascii")


SEED, PUBLIC = ED.private_bytes_raw(), ED.public_key().public_bytes_raw()
SEC1, PKCS8 = pem(EC, s.PrivateFormat.TraditionalOpenSSL), pem(EC, s.PrivateFormat.PKCS8)
SECRETS = {
    "EC, SEC1": SEC1,
    "EC, PKCS#8": PKCS8,
    "EC, line ends in two characters": SEC1.replace("\n", "\\n"),
    "EC, line ends of Windows": PKCS8.replace("\n", "\\r\\n"),
    "EC, stripped": SEC1.strip(),
    "Ed25519, PKCS#8": pem(ED, s.PrivateFormat.PKCS8),
    "Ed25519, 32 bytes": base64.b64encode(SEED).decode(),
    "Ed25519, 64 bytes": base64.b64encode(SEED + PUBLIC).decode(),
    "Ed25519, 64 bytes on two lines": base64.encodebytes(SEED + PUBLIC).decode(),
}


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def verified(jwt: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token, its signature verified by the key its header names."""
    head, claims, signature = jwt.split(".")
    assert not set(jwt) & set("=+/")
    signed, raw = f"{head}.{claims}".encode(), decoded(signature)
    header = json.loads(decoded(head))
    assert len(raw) == 64
    if header["alg"] == "ES256":
        der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        EC.public_key().verify(der, signed, ec.ECDSA(SHA256()))
    else:
        ED.public_key().verify(raw, signed)
    return header, json.loads(decoded(claims))


@pytest.mark.parametrize("form", SECRETS)
def test_a_token_of_every_form_of_key_verifies_and_says_who_and_for_how_long(form: str) -> None:
    message = json.loads(signer(NAME, SECRETS[form])(FRAME, NOW_S, "0a0b"))
    header, claims = verified(message.pop("jwt"))
    assert message == json.loads(FRAME)
    assert header == {"alg": "EdDSA" if "Ed" in form else "ES256", "typ": "JWT", "kid": NAME, "nonce": "0a0b"}
    assert claims == {"iss": "cdp", "sub": NAME, "nbf": NOW_S, "exp": NOW_S + 120}


def test_the_numbers_of_a_signature_keep_their_zeros() -> None:
    """One number of 256 begins with a zero; the search is bounded far beyond chance."""
    signed = signer(NAME, SEC1)
    for nonce in range(10_000):
        jwt = json.loads(signed(FRAME, NOW_S, str(nonce)))["jwt"]
        raw = decoded(jwt.split(".")[2])
        if raw[0] == 0 or raw[32] == 0:
            break
    assert (raw[0] == 0 or raw[32] == 0, verified(jwt)[0]["nonce"]) == (True, str(nonce))


def test_each_call_makes_a_token_of_its_own_moment_and_nonce() -> None:
    signed = signer(NAME, SECRETS["Ed25519, 32 bytes"])
    told = [
        verified(json.loads(signed(FRAME, now_s, nonce))["jwt"]) for now_s, nonce in ((NOW_S, "a"), (NOW_S + 300, "b"))
    ]
    assert [(header["nonce"], claims["nbf"], claims["exp"]) for header, claims in told] == [
        ("a", NOW_S, NOW_S + 120),
        ("b", NOW_S + 300, NOW_S + 420),
    ]


def test_a_token_of_another_key_or_another_text_does_not_verify() -> None:
    other = signer(NAME, pem(ec.generate_private_key(ec.SECP256R1()), s.PrivateFormat.PKCS8))
    with pytest.raises(InvalidSignature):
        verified(json.loads(other(FRAME, NOW_S, "a"))["jwt"])
    head, _, signature = json.loads(signer(NAME, SEC1)(FRAME, NOW_S, "a"))["jwt"].split(".")
    with pytest.raises(InvalidSignature):
        verified(f"{head}.{base64.urlsafe_b64encode(b'{}').decode().rstrip('=')}.{signature}")


@cache
def wrong(what: str) -> str:
    match what:
        case "another curve":
            return pem(ec.generate_private_key(ec.SECP384R1()), s.PrivateFormat.PKCS8)
        case "another kind":
            return pem(rsa.generate_private_key(65537, 2048), s.PrivateFormat.PKCS8)
        case "a password":
            return pem(EC, s.PrivateFormat.PKCS8, b"hush")
        case "a public key":
            return str(EC.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo), "ascii")
        case "cut off":
            return PKCS8[:120]
        case "31 bytes":
            return base64.b64encode(SEED[:31]).decode()
        case "halves of two keys":
            return base64.b64encode(SEED + bytes(32)).decode()
        case _:
            return "nöt a key, surely: CANARY"


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("another curve", "is a key of another kind; Coinbase signs with ECDSA on the curve P-256 or with Ed25519"),
        ("another kind", "is a key of another kind; Coinbase signs with ECDSA on the curve P-256 or with Ed25519"),
        ("a password", "is a key with a password; give the key as it was downloaded, without one"),
        ("a public key", "is no private key that can be read; copy it whole"),
        ("cut off", "is no private key that can be read; copy it whole"),
        ("31 bytes", "is base64 of 31 bytes, an Ed25519 key has 32 or 64; copy it whole"),
        ("halves of two keys", "is base64 of 64 bytes whose halves do not belong together; copy it whole"),
        ("prose", "is neither PEM nor base64; copy it whole"),
    ],
)
def test_what_is_no_key_is_told_in_one_sentence_that_does_not_quote_it(what: str, sentence: str) -> None:
    with pytest.raises(ValueError) as raised:
        private_key(wrong(what))
    assert str(raised.value).startswith(sentence)
    assert "\n" not in str(raised.value)
    told = "".join(traceback.format_exception(raised.value))
    lines = [line for line in wrong(what).splitlines() if len(line) > 8 and not line.startswith("-----")]
    assert [line for line in lines if line in told] == []


def test_what_signs_does_not_show_its_key() -> None:
    signed = signer(NAME, SEC1)
    shown = repr(signed) + str(vars(signed))
    assert [line for line in SEC1.splitlines() if line in shown] == []


def test_without_a_key_in_use_the_library_is_not_loaded() -> None:
    code = "import sys, app.exchanges; print('cryptography' in sys.modules)"
    root = Path(__file__).parents[3]
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True) == "False\n"
