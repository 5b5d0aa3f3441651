"""The version of this distribution. headrace-worker bears the same."""

__version__ = "0.1.0"
