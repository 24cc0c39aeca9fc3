"""Access tokens: ours pass, everything an attacker may think of does not."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ff_cloud.auth import refresh_tokens, tokens
from ff_cloud.auth.tokens import AUDIENCE, ISSUER, LIFE_S, TOKEN_BYTES_MAX, AccessClaims, KeyUnknown, SigningKey
from ff_cloud.errors import NotLoggedIn
from ff_core.ids import UserId

SEED, OLD_SEED, FOREIGN_SEED = b"1" * 32, b"2" * 32, b"3" * 32
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
CLAIMS = AccessClaims(UserId(UUID(int=1)), UUID(int=2), UUID(int=3))
SIGNING, OLD = SigningKey.of_seed(SEED), SigningKey.of_seed(OLD_SEED)
KEYS = {key.kid: tokens.verifying_key(key.public) for key in (SIGNING, OLD)}
OURS = Ed25519PrivateKey.from_private_bytes(SEED)
FOREIGN = Ed25519PrivateKey.from_private_bytes(FOREIGN_SEED)
PUBLIC = OURS.public_key()

HEADER = {"alg": "Ed25519", "typ": "at+jwt", "kid": SIGNING.kid}
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
    "jku with our signature": with_header(jku="http://127.0.0.1:9/keys"),
    "jwk with our signature": with_header(jwk=FOREIGN_JWK),
    "x5u": signed({**HEADER, "x5u": "http://127.0.0.1:9/chain"}, key=FOREIGN),
    "x5u with our signature": with_header(x5u="http://127.0.0.1:9/chain"),
    "x5c": signed({**HEADER, "x5c": ["MIIB"]}, key=FOREIGN),
    "kid a path": with_header(kid="../../etc/passwd"),
    "kid unknown and of another shape": signed({**HEADER, "kid": "A" * 13}, key=FOREIGN),
    "kid of another key of ours": with_header(kid=OLD.kid),
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
    "jti a number": with_claims(jti=1),
    "cut in the payload": signed()[:120],
    "cut in the signature": signed()[:-10],
    "cut to its header": signed().partition(".")[0] + "..",
    "a refresh token": refresh_tokens.generate()[0],
    "a refresh token in segments": refresh_tokens.generate()[0] + ".a.b",
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
    token = tokens.issue(CLAIMS, SIGNING, NOW)
    assert tokens.verify(token, KEYS, NOW) == CLAIMS
    assert tokens.verify(token, KEYS, NOW + timedelta(seconds=LIFE_S - 1)) == CLAIMS
    assert len(token) < 500


def test_the_handmade_token_passes_so_that_the_hostile_ones_fail_for_their_own_reason():
    assert tokens.verify(signed(), KEYS, NOW) == CLAIMS


@pytest.mark.parametrize("token", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_token_is_refused_like_every_other(token):
    with pytest.raises(NotLoggedIn) as raised:
        tokens.verify(token, KEYS, NOW)
    refusal = raised.value
    assert (refusal.code, refusal.detail, refusal.extra) == ("not_logged_in", NotLoggedIn().detail, {})
    assert not token or token not in str(refusal)


def test_only_an_unknown_key_of_the_right_shape_is_worth_asking_for():
    with pytest.raises(KeyUnknown):
        tokens.verify(signed({**HEADER, "kid": "AAAAAAAAAAAA"}, key=FOREIGN), KEYS, NOW)


def test_a_token_over_4_kb_is_refused_without_parsing():
    class Untouched(str):
        __slots__ = ()

        def split(self, *_):
            raise AssertionError

        rsplit = encode = split

    with pytest.raises(NotLoggedIn):
        tokens.verify(Untouched(HOSTILE["2 MB"]), KEYS, NOW)


def test_a_token_ends():
    token = tokens.issue(CLAIMS, SIGNING, NOW)
    with pytest.raises(NotLoggedIn):
        tokens.verify(token, KEYS, NOW + timedelta(seconds=LIFE_S))


def test_a_server_whose_clock_is_a_little_ahead_is_believed():
    assert tokens.verify(tokens.issue(CLAIMS, SIGNING, NOW + timedelta(seconds=4)), KEYS, NOW) == CLAIMS
    with pytest.raises(NotLoggedIn):
        tokens.verify(tokens.issue(CLAIMS, SIGNING, NOW + timedelta(seconds=10)), KEYS, NOW)


def test_a_former_key_verifies_as_long_as_it_is_given():
    token = tokens.issue(CLAIMS, OLD, NOW)
    assert tokens.verify(token, KEYS, NOW) == CLAIMS
    with pytest.raises(KeyUnknown):
        tokens.verify(token, {SIGNING.kid: KEYS[SIGNING.kid]}, NOW)


def test_the_text_of_a_key_does_not_show_its_secret():
    assert tokens.base64url(SEED) not in repr(SIGNING)
    assert tokens.from_base64url(tokens.base64url(SEED)) == SEED


def test_a_refresh_token_has_256_bits_and_only_its_hash_is_kept():
    made = [refresh_tokens.generate() for _ in range(50)]
    assert len({token for token, _ in made}) == 50
    for token, digest in made:
        assert token.startswith("ffr_")
        assert len(urlsafe_b64decode(token.removeprefix("ffr_") + "=")) == 32
        assert digest == refresh_tokens.sha256_of(token) == hashlib.sha256(token.encode()).digest()


@pytest.mark.parametrize(
    "text", ["", "ffr_", "ffr_" + "a" * 42, "ffr_" + "a" * 44, "ffk_" + "a" * 43, "ffr_" + "é" * 43, "ffr_" + "a" * 43 + "\n"]
)
def test_what_can_not_be_a_refresh_token_is_not_looked_up(text):
    assert refresh_tokens.sha256_of(text) is None
