"""Value types: bodies of the Docker API, OCI documents, image references."""
