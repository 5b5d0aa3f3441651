"""The limits of a message, checked on its bytes before anything is decoded.

The time and memory that decoding takes grow with the number of values: 8 MB of `[],[],...` are 2.8 million lists.
So a large message is counted first, by searches for single bytes, which take a tenth of the time of decoding it.
A small message cannot hold many values, and is not counted. How deep values may be nested is left to the decoder,
which counts levels anyway and stops at about a thousand.
"""

from __future__ import annotations

import re

import msgspec

from headrace.errors import InvalidInput

#: Bytes of a message, or of a job's instances, up to which values are not counted.
COUNTED_FROM = 64 * 1024
#: Bytes of a body beside the instances: the model's name, options, metadata and callbacks.
_ARGUMENT_BYTES = 64 * 1024
#: Bytes of a message beside its body: headers and properties.
_HEADER_BYTES = 64 * 1024

#: A JSON string. The last one of cut-off JSON may be open. The possessive quantifiers make it linear.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


class JobLimits(msgspec.Struct, frozen=True):
    """The limits of a job: the settings `max_job_bytes` and `max_job_values`."""

    #: Most bytes of the instances as JSON.
    max_bytes: int = 8 * 1024 * 1024
    #: Most values in the instances: numbers, texts, nulls, lists and objects.
    max_values: int = 1_000_000

    @property
    def body_bytes(self) -> int:
        """Most bytes of a message's body, decoded and decompressed."""
        return self.max_bytes + _ARGUMENT_BYTES

    def check_message(self, message: bytes) -> None:
        """Check a message as it was queued. Raises InvalidInput."""
        # base64 makes four bytes of three.
        if len(message) > self.body_bytes * 4 // 3 + _HEADER_BYTES:
            raise InvalidInput(
                f"the message takes {len(message):,} bytes, more than HEADRACE_MAX_JOB_BYTES of the worker "
                f"({self.max_bytes:,}) permits; send fewer or smaller instances in a job"
            )
        self._check_values(message, "the message")

    def check_body(self, body: bytes) -> None:
        """Check the body of a message, decoded and decompressed. Raises InvalidInput."""
        if len(body) > self.body_bytes:
            raise InvalidInput(
                f"the job's arguments take {len(body):,} bytes as JSON, more than HEADRACE_MAX_JOB_BYTES of the "
                f"worker ({self.max_bytes:,}) permits; send fewer or smaller instances in a job"
            )
        if len(body) > COUNTED_FROM:
            self._check_values(body, "the job")

    def check_instances(self, instances: bytes) -> None:
        """Check instances as JSON, before they are sent. Raises InvalidInput."""
        if len(instances) > self.max_bytes:
            raise InvalidInput(
                f"the job's instances take {len(instances):,} bytes as JSON, more than the {self.max_bytes:,} of "
                "HEADRACE_MAX_JOB_BYTES; send fewer or smaller instances in a job"
            )
        if len(instances) > COUNTED_FROM:
            self._check_values(instances, "the job")

    def _check_values(self, encoded: bytes, subject: str) -> None:
        if _count_values(encoded) <= self.max_values:
            return
        count = _count_values(_STRING.sub(b"", encoded))  # a text may hold commas and brackets
        if count > self.max_values:
            raise InvalidInput(
                f"{subject} holds about {count:,} values, more than the {self.max_values:,} of "
                "HEADRACE_MAX_JOB_VALUES; send fewer instances in a job"
            )


def _count_values(encoded: bytes) -> int:
    """Return an upper bound of the values in JSON: each is behind a comma, or the first of a list or object."""
    return encoded.count(b",") + encoded.count(b"[") + encoded.count(b"{") + 1
