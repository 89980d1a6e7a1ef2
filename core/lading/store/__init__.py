"""What outlives the daemon: SQLite metadata, content-addressed blobs, intents; and events."""
