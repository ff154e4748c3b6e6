"""Credentials of NATS with JWTs: an operator who signs an account, which signs a user."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING, Any

import nkeys

if TYPE_CHECKING:
    from pathlib import Path

_CORE = dict.fromkeys(["subs", "conn", "leaf", "imports", "exports", "data", "payload"], -1)
_JETSTREAM = dict.fromkeys(["mem_storage", "disk_storage", "streams", "consumer"], -1)


def _new_key(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(secrets.token_bytes(32), prefix))


def _sign(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, kind: str, **claims: Any) -> str:
    body = {
        "jti": secrets.token_hex(16),
        "iat": 1,
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": kind,
        "nats": {"type": kind, "version": 2, **claims},
    }
    parts = [_encode(json.dumps(each).encode()) for each in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)]
    return ".".join([*parts, _encode(issuer.sign(".".join(parts).encode()))])


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_credentials(path: Path) -> dict[str, Any]:
    """Write the file of a user, and return the configuration of a server that accepts it."""
    operator = _new_key(nkeys.PREFIX_BYTE_OPERATOR)
    system, account = (_new_key(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(2))
    seed = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    jwt = _sign(account, nkeys.from_seed(seed), "user", pub={}, sub={}, subs=-1, data=-1, payload=-1)
    begin, end = "-----BEGIN {0}-----\n", "\n------END {0}------\n"
    sections = (("NATS USER JWT", jwt), ("USER NKEY SEED", seed.decode()))
    path.write_text("\n".join(begin.format(name) + text + end.format(name) for name, text in sections))
    return {
        "operator": _sign(operator, operator, "operator"),
        "resolver": "MEMORY",
        "system_account": system.public_key.decode(),
        "resolver_preload": {
            system.public_key.decode(): _sign(operator, system, "account", limits=_CORE),
            account.public_key.decode(): _sign(operator, account, "account", limits=_CORE | _JETSTREAM),
        },
    }
