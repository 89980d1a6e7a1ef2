"""How a command ends other than well: what is printed, and the exit code.

::

    Failure               the message as it is; exit 1 unless said otherwise
    ├── UsageError        wrong flags (125) or arguments (1), followed by a pointer to the help
    └── DaemonError       the daemon refused; ``status`` is the HTTP status
"""

from __future__ import annotations


class Failure(Exception):
    """A command cannot go on; ``code`` is the exit code, an empty message prints nothing."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class UsageError(Failure):
    """The command line is wrong; ``path`` is the command whose help explains it."""

    def __init__(self, message: str, *, path: str = "", code: int = 125) -> None:
        super().__init__(message, code=code)
        self.path = path


class DaemonError(Failure):
    """The daemon answered with an error status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.reason = message
        self.status = status
