"""Structured logs: one JSON object a line, and never a word of a prompt, an answer or a key."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from dispatch_gateway.ask import Course
from dispatch_gateway.tenants import Tenant

log = logging.getLogger("dispatch_gateway.requests")


def log_request(
    endpoint: str,
    course: Course | None,
    *,
    status: int,
    seconds: float,
    tenant: Tenant,
    model: str,
    gone: bool,
) -> None:
    """One line for a request that has ended. ``status`` 0 means that nothing was answered."""
    if not log.isEnabledFor(logging.INFO):
        return
    facts: dict[str, Any] = {
        "endpoint": endpoint,
        "status": status,
        "seconds": round(seconds, 4),
        "key": tenant.name or None,
        "model": model or None,
        "gone": gone or None,
    }
    if course is not None:
        facts |= {
            "outcome": course.outcome,
            "deployment": course.deployment or None,
            "upstream_seconds": round(course.upstream, 4) or None,
            "queue_seconds": round(course.queued, 4) or None,
            "compressed_tokens": course.left_out or None,
        }
    log.info("request", extra={"facts": {name: value for name, value in facts.items() if value is not None}})


class JsonLines(logging.Formatter):
    """Every record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        return json.dumps(line, default=str)
