"""The Docker Engine API over the engine.

``app``         versions, routing, errors: what a server calls
``engine``      what the API needs of the daemon
``parameters``  filters, times and headers of requests
``containers``, ``streams``, ``execs``, ``images``, ``networks``, ``volumes``, ``system``  the routes
``render_*``    the engine's records in Docker's JSON
"""

from lading.api.app import MAXIMUM, MINIMUM, Api
from lading.api.engine import Engine

__all__ = ["MAXIMUM", "MINIMUM", "Api", "Engine"]
