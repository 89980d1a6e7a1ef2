"""What `run` and `create` ask for: flags, and the API bodies made of them."""
