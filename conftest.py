"""What all tests of this checkout start from, those of the plugins included."""

from __future__ import annotations

import signal

# A shell lets its background jobs ignore Ctrl-C, and the clients that tests interrupt would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
