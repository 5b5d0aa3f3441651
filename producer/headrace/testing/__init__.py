"""A client without Redis, for the tests of programs that use Headrace."""

from headrace.testing.client import Answer, InMemoryClient, InMemoryJob

__all__ = ["Answer", "InMemoryClient", "InMemoryJob"]
