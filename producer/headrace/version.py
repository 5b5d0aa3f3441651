"""The version of the distribution `headrace`. `headrace-worker` has the same version."""

__version__ = "0.1.0"
