"""Lines of server-sent events, in whatever pieces they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from governor_vllm.lines import Lines

TEXT = st.text(
    st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]) | st.sampled_from("\u2028\u2029\x85\v\f")
)
ENDS = st.sampled_from(["\n", "\r", "\r\n"])


@given(st.lists(st.tuples(TEXT, ENDS), max_size=8), TEXT, st.lists(st.integers(1, 5), max_size=60))
def test_lines_end_where_they_should_however_they_come(
    whole: list[tuple[str, str]], rest: str, sizes: list[int]
) -> None:
    data, lines, found = ("".join(map("".join, whole)) + rest).encode(), Lines(), list[str]()
    for size in sizes:
        found += lines.feed(data[:size])
        data = data[size:]
    found += lines.feed(data)
    assert list(filter(None, found)) == [line for line, _ in whole if line], "the rest has no end, and may be half"


def test_a_line_that_comes_in_many_pieces_is_put_together_once() -> None:
    lines = Lines()
    assert not any(lines.feed(b"ab") for _ in range(1000))
    assert lines.feed(b"\nc") == ["ab" * 1000]


def test_what_is_no_utf8_ends_no_stream() -> None:
    assert Lines().feed(b"a\xffb\n") == ["a\ufffdb"]
