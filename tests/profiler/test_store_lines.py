"""Lines with checksums: what is written is read back, what is damaged never passes."""

import io
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import store_lines


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5), st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())
        ),
        max_size=8,
    )
)
def test_every_line_reads_back_exactly_and_any_cut_loses_only_the_last(records):
    records = [record | {"trial": i} for i, record in enumerate(records)]
    lines = [store_lines.encode(record) for record in records]
    whole = b"".join(lines)
    assert list(store_lines.read(io.BytesIO(whole))) == [json.loads(json.dumps(r)) for r in records]
    if records:
        for cut in {1, len(lines[-1]) // 2, len(lines[-1]) - 1}:
            items = list(store_lines.read(io.BytesIO(whole[:-cut])))
            damage = [i for i in items if isinstance(i, store_lines.Damage)]
            assert items[:-1] == records[:-1]
            assert [(d.torn, d.line) for d in damage] == [(True, len(records))]


@given(st.data())
def test_no_flipped_byte_passes_for_a_trial(data):
    line = bytearray(store_lines.encode({"trial": 3, "ticks": [10, 11, 12], "status": "ok"}))
    position = data.draw(st.integers(0, len(line) - 2))
    line[position] ^= data.draw(st.integers(1, 255))
    for item in store_lines.read(io.BytesIO(bytes(line))):
        assert isinstance(item, store_lines.Damage)
