"""Who asks: the subject of an HS256 token, as the worker verifies it too. An app
with Clerk, Auth0 or a library of its own keeps what it has."""

import base64
import hashlib
import hmac
import json
import os
import time

from fastapi import Header, HTTPException

SECRET = os.environ["AUTH_JWT_SECRET"].encode()


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def caller(authorization: str = Header("")) -> str:
    """The clerk_user_id of the caller; 401 without one."""
    try:
        scheme, token = authorization.split(" ")
        header, claims, signature = token.split(".")
        wanted = hmac.new(SECRET, f"{header}.{claims}".encode(), hashlib.sha256).digest()
        body = json.loads(_decode(claims))
        known = json.loads(_decode(header))["alg"] == "HS256" and hmac.compare_digest(wanted, _decode(signature))
        if scheme.lower() == "bearer" and known and body["exp"] > time.time():
            return body["sub"]
    except (ValueError, KeyError, TypeError):
        pass
    raise HTTPException(401, "Show a valid token", {"WWW-Authenticate": "Bearer"})
