"""Settings are read from the environment with their types, and errors name the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import SettingError
from headrace.settings import Settings, load_settings


def test_without_variables_every_setting_has_its_default():
    assert load_settings(Settings, {}) == Settings()


def test_each_setting_has_a_variable():
    environ = {"HEADRACE_REDIS_URL": "redis://h/1", "HEADRACE_KEY_PREFIX": "a:", "HEADRACE_QUEUE_LIMIT": "5"}
    assert load_settings(Settings, environ) == Settings(redis_url="redis://h/1", key_prefix="a:", queue_limit=5)


def test_redis_url_is_the_fallback_for_headrace_redis_url():
    assert load_settings(Settings, {"REDIS_URL": "redis://other"}).redis_url == "redis://other"
    both = {"REDIS_URL": "redis://other", "HEADRACE_REDIS_URL": "redis://headrace"}
    assert load_settings(Settings, both).redis_url == "redis://headrace"


def test_an_empty_variable_counts_as_not_set():
    assert load_settings(Settings, {"HEADRACE_REDIS_URL": "", "REDIS_URL": ""}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HEADRACE_RESULT_TTL", "0"),
        ("HEADRACE_RESULT_TTL", "soon"),
        ("HEADRACE_QUEUE_LIMIT", "-1"),
        ("HEADRACE_CONNECT_TIMEOUT", "0"),
        ("HEADRACE_COMMAND_TIMEOUT", "-3"),
        ("HEADRACE_KEY_PREFIX", "no-end"),
    ],
)
def test_an_invalid_value_is_refused_with_the_name_of_its_variable(variable: str, value: str):
    with pytest.raises(SettingError, match=variable):
        load_settings(Settings, {variable: value})


def test_a_secret_can_be_in_a_file(tmp_path: Path):
    file = tmp_path / "url"
    file.write_text("redis://:secret@h\n")
    assert load_settings(Settings, {"HEADRACE_REDIS_URL_FILE": str(file)}).redis_url == "redis://:secret@h"
    with pytest.raises(SettingError, match=r"HEADRACE_REDIS_URL_FILE names .*cannot be read"):
        load_settings(Settings, {"HEADRACE_REDIS_URL_FILE": str(tmp_path / "none")})
