"""Networks of containers as Linux bridges.

::

    host                                           container
      eth0 ◀── masquerade, published ports ──┐
                                             │
      bridge (lading0, br-<network id>) ─────┴──── ve<hash> ═══════ eth0
      has the gateway address                      veth(4)

Kernel: bridge and veth (any), nf_tables with NAT since 5.6; where there is none, iptables(8); where
there is neither, containers reach each other and the host only. Both ends of a pair are made by one
netlink message, the container's right in its namespace. Interfaces carry their owner in the alias
(``lading <tag> <network>``); the ports of our bridges are named by a hash of the endpoint's id.
"""

from lading_network_bridge.backend import Bridge

__all__ = ["Bridge"]
