"""The types of a contract, and the check of instances against it: the public import path."""

from headrace.catalog.contract import Array, Contract, Feature, Kind, Named, Output, Text, Tokens
from headrace.catalog.validation import check_instances, check_method

__all__ = [
    "Array",
    "Contract",
    "Feature",
    "Kind",
    "Named",
    "Output",
    "Text",
    "Tokens",
    "check_instances",
    "check_method",
]
