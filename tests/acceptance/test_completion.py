"""Real shells complete commands, options and names that are in Redis, and print nothing without Redis."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from headrace.wire.keys import Keys
from headrace_worker.local.embedded_redis import EmbeddedRedis
from tests.support.command import headrace

KEYS = Keys("")
BASH, ZSH, FISH = (shutil.which(shell) for shell in ("bash", "zsh", "fish"))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A Redis with two models, one of which has versions and aliases, and names that no shell should get."""
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as client:
        client.sadd(KEYS.models, "churn", "chart", "$(reboot)")
        client.hset(KEYS.contracts("churn"), mapping={"2": "", "10": "", "latest": "10", "`reboot`": ""})
        client.hset(KEYS.aliases("churn"), mapping={"production": "", "canary": "", "pro;reboot": ""})
        yield server.url


def run_shell(*command: str | None, url: str) -> list[str]:
    """Run a shell that finds `headrace` on its path. Return the lines of both its streams."""
    environ = {**os.environ, "HEADRACE_REDIS_URL": url}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    completed = subprocess.run(
        [str(word) for word in command],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return completed.stdout.splitlines()


def complete_in_bash(*words: str, url: str) -> list[str]:
    """Return what bash offers for the last word. Words are as they stand on the line, with their quotes."""
    line = " ".join(map(shlex.quote, words))
    script = (
        "source <(headrace completion bash)\n"
        f"COMP_WORDS=({line}) COMP_CWORD={len(words) - 1} COMPREPLY=()\n"
        "_headrace_completion headrace\n"
        "printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    return [line for line in run_shell(BASH, "--norc", "-c", script, url=url) if line]


CASES = [
    (("sub",), ["submit"]),
    (("dead", "re"), ["replay"]),
    (("submit", "--dur"), ["--durable"]),
    (("submit", "ch"), ["chart", "churn"]),
    (("queues", "pause", "chu"), ["churn"]),
    (("submit", "churn", "'{}'", "--version", ""), ["canary", "production", "10", "2"]),
    (("dead", "replay", "--model", "churn", "--version", "pro"), ["production"]),
    (("models", "promote", "churn", "1"), ["10"]),
    (("models", "rollback", "churn", "--alias", "c"), ["canary"]),
    (("worker", "--models", "chart,chu"), ["chart,churn"]),
    (("dead", "list", "--reason", "ti"), ["timeout"]),
]


@pytest.mark.skipif(BASH is None, reason="needs bash")
@pytest.mark.parametrize(("words", "offered"), CASES)
def test_bash_completes(url: str, words: tuple[str, ...], offered: list[str]):
    assert complete_in_bash("headrace", *words, url=url) == offered


@pytest.mark.skipif(BASH is None, reason="needs bash")
@pytest.mark.parametrize("start", ["ba", "bad\\ i"])
def test_bash_inserts_a_reason_of_two_words_as_one(url: str, start: str):
    assert complete_in_bash("headrace", "dead", "list", "--reason", start, url=url) == ["bad\\ input"]


@pytest.mark.skipif(BASH is None, reason="needs bash")
@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "rubbish"])
def test_without_redis_nothing_is_offered_and_nothing_printed(url: str):
    assert complete_in_bash("headrace", "submit", "ch", url=url) == []


@pytest.mark.skipif(ZSH is None, reason="needs zsh")
@pytest.mark.parametrize(("words", "offered"), CASES)
def test_zsh_completes(url: str, words: tuple[str, ...], offered: list[str]):
    script = (
        "compdef() { }; source <(headrace completion zsh)\n"
        "compadd() { print -l -- $completions }\n"
        "_describe() { print -l -- ${completions_with_descriptions%%:*} }\n"
        f"words=(headrace {' '.join(map(shlex.quote, words))}) CURRENT={len(words) + 1}\n"
        "_headrace_completion\n"
    )
    assert run_shell(ZSH, "-f", "-c", script, url=url) == offered


@pytest.mark.skipif(FISH is None, reason="needs fish")
@pytest.mark.parametrize(("words", "offered"), CASES)
def test_fish_completes(url: str, words: tuple[str, ...], offered: list[str]):
    line = shlex.quote(" ".join(("headrace", *words)))
    lines = run_shell(FISH, "-N", "-c", f"headrace completion fish | source; complete -C {line}", url=url)
    assert sorted(line.partition("\t")[0] for line in lines) == sorted(offered)


def test_another_shell_is_refused_with_the_names_of_those_that_are_supported():
    result = headrace("completion", "tcsh")
    assert result.returncode == 2
    assert "'bash', 'zsh', 'fish'" in result.stderr
