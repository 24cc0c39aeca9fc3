"""Access tokens: ours pass, everything an attacker may think of does not."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ff_cloud.auth.tokens import AUDIENCE, ISSUER, LIFE_S, TOKEN_BYTES_MAX, AccessClaims, TokenKeys
from ff_cloud.errors import NotLoggedIn
from ff_core.ids import UserId

SEED, OLD_SEED, FOREIGN_SEED = b"1" * 32, b"2" * 32, b"3" * 32
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
CLAIMS = AccessClaims(UserId(UUID(int=1)), UUID(int=2), UUID(int=3))
KEYS = TokenKeys(SEED, [OLD_SEED])
OURS = Ed25519PrivateKey.from_private_bytes(SEED)
FOREIGN = Ed25519PrivateKey.from_private_bytes(FOREIGN_SEED)
PUBLIC = OURS.public_key()

HEADER = {"alg": "Ed25519", "typ": "at+jwt", "kid": KEYS.kid}
PAYLOAD = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": str(CLAIMS.user_id),
    "sid": str(CLAIMS.session_id),
    "jti": str(CLAIMS.token_id),
    "iat": NOW_S,
    "nbf": NOW_S,
    "exp": NOW_S + 300,
}


def b64(part):
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header=HEADER, payload=PAYLOAD, key=OURS):
    text = f"{b64(header)}.{b64(payload)}"
    return f"{text}.{b64(key.sign(text.encode()))}"


def symmetric(secret, header=None):
    text = f"{b64(header or {**HEADER, 'alg': 'HS256'})}.{b64(PAYLOAD)}"
    return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def with_header(**changes):
    return signed({**HEADER, **changes})


def with_claims(**changes):
    return signed(payload={**PAYLOAD, **changes})


def without_header(name):
    return signed({key: value for key, value in HEADER.items() if key != name})


def without_claim(name):
    return signed(payload={key: value for key, value in PAYLOAD.items() if key != name})


FOREIGN_JWK = {"kty": "OKP", "crv": "Ed25519", "x": b64(FOREIGN.public_key().public_bytes_raw())}
NESTED = b'{"alg":"Ed25519","typ":"at+jwt","x":' + b"[" * 900 + b"]" * 900 + b"}"
HOSTILE = {
    "alg none": f"{b64({**HEADER, 'alg': 'none'})}.{b64(PAYLOAD)}.",
    "alg nOnE": f"{b64({**HEADER, 'alg': 'nOnE'})}.{b64(PAYLOAD)}.",
    "alg none with our signature": with_header(alg="none"),
    "alg missing": without_header("alg"),
    "alg EdDSA, the deprecated name": with_header(alg="EdDSA"),
    "alg a list": with_header(alg=["Ed25519"]),
    "HS256 with the public PEM as secret": symmetric(PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
    "HS256 with the raw public key as secret": symmetric(PUBLIC.public_bytes_raw()),
    "foreign key": signed(key=FOREIGN),
    "embedded jwk": signed({**HEADER, "jwk": FOREIGN_JWK}, key=FOREIGN),
    "embedded jwk without kid": signed({"alg": "Ed25519", "typ": "at+jwt", "jwk": FOREIGN_JWK}, key=FOREIGN),
    "jku": signed({**HEADER, "jku": "http://127.0.0.1:9/keys"}, key=FOREIGN),
    "kid unknown": with_header(kid="../../etc/passwd"),
    "kid missing": without_header("kid"),
    "kid a dict": with_header(kid={"a": 1}),
    "unknown crit": with_header(crit=["bork"], bork=1),
    "b64 false": with_header(crit=["b64"], b64=False),
    "typ missing": without_header("typ"),
    "typ of an ID token": with_header(typ="JWT"),
    "typ of a refresh token": with_header(typ="rt+jwt"),
    "aud wrong": with_claims(aud="other"),
    "aud missing": without_claim("aud"),
    "aud a list with ours": with_claims(aud=["other", AUDIENCE]),
    "iss wrong": with_claims(iss=ISSUER + ".evil"),
    "iss a prefix": with_claims(iss=ISSUER[:-1]),
    "iss missing": without_claim("iss"),
    "ended": with_claims(exp=NOW_S - 1),
    "ends now": with_claims(exp=NOW_S),
    "exp missing": without_claim("exp"),
    "exp as text": with_claims(exp="9999999999"),
    "exp as float": with_claims(exp=NOW_S + 300.5),
    "exp true": with_claims(exp=True),
    "exp null": with_claims(exp=None),
    "exp infinite": with_claims(exp=float("inf")),
    "nbf in the future": with_claims(nbf=NOW_S + 600),
    "nbf missing": without_claim("nbf"),
    "iat in the future": with_claims(iat=NOW_S + 600),
    "iat missing": without_claim("iat"),
    "sub missing": without_claim("sub"),
    "sub not an id": with_claims(sub="admin"),
    "sub a number": with_claims(sub=1),
    "sid missing": without_claim("sid"),
    "jti missing": without_claim("jti"),
    "signature changed": signed()[:-6] + "AAAAAA",
    "signature missing": signed().rpartition(".")[0] + ".",
    "payload of another token": ".".join([b64(HEADER), b64({**PAYLOAD, "sub": str(UUID(int=9))}), signed().split(".")[2]]),
    "payload a list": signed(payload=[1]),
    "payload not JSON": signed(payload=b"{"),
    "header not JSON": signed(header=b"{"),
    "header a list": signed(header=[1]),
    "header nested deeply": f"{b64(NESTED)}.{b64(PAYLOAD)}.{b64(b'x' * 64)}",
    "two segments": signed().rpartition(".")[0],
    "four segments": signed() + ".x",
    "trailing newline": signed() + "\n",
    "leading space": " " + signed(),
    "padded": signed() + "==",
    "too long": with_claims(pad="a" * TOKEN_BYTES_MAX),
    "2 MB": with_header(x="a" * 2_000_000),
    "not ASCII": "é.è.ê",
    "empty": "",
    "dots": "..",
    "NUL": "\0.\0.\0",
}


def test_our_own_token_passes_and_says_whose_it_is():
    token = KEYS.issue(CLAIMS, NOW)
    assert KEYS.verify(token, NOW) == CLAIMS
    assert KEYS.verify(token, NOW + timedelta(seconds=LIFE_S - 1)) == CLAIMS
    assert len(token) < 500


def test_the_handmade_token_passes_so_that_the_hostile_ones_fail_for_their_own_reason():
    assert KEYS.verify(signed(), NOW) == CLAIMS


@pytest.mark.parametrize("token", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_token_is_refused(token):
    with pytest.raises(NotLoggedIn):
        KEYS.verify(token, NOW)


def test_a_token_ends():
    token = KEYS.issue(CLAIMS, NOW)
    with pytest.raises(NotLoggedIn):
        KEYS.verify(token, NOW + timedelta(seconds=LIFE_S))


def test_a_server_whose_clock_is_a_little_ahead_is_believed():
    assert KEYS.verify(KEYS.issue(CLAIMS, NOW + timedelta(seconds=4)), NOW) == CLAIMS
    with pytest.raises(NotLoggedIn):
        KEYS.verify(KEYS.issue(CLAIMS, NOW + timedelta(seconds=10)), NOW)


def test_a_former_key_verifies_as_long_as_it_is_listed():
    token = TokenKeys(OLD_SEED).issue(CLAIMS, NOW)
    assert KEYS.verify(token, NOW) == CLAIMS
    with pytest.raises(NotLoggedIn):
        TokenKeys(SEED).verify(token, NOW)


def test_no_refusal_repeats_the_token():
    with pytest.raises(NotLoggedIn) as raised:
        KEYS.verify(HOSTILE["ended"], NOW)
    assert HOSTILE["ended"] not in raised.value.detail
