"""Calls to containerd, each with a deadline; loads gRPC, so it is imported at the first call.

A call that found nobody at the socket was not sent: it is made again while containerd restarts,
for a few seconds. One whose connection broke may have been carried out, and is not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import grpc

from lading.errors import Conflict, Invalid, LadingError, NotFound, Unavailable, Unsupported
from lading_fs_snapshotter.messages import MESSAGES
from lading_fs_snapshotter.sockets import refusal

#: Seconds that a restart of containerd may take.
PATIENCE = 5.0

_OPTIONS = (
    # After a restart of containerd nobody should wait for a connection longer than needed.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # So long may it take to connect, whatever this is called.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    # Two backends on one socket must not share what one of them closes.
    ("grpc.use_local_subchannel_pool", 1),
)

_SNAPSHOTS = "containerd.services.snapshots.v1.Snapshots"
_LEASES = "containerd.services.leases.v1.Leases"
_NAMESPACES = "containerd.services.namespaces.v1.Namespaces"

#: Method: (service, request, response).
_METHODS = {
    "Prepare": (_SNAPSHOTS, "PrepareSnapshotRequest", "MountsResponse"),
    "View": (_SNAPSHOTS, "PrepareSnapshotRequest", "MountsResponse"),
    "Mounts": (_SNAPSHOTS, "SnapshotRequest", "MountsResponse"),
    "Commit": (_SNAPSHOTS, "CommitSnapshotRequest", "Empty"),
    "Remove": (_SNAPSHOTS, "SnapshotRequest", "Empty"),
    "Stat": (_SNAPSHOTS, "SnapshotRequest", "StatSnapshotResponse"),
    "List": (_SNAPSHOTS, "ListSnapshotsRequest", "ListSnapshotsResponse"),
    "Usage": (_SNAPSHOTS, "SnapshotRequest", "UsageResponse"),
    "CreateLease": (_LEASES, "CreateLeaseRequest", "Empty"),
    "DeleteLease": (_LEASES, "DeleteLeaseRequest", "Empty"),
    "GetNamespace": (_NAMESPACES, "GetNamespaceRequest", "NamespaceMessage"),
    "CreateNamespace": (_NAMESPACES, "NamespaceMessage", "NamespaceMessage"),
    "UpdateNamespace": (_NAMESPACES, "UpdateNamespaceRequest", "NamespaceMessage"),
    "Plugins": (
        "containerd.services.introspection.v1.Introspection",
        "PluginsRequest",
        "PluginsResponse",
    ),
    "Version": ("containerd.services.version.v1.Version", "Empty", "VersionResponse"),
}

#: What became of a call, as an error of ours; the message is containerd's.
_KINDS: Mapping[grpc.StatusCode, type[LadingError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.INVALID_ARGUMENT: Invalid,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
}


class Client:
    """One connection, that comes back by itself; thread safe."""

    def __init__(self, address: str, namespace: str, timeout: float) -> None:
        self.address, self.timeout = address, timeout
        self._metadata = (("containerd-namespace", namespace),)
        self._channel = grpc.insecure_channel(f"unix:{address}", options=_OPTIONS)
        self._calls = {name: self._call(name) for name in _METHODS}

    def _call(self, name: str) -> Any:
        service, request, response = _METHODS[name]
        make = self._channel.unary_stream if name == "List" else self._channel.unary_unary
        method = name.removesuffix("Lease").removesuffix("Namespace")
        return make(
            f"/{service}/{method}",
            request_serializer=MESSAGES[request].SerializeToString,
            response_deserializer=MESSAGES[response].FromString,
        )

    def call(self, method: str, *, seconds: float = 0, **fields: Any) -> Any:
        """Call and return the response.

        Raises what containerd's answer means: NotFound, Conflict, Invalid, Unsupported; Unavailable
        when it does not answer, or not in time; LadingError for the rest.
        """
        seconds = seconds or self.timeout
        request = MESSAGES[_METHODS[method][1]](**fields)
        patience = time.monotonic() + min(PATIENCE, seconds)
        while True:
            try:
                return self._calls[method](request, timeout=seconds, metadata=self._metadata)
            except grpc.RpcError as error:
                if not _unsent(error) or not self._comes_back(patience):
                    raise self._error(method, error) from error

    def listed(self, snapshotter: str) -> Iterator[Any]:
        """Every ``Info`` of a snapshotter. Raises as ``call``."""
        # The answer is a stream, so the error comes while it is read; nothing was changed by then.
        patience = time.monotonic() + min(PATIENCE, self.timeout)
        while True:
            request = MESSAGES["ListSnapshotsRequest"](snapshotter=snapshotter)
            try:
                stream = self._calls["List"](request, timeout=self.timeout, metadata=self._metadata)
                yield from [info for part in stream for info in part.info]
                return
            except grpc.RpcError as error:
                if not _unsent(error) or not self._comes_back(patience):
                    raise self._error("List", error) from error

    def close(self) -> None:
        """Drop the connection."""
        self._channel.close()

    def _comes_back(self, patience: float) -> bool:
        """Wait until somebody listens again; False when that took too long."""
        while (left := patience - time.monotonic()) > 0:
            if not refusal(self.address):
                # gRPC itself tries again only some milliseconds later.
                time.sleep(min(0.1, left))
                return True
            time.sleep(min(0.1, left))
        return False

    def _error(self, method: str, error: Any) -> LadingError:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unavailable(
                f"{method}: the snapshotter at {self.address} did not answer in time",
                hint='look at its log, or raise the option "timeout"',
            )
        kind = _KINDS.get(code, LadingError)
        hint = "is containerd running?" if kind is Unavailable else ""
        return kind(f"{method}: {details}", hint=hint)


def _unsent(error: Any) -> bool:
    return (
        error.code() is grpc.StatusCode.UNAVAILABLE
        and "failed to connect" in (error.details() or "").lower()
    )
