"""Networks: what containers are connected by.

:class:`Networks` is the whole face. Backends (the role ``network``) make bridges, interfaces and
firewall rules; all that can be decided without a kernel is decided here: names, addresses (IPAM),
host ports, the content of ``hosts`` and ``resolv.conf``, answers to DNS queries.
"""

from lading.networks.networks import Networks
from lading.networks.records import (
    HOST,
    NULL,
    ContainerNetworks,
    Created,
    EndpointState,
    Link,
    Member,
    Network,
    PublishedPort,
    Sandbox,
    Subject,
)

__all__ = [
    "HOST",
    "NULL",
    "ContainerNetworks",
    "Created",
    "EndpointState",
    "Link",
    "Member",
    "Network",
    "Networks",
    "PublishedPort",
    "Sandbox",
    "Subject",
]
