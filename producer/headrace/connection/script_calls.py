"""The forms in which a script is called, and which of them a server and a user accept.

    FUNCTION  FCALL of a function that an administrator loaded (`connection.functions`): Redis 7 and later
       │ not loaded, not permitted, or an older Redis
       v
    DIGEST    EVALSHA of a script that the server has run before
       │ NOSCRIPT
       v
    SOURCE    EVAL of the whole script, which the server then keeps

The accepted form is remembered for each pool of connections, so a pool meets a refusal once. A user who may not
EVAL, or whose server has no EVAL, is sent back to FUNCTION.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

from redis.exceptions import NoPermissionError, NoScriptError, RedisError, ResponseError


class Form(Enum):
    """A form of a call. The value is the command of Redis."""

    FUNCTION = "FCALL"
    DIGEST = "EVALSHA"
    SOURCE = "EVAL"


class FunctionMissing(NoPermissionError):
    """The server lacks a function, and the user may not run the script in its place."""


#: Redis names the command that a user may not run.
_CALL_NOT_PERMITTED = re.compile(r"run the '(?:fcall|evalsha|eval)' command", re.IGNORECASE)

#: The form that the last call over a pool of connections was accepted in.
_ACCEPTED: WeakKeyDictionary[Any, Form] = WeakKeyDictionary()


def accepted_form(pool: Any) -> Form | None:
    """Return the form that the last call over a pool of connections was accepted in; None before any call."""
    return _ACCEPTED.get(pool)


class ScriptCall:
    """The form of a call: the first to try, and after a refusal the next. It is remembered for `pool`."""

    #: The errors that `refused` processes.
    refusals = ResponseError

    __slots__ = ("_first", "_is_first_call", "_pool", "_refused", "form")

    def __init__(self, pool: Any = None) -> None:
        self._pool = pool
        accepted = None if pool is None else accepted_form(pool)
        self._is_first_call, self._first = accepted is None, accepted or Form.FUNCTION
        #: The form to send.
        self.form = self._first
        self._refused: tuple[Form, ...] = ()

    def succeeded(self) -> None:
        """Remember the form: the server ran the script."""
        if self.form is not self._first or self._is_first_call:
            self._is_first_call = False
            # The server keeps the source.
            self._first = self.form = Form.DIGEST if self.form is Form.SOURCE else self.form
            if self._pool is not None:
                _ACCEPTED[self._pool] = self.form
        self._refused = ()

    def refused(self, error: RedisError, function: str) -> RedisError | None:
        """Process an error reply. Return the error to raise; None if the call is to be sent again, in `form`.

        `function` is the name of the called function.
        """
        self._refused += (self.form,)
        next_form = _choose_next(self.form, error)
        if next_form is None:  # the script ran, and failed
            self.succeeded()
            return error
        if next_form not in self._refused:
            self.form = next_form
            return None
        is_missing = Form.FUNCTION in self._refused
        self.form, self._refused = self._first, ()
        if not is_missing:
            return error
        return FunctionMissing(
            f"lacks the function {function}, and runs no EVAL for this user; "
            "an administrator loads the functions: headrace redis install"
        )


def is_form_refused(form: Form, error: RedisError) -> bool:
    """Decide whether an error is about the form of a call, so that another form may be accepted."""
    return _choose_next(form, error) is not None


def _choose_next(form: Form, error: RedisError) -> Form | None:
    """Return the form to try after a refused one; None if the error is not about the form."""
    if isinstance(error, NoPermissionError):
        if not _CALL_NOT_PERMITTED.search(str(error)):
            return None
        return Form.DIGEST if form is Form.FUNCTION else Form.FUNCTION
    if form is Form.FUNCTION:
        return Form.DIGEST if is_function_missing(error) else None
    if _is_command_missing(error):  # a server that has functions only, or neither
        return Form.FUNCTION
    return Form.SOURCE if isinstance(error, NoScriptError) else None


def is_function_missing(error: RedisError) -> bool:
    """Decide whether an error says that the server lacks a function, or functions at all."""
    return isinstance(error, ResponseError) and (
        str(error).startswith("Function not found") or _is_command_missing(error)
    )


def _is_command_missing(error: RedisError) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("unknown command")
