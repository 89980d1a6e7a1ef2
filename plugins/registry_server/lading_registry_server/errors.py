"""Errors of the distribution API (spec, "Error Codes"), and of the protocols of 2014."""

from __future__ import annotations

import msgspec

from lading.http.messages import Response

_STATUS = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 400,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "PAGINATION_NUMBER_INVALID": 400,
    "RANGE_INVALID": 416,
    "SIZE_INVALID": 400,
    "TAG_INVALID": 400,
    "UNAUTHORIZED": 401,
    "UNSUPPORTED": 405,
}


class ApiError(Exception):
    """An error of the distribution API."""

    def __init__(
        self,
        code: str,
        message: str,
        detail: object = None,
        *,
        status: int = 0,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.detail = code, message, detail
        self.status = status or _STATUS[code]
        self.headers = headers or {}

    def response(self) -> Response:
        """It as a client sees it."""
        row: dict[str, object] = {"code": self.code, "message": self.message}
        if self.detail is not None:
            row["detail"] = self.detail
        body = msgspec.json.encode({"errors": [row]}) + b"\n"
        headers = {"Content-Type": "application/json; charset=utf-8", **self.headers}
        return Response(self.status, headers, body)


class LegacyError(Exception):
    """An error of the protocols of 2014: a status and a text, which clients compare literally."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers or {}
