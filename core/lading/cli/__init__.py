"""The command line ``lading``: Docker's commands over the Docker Engine API.

It talks HTTP to the daemon and knows nothing else of the engine. :mod:`lading.cli.commands` is the
table of all commands; each names the module that is imported when the command is called.
"""

from __future__ import annotations


def main() -> int:
    """Run the command line; returns the exit code."""
    import signal

    stopped = signal.getsignal(signal.SIGINT)
    if stopped is signal.default_int_handler:
        # Who is interrupted before there is anything to clear away shows no traceback of imports.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Late, so that importing a submodule of this package costs nothing of it.
    from lading.cli.application import run

    signal.signal(signal.SIGINT, stopped)
    return run()
