"""Looking into a container's root and filling volumes from it, in forked tasks.

The modules here import nothing heavy: the spawner has them loaded when it forks a task.
"""
