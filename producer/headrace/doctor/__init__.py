"""Findings about a Redis, the access to it and the service it carries, each with its fix."""
