"""The types of a contract: what a model's instances and predictions look like."""

from __future__ import annotations

from typing import Literal

import msgspec

#: What a named feature holds. A `category` is a string or number out of a list, where the list is known.
Kind = Literal["number", "integer", "boolean", "string", "category"]


class Feature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One named feature."""

    name: str
    kind: Kind
    #: Whether null (NaN, None) is a value the model can take.
    nullable: bool = False
    #: The values of a category; None where the model takes any.
    categories: tuple[str | int | float | bool, ...] | None = None
    #: Whether its values are kept out of the prediction log.
    redact: bool = False


class Named(msgspec.Struct, frozen=True, kw_only=True, tag="named"):
    """Instances are objects; the features stand in the order the estimator was fitted with."""

    features: tuple[Feature, ...]


class Array(msgspec.Struct, frozen=True, kw_only=True, tag="array", omit_defaults=True):
    """Instances are lists of values, nested as `shape` says: (30,) is a list of 30, (28, 28) an image."""

    shape: tuple[int, ...]
    kind: Kind = "number"
    nullable: bool = False
    #: Whether instances are kept out of the prediction log.
    redact: bool = False


class Text(msgspec.Struct, frozen=True, kw_only=True, tag="text", omit_defaults=True):
    """Instances are strings: text pipelines."""

    #: Whether instances are kept out of the prediction log.
    redact: bool = False


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one instance's prediction looks like: () is a single value, (3,) a list of three."""

    shape: tuple[int, ...]
    #: The classes, in the order of the columns of `predict_proba`.
    classes: tuple[str | int | float | bool, ...] | None = None


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What a version of a model takes and gives, published so that producers check before they enqueue."""

    model: str
    version: str
    input: Named | Array | Text
    #: The methods a job may ask for, the default one first.
    methods: dict[str, Output]

    @property
    def method(self) -> str:
        """The default method."""
        return next(iter(self.methods))
