"""What a caller is told when a request fails, before it is put into the words of one wire format."""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """An answer that is an error.

    Attributes: ``status``, ``kind`` (OpenAI's ``type``), ``param``, ``code`` and further ``headers``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


class Gone(Exception):
    """The caller closed the connection."""


def need(condition: bool, param: str, expected: str) -> None:
    """Raise the 400 of a parameter that is not as expected."""
    if not condition:
        raise ApiError(400, f"Invalid value for '{param}': expected {expected}.", param=param, code="invalid_value")


NO_RETRY: Mapping[str, str] = {"x-should-retry": "false"}
"""Tells OpenAI's and Anthropic's SDKs that the same request will fail again."""
