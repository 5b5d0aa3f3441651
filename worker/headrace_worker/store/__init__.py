"""The model store: immutable, signed versions in a folder or at a URL."""
