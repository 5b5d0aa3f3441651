"""The outcomes of a job: the public import path."""

from headrace.wire.outcome import Cancelled, Expired, Failure, Outcome, Prediction, Reason, Status, Success

__all__ = ["Cancelled", "Expired", "Failure", "Outcome", "Prediction", "Reason", "Status", "Success"]
