"""The Docker Engine API over the engine.

``app``         versions, routing, errors: what a server calls
``engine``      what the API needs of the daemon
``operations``  requests as operations that extensions are told of
``parameters``  filters, times and headers of requests
``containers``, ``streams``, ``execs``, ``images``, ``networks``, ``volumes``, ``system``: routes
``render_*``    the engine's records in Docker's JSON
"""

from lading.api.app import Api, make_app, server_headers
from lading.api.engine import Engine
from lading.api.operations import observed
from lading.api.version import MAXIMUM, MINIMUM

__all__ = ["MAXIMUM", "MINIMUM", "Api", "Engine", "make_app", "observed", "server_headers"]
