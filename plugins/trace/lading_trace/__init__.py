"""The extension ``trace``: how long each hook of each backend takes, in any operation.

Every call of a hook in the course of an operation (a request of the API, the end of a container,
the start of the daemon) becomes a span. Those in the daemon are noted in memory; those in the
processes of monitors (``create``, ``start``, ``exec`` of isolation) are appended, a line each, to a
file that the daemon reads when the operation ends::

    <exec-root>/extension/trace/spans/<operation>      there while recording; gone when read

The last operations are kept in memory, shown by ``lading trace``, and sent to an OpenTelemetry
collector when one is configured.
"""

from lading_trace.extension import Trace

__all__ = ["Trace"]
