"""A script is called in the form that the server and the user accept."""

from __future__ import annotations

import pytest
from redis.exceptions import NoPermissionError, NoScriptError, OutOfMemoryError, RedisError, ResponseError

from headrace.connection.commands import Command, Script
from headrace.connection.script_calls import Form, FunctionMissing, ScriptCall

NO_FUNCTION = ResponseError("Function not found")
NO_FCALL = ResponseError("unknown command `FCALL`, with args beginning with: `headrace_x`, `0`, ")
NO_SCRIPT = NoScriptError("No matching script. Please use EVAL.")


def denied(command: str) -> NoPermissionError:
    return NoPermissionError(f"User producer has no permissions to run the '{command}' command")


class Pool:
    """Stands for a pool of connections."""


def refuse(call: ScriptCall, *errors: RedisError) -> list[Form]:
    """Return the forms that a call takes after these errors, none of which is final."""
    forms = []
    for error in errors:
        assert call.refused(error, "headrace_x") is None
        forms.append(call.form)
    return forms


def test_the_first_form_is_the_function() -> None:
    assert ScriptCall().form is Form.FUNCTION


@pytest.mark.parametrize("error", [NO_FUNCTION, NO_FCALL, denied("fcall")], ids=str)
def test_without_the_function_the_script_is_called_and_then_sent(error: RedisError) -> None:
    assert refuse(ScriptCall(), error, NO_SCRIPT) == [Form.DIGEST, Form.SOURCE]


def test_the_accepted_form_is_remembered_for_the_pool_and_no_other() -> None:
    pool = Pool()
    call = ScriptCall(pool)
    refuse(call, NO_FUNCTION, NO_SCRIPT)
    call.succeeded()
    assert ScriptCall(pool).form is Form.DIGEST
    assert ScriptCall(Pool()).form is Form.FUNCTION


def test_an_error_of_the_script_itself_is_final_and_its_form_is_remembered() -> None:
    pool, error = Pool(), OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
    call = ScriptCall(pool)
    refuse(call, NO_FUNCTION)
    assert call.refused(error, "headrace_x") is error
    assert ScriptCall(pool).form is Form.DIGEST


def test_a_key_that_is_not_permitted_is_no_refusal_of_the_form() -> None:
    error = NoPermissionError("No permissions to access a key")
    assert ScriptCall().refused(error, "headrace_x") is error


def test_a_user_who_may_no_longer_eval_calls_the_function_again() -> None:
    pool = Pool()
    call = ScriptCall(pool)
    refuse(call, NO_FUNCTION)
    call.succeeded()
    call = ScriptCall(pool)
    assert refuse(call, denied("evalsha")) == [Form.FUNCTION]
    call.succeeded()
    assert ScriptCall(pool).form is Form.FUNCTION


def test_a_user_who_may_not_eval_is_told_of_the_missing_function_at_each_call() -> None:
    pool = Pool()
    for _ in range(2):
        call = ScriptCall(pool)
        assert call.form is Form.FUNCTION
        refuse(call, NO_FUNCTION)
        error = call.refused(denied("evalsha"), "headrace_x")
        assert isinstance(error, FunctionMissing)
        assert "lacks the function headrace_x" in str(error)
        assert "headrace redis install" in str(error)


def test_a_command_has_each_form() -> None:
    script = Script("echo", "return ARGV[1]")
    command = script(["key"], ["value"])
    assert command.in_form(Form.FUNCTION) == ("FCALL", script.function, 1, "key", "value")
    assert command.in_form(Form.DIGEST) == ("EVALSHA", script.digest, 1, "key", "value")
    assert command.in_form(Form.SOURCE) == ("EVAL", "return ARGV[1]", 1, "key", "value")
    Script.every.pop(script.function)


def test_scripts_and_flags_that_differ_have_functions_of_other_names() -> None:
    scripts = [Script("x", "return 1"), Script("x", "return 2"), Script("x", "return 1", flag="no-writes")]
    try:
        assert len({script.function for script in scripts}) == 3
        assert Script("x", "return 1").function == scripts[0].function
    finally:
        for script in scripts:
            Script.every.pop(script.function)


def test_a_command_without_a_script_stands_for_itself() -> None:
    assert Command(("PING",)).script is None
