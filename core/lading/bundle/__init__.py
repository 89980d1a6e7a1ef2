"""An OCI bundle carried out by system calls: what isolation backends have in common.

However a backend makes the namespaces, in the end a process of its own stands in them and has to
become what ``config.json`` says. :mod:`init` is that process for a container, :mod:`joined` for one
more in it; :mod:`attendance` is the side that has forked it, at the other end of a
:mod:`channel`. The rest are the parts: the root, devices, protected paths, the program's user and
rights, the seccomp compiler, OCI hooks, and the state by which a later call finds the container.

Nothing here imports more than the standard library, since every monitor holds it in memory.
"""
