"""Low-level Linux for the core and for plugins: system calls, mounts, paths, cgroups.

Names are the kernel's, so a reader can look them up in section 2 of the manual. Nothing here
imports more than the standard library, since every monitor holds it in memory.
"""
