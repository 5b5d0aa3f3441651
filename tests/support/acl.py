"""The Redis users that the documentation defines, and the changes to them that it describes."""

from __future__ import annotations

import re

from tests.support import ROOT

PAGE = ROOT / "docs" / "reference" / "acl.md"


def users() -> list[str]:
    """Return the Redis users of the reference page, as lines of an `aclfile`."""
    return _blocks()[0].splitlines()


def keda() -> str:
    """Return the line of the user for KEDA's `redis` trigger, which is no part of an installation."""
    return _blocks()[1].strip()


def _blocks() -> list[str]:
    return re.findall(r"^```\n(user .*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def user(name: str) -> str:
    """Return the line of one user."""
    return next(line for line in users() if line.split()[1] == name)


def rules(line: str) -> list[str]:
    """Return the arguments of ACL SETUSER for a line, the name of the user first."""
    return re.findall(r"\([^)]*\)|\S+", line)[1:]


def for_redis_6(line: str) -> str:
    """Return a line as the page says to write it for Redis 6.2, without functions and parentheses."""
    line = line.replace(" +function|kill", "").replace("(-@all ", "").replace(")", "").replace("%R~", "~")
    line = line.replace("+fcall", "+eval +evalsha")
    return f"{line} +publish" if line.split()[1] in {"producer", "gateway", "operator"} else line


def for_model(line: str, model: str) -> str:
    """Return a producer's line as the page says to write it for a producer of one model."""
    patterns = re.findall(r"```\n(~predict\.churn [^\n]*)\n```", PAGE.read_text())
    assert len(patterns) == 1
    (pattern,) = patterns
    return re.sub(
        r"((?:%R)?)~(predict|bulk)\.\*", lambda match: _each(match[1], pattern.replace("predict", match[2])), line
    ).replace("churn", model)


def _each(access: str, patterns: str) -> str:
    return " ".join(f"{access}{pattern}" for pattern in patterns.split())
