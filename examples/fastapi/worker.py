"""The worker, as the app sees it: one function to write with, one to read with."""

import json
import os
import urllib.error
import urllib.request
from typing import Any, Mapping, Optional

from fastapi import Request, Response
from sqlalchemy import text

WORKER_URL = os.environ.get("WORKER_URL", "http://127.0.0.1:8001")

# What of a request the worker has to see, and of its answer the caller.
ASKED = ("Authorization", "If-None-Match", "X-Min-Xid", "Prefer")
ANSWERED = ("Content-Type", "Cache-Control", "ETag", "Age", "Cache-Status", "X-Cache", "Retry-After", "RateLimit", "RateLimit-Policy")


def publish(session, type: str, subject: Optional[str] = None, data: Optional[Mapping[str, Any]] = None) -> str:
    """Publishes an event with the session's transaction: if that commits, every
    consumer gets it, and if it is rolled back, nobody does."""
    return session.execute(
        text("SELECT mythic_cache.publish(:type, :subject, CAST(:data AS jsonb))"),
        {"type": type, "subject": subject, "data": None if data is None else json.dumps(data)},
    ).scalar_one()


def transaction_id(session) -> str:
    """The transaction that a later read must have seen, for X-Min-Xid."""
    return str(session.execute(text("SELECT pg_current_xact_id()")).scalar_one())


def read(path: str, request: Request) -> Response:
    """Answers with what the worker has, in its own bytes. A proxy that routes the
    path to the worker (see Caddyfile, nginx.conf) spares the app even this."""
    headers = {name: request.headers[name] for name in ASKED if name in request.headers}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(WORKER_URL + path, headers=headers), timeout=5)
    except urllib.error.HTTPError as error:  # 304 and 404 are answers too
        answer = error
    except OSError:
        return Response('{"title":"The cache worker does not answer","status":503}', 503, {"Retry-After": "1"}, "application/problem+json")
    with answer:
        kept = {name: answer.headers[name] for name in ANSWERED if name in answer.headers}
        return Response(answer.read(), answer.status, kept)
