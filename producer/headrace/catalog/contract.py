"""The types of a contract: what a model's instances and predictions look like."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headrace.wire.outcome import ClassLabel

#: The kind of a feature's values. A `category` is a string or number, out of a list if the list is known. A
#: `datetime` and a `date` are texts of ISO 8601.
Kind = Literal["number", "integer", "boolean", "string", "category", "datetime", "date"]


class Feature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A named feature of an instance."""

    name: str
    kind: Kind
    #: True if the value may be missing (null, NaN, None).
    nullable: bool = False
    #: True if an instance may leave it out: the model, such as a DictVectorizer, then gets no value for it. Such a
    #: model gets null as None; if the feature is not optional, it gets no value for null either.
    optional: bool = False
    #: The values that a category may have; None: any value.
    categories: tuple[ClassLabel, ...] | None = None
    #: The type of the column that the model was fitted on, as pandas names it: `int64`, `str`, `category`. The
    #: worker builds the column with this type; producers only read the zone of `datetime64[us, UTC]`. None: the
    #: usual type of the kind.
    dtype: str | None = None
    #: True if its values are kept out of the prediction log.
    redact: bool = False

    @property
    def has_zone(self) -> bool:
        """True if its values are datetimes with a zone, False if they have none."""
        return self.kind == "datetime" and "," in (self.dtype or "")


class Named(msgspec.Struct, frozen=True, kw_only=True, tag="named"):
    """The schema of instances that are objects. Features are in the order the estimator was fitted with."""

    features: tuple[Feature, ...]


class Array(msgspec.Struct, frozen=True, kw_only=True, tag="array", omit_defaults=True):
    """The schema of instances that are lists of values, which may be nested."""

    #: (30,) is a list of 30 values, (28, 28) an image.
    shape: tuple[int, ...]
    kind: Kind = "number"
    nullable: bool = False
    #: The type of the array that the model was fitted on, as numpy names it. None: the usual type of the kind.
    dtype: str | None = None
    #: True if instances are kept out of the prediction log.
    redact: bool = False


class Text(msgspec.Struct, frozen=True, kw_only=True, tag="text", omit_defaults=True):
    """The schema of instances that are strings, for text pipelines."""

    #: True if instances are kept out of the prediction log.
    redact: bool = False


class Tokens(msgspec.Struct, frozen=True, kw_only=True, tag="tokens", omit_defaults=True):
    """The schema of instances that are lists of strings, of any length: texts that the caller has split."""

    #: True if instances are kept out of the prediction log.
    redact: bool = False


#: The form of an instance.
InputSchema = Named | Array | Text | Tokens


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The form of an instance's prediction."""

    #: () is a single value, (3,) a list of three.
    shape: tuple[int, ...]
    #: The classes, in the order of the columns of `predict_proba`; for a single value, those it may be.
    classes: tuple[ClassLabel, ...] | None = None

    @property
    def column_classes(self) -> tuple[ClassLabel, ...] | None:
        """The classes whose values a prediction holds, in their order; None if it has no value for each class."""
        return self.classes if self.classes is not None and self.shape == (len(self.classes),) else None


class Contract(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The inputs and outputs of a version of a model, published so that producers check before they enqueue."""

    model: str
    version: str
    input: InputSchema
    #: The methods that a job may name, the default method first.
    methods: dict[str, Output]
    #: An instance with typical values, for documentation (`headrace.catalog.typical`). None if it would be too
    #: long, or if an older Headrace packaged the version.
    example: Any = None

    @property
    def method(self) -> str:
        """The default method."""
        return next(iter(self.methods))
