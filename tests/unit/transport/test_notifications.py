"""What Redis is asked to tell of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace_worker.transport.notifications import covering

NAMES = st.lists(st.text(alphabet="ab.", min_size=1, max_size=4))


@given(NAMES)
def test_prefixes_cover_every_name_and_none_covers_another(names: list[str]) -> None:
    chosen = covering(names)
    assert all(any(name.startswith(prefix) for prefix in chosen) for name in names)
    assert not any(a != b and a.startswith(b) for a in chosen for b in chosen)
    assert set(chosen) <= set(names)
