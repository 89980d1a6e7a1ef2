"""The seams of Lading, one module per role; read the one you implement top to bottom.

``isolation`` runs processes, ``filesystem`` gives them roots, ``network`` connects them,
``registry`` moves images, ``extension`` watches, vetoes and adds.
"""

from lading.hooks.common import Context, Mount, Probe, hookimpl, hookspec

__all__ = ["Context", "Mount", "Probe", "hookimpl", "hookspec"]
