"""Commands about the daemon, its host and registries."""
