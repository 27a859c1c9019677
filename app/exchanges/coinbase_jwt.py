"""Tokens for Coinbase Advanced Trade: a JWT signed with an API key of the Coinbase Developer Platform.

A token lives two minutes and belongs to one message. Pure: time and nonce are arguments. Only a key in use imports
`cryptography`. Nothing here keeps, shows or quotes the secret.

Source: docs.cdp.coinbase.com, Advanced Trade WebSocket authentication (2026-06).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import msgspec

from app.exchanges.base import Signer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: Seconds from `nbf` to `exp`, as the venue asks for.
LIFE_S = 120
#: Bytes of one of the two numbers of an ES256 signature.
_NUMBER_BYTES = 32

_REMEDY = "copy it whole: an EC key in PEM with both of its lines of dashes, or an Ed25519 key in base64"


def signer(api_key: str, api_secret: str) -> Signer:
    """What puts a fresh token of the key named `api_key` into a request.

    Raises: ValueError with the end of a sentence about `api_secret`.
    """
    key = private_key(api_secret)

    def signed(frame: str, now_s: int, nonce: str) -> str:
        message = msgspec.json.decode(frame)
        message["jwt"] = token(key, api_key, now_s, nonce)
        return msgspec.json.encode(message).decode()

    return signed


def private_key(text: str) -> EllipticCurvePrivateKey | Ed25519PrivateKey:
    """The key that `text` is: PEM (SEC1 or PKCS#8, line ends also as `\\n` in two characters), or base64 of an Ed25519
    seed (32 bytes), its public key behind it or not (64).

    Raises: ValueError with the end of a sentence.
    """
    text = text.replace("\\r", "").replace("\\n", "\n").strip()
    return _from_pem(text) if text.startswith("-----BEGIN") else _from_base64(text)


def token(key: EllipticCurvePrivateKey | Ed25519PrivateKey, name: str, now_s: int, nonce: str) -> str:
    """A token of the key named `name`, valid from `now_s` (seconds since the Unix epoch) on."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    algorithm = "EdDSA" if isinstance(key, Ed25519PrivateKey) else "ES256"
    header = {"alg": algorithm, "typ": "JWT", "kid": name, "nonce": nonce}
    claims = {"iss": "cdp", "sub": name, "nbf": now_s, "exp": now_s + LIFE_S}
    signed = b".".join(_base64url(msgspec.json.encode(part)) for part in (header, claims))
    signature = key.sign(signed) if isinstance(key, Ed25519PrivateKey) else _es256(key, signed)
    return b".".join((signed, _base64url(signature))).decode()


def _es256(key: EllipticCurvePrivateKey, signed: bytes) -> bytes:
    """The two numbers of the signature, one behind the other: a JWT takes no DER."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256

    r, s = decode_dss_signature(key.sign(signed, ECDSA(SHA256())))
    return r.to_bytes(_NUMBER_BYTES, "big") + s.to_bytes(_NUMBER_BYTES, "big")


def _from_pem(text: str) -> EllipticCurvePrivateKey | Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise ValueError("is a key with a password; give the key as it was downloaded, without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"is no private key that can be read; {_REMEDY}") from None
    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    raise ValueError("is a key of another kind; Coinbase signs with ECDSA on the curve P-256 or with Ed25519")


def _from_base64(text: str) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"is neither PEM nor base64; {_REMEDY}") from None
    if len(data) not in (32, 64):
        raise ValueError(f"is base64 of {len(data)} bytes, an Ed25519 key has 32 or 64; {_REMEDY}")
    key = Ed25519PrivateKey.from_private_bytes(data[:32])
    if data[32:] not in (b"", key.public_key().public_bytes_raw()):
        raise ValueError(f"is base64 of 64 bytes whose halves do not belong together; {_REMEDY}")
    return key


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
