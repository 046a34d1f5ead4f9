"""Lines with checksums: what is written is read back, what is damaged never passes, what is not damaged is not lost."""

import io
import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import store_lines
from profiler.store_lines import Damage
from profiler.store_merged import Fields

NUMBERS = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(
    st.one_of(NUMBERS, st.text(st.characters(codec=None)), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
RECORDS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), min_size=1, max_size=6)


def numbered(records):
    return [{"schema": 2, "trial": i} | record | {"schema": 2, "trial": i} for i, record in enumerate(records)]


def read(data):
    items = list(store_lines.read(io.BytesIO(data)))
    return [i for i in items if not isinstance(i, Damage)], [i for i in items if isinstance(i, Damage)]


@settings(deadline=None)
@given(RECORDS)
def test_every_line_reads_back_exactly(records):
    records = numbered(records)
    lines = [store_lines.encode(record) for record in records]
    assert read(b"".join(lines)) == ([json.loads(json.dumps(record)) for record in records], [])
    assert all(line.count(b"\n") == 1 for line in lines)


@settings(deadline=None, max_examples=200)
@given(RECORDS, st.data())
def test_a_file_cut_at_any_byte_keeps_every_trial_before_and_says_what_is_torn(records, data):
    lines = [store_lines.encode(record) for record in numbered(records)]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    zeros = data.draw(st.sampled_from([0, 0, 1, 511, 70_000]))
    found, damage = read(whole[:cut] + bytes(zeros))
    ends = [len(b"".join(lines[: n + 1])) for n in range(len(lines))]
    complete = sum(end - 1 <= cut for end in ends)  # all but perhaps the end of line
    assert found == [store_lines.decode(line) for line in lines[:complete]]
    begins = max([0, *(end for end in ends if end <= cut)])
    if cut in ends or cut == 0 or cut + 1 in ends:
        assert len(damage) == (zeros > 0)
    else:
        assert len(damage) == 1
    for item in damage:
        assert item.torn
        assert item.start in (begins, cut)
        assert ("zero" in item.reason) == (zeros > 0)
        assert f"{zeros:,} " in item.reason or not zeros


@settings(deadline=None, max_examples=300)
@given(RECORDS, st.data())
def test_a_changed_byte_makes_no_wrong_trial_and_costs_none_but_its_own(records, data):
    lines = [store_lines.encode(record) for record in numbered(records)]
    whole = bytearray(b"".join(lines))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    found, damage = read(bytes(whole))
    ends = [len(b"".join(lines[: n + 1])) for n in range(len(lines))]
    hit = next(n for n, end in enumerate(ends) if position < end)
    own = position == ends[hit] - 1  # an end of line: the trial itself is whole
    assert found == [store_lines.decode(line) for n, line in enumerate(lines) if n != hit or own]
    assert damage
    assert not any(item.torn for item in damage) or hit == len(lines) - 1


@settings(deadline=None, max_examples=200)
@given(RECORDS, st.data())
def test_bytes_that_are_lost_or_put_in_make_no_wrong_trial_and_cost_none_but_their_own(records, data):
    lines = [store_lines.encode(record) for record in numbered(records)]
    whole = b"".join(lines)
    first = data.draw(st.integers(0, len(whole)))
    last = data.draw(st.integers(first, len(whole)))
    put = data.draw(st.one_of(st.binary(max_size=20), st.just(b"\n"), st.just(bytes(4096))))
    found, _ = read(whole[:first] + put + whole[last:])
    ends = [len(b"".join(lines[: n + 1])) for n in range(len(lines))]
    begins = [0, *ends[:-1]]
    kept = [n for n in range(len(lines)) if ends[n] - 1 <= first or begins[n] >= last]
    numbers = [record["trial"] for record in found]
    assert set(kept) <= set(numbers)
    assert numbers == sorted(set(numbers))
    assert all(record == store_lines.decode(lines[record["trial"]]) for record in found)


def test_a_run_of_zeros_between_two_lines_is_said_and_costs_nothing():
    lines = [store_lines.encode({"schema": 2, "trial": n}) for n in range(3)]
    found, damage = read(lines[0] + bytes(4096) + lines[1] + lines[2])
    assert [record["trial"] for record in found] == [0, 1, 2]
    assert [(d.line, d.torn, d.reason) for d in damage] == [
        (2, False, "4,096 zero bytes, as a loss of power leaves them")
    ]


def test_zeros_without_end_take_one_line_of_memory(monkeypatch):
    monkeypatch.setattr(store_lines, "MAX_LINE_BYTES", 1000)
    line = store_lines.encode({"schema": 2, "trial": 0})
    longest = 0

    class Stream(io.BytesIO):
        def readline(self, size=-1):
            nonlocal longest
            data = super().readline(size)
            longest = max(longest, len(data))
            return data

    items = list(store_lines.read(Stream(line + bytes(12_345))))
    assert items[1:] == [Damage(2, True, len(line), "12,345 zero bytes, as a loss of power leaves them")]
    items = list(store_lines.read(Stream(b"x" * 5000 + b"\n" + line)))
    assert [type(item) for item in items] == [Damage, dict]
    assert "5,001 bytes" in items[0].reason and not items[0].torn
    assert longest == 1000


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"a": float("nan")},
        {"a": [float("inf")]},
        {"a": 2**64},
        {"b": {"a": [1, -(2**63) - 1]}},
        {"a": "x" * (1 << 24)},
    ],
)
def test_what_would_not_read_back_is_not_written(record):
    with pytest.raises(ValueError):
        store_lines.encode(record)


def test_large_integers_read_back_to_the_last_digit_and_digits_in_text_do_not_matter():
    record = {"schema": 2, "ticks": [2**64 - 1, -(2**63), 2**53 + 1], "text": ":99999999999999999999,"}
    assert store_lines.decode(store_lines.encode(record)) == record


def test_a_line_with_the_right_checksum_that_is_no_record_is_damage():
    body = b"[1,2"
    line = b'%b,"crc32":"%08x"}\n' % (body, zlib.crc32(body))
    with pytest.raises(ValueError):
        store_lines.decode(line)
    assert read(line)[0] == []


NAMES = st.sampled_from([*Fields.__annotations__, "another", "before"])
STATE = st.dictionaries(st.sampled_from(["before", "after", "cpu"]), st.one_of(VALUES, st.dictionaries(NAMES, VALUES)))


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(NAMES, VALUES, min_size=1), st.one_of(st.none(), VALUES, STATE))
def test_reading_some_fields_gives_of_these_what_reading_all_gives(record, state):
    record |= {} if state is None else {"state": state}
    line = store_lines.encode(record)
    some, every = store_lines.decode(line, store_lines.parser_of(Fields)), store_lines.decode(line)
    some = {name: store_lines.parse(value) for name, value in some.items()}
    for name in Fields.__annotations__:
        assert (name in some) == (name in every)
        if name in some:
            assert some[name] == every[name]
            assert type(some[name]) is type(every[name])


def test_fields_that_are_not_wanted_are_not_there():
    state = {"before": {"cpu": 3}}
    line = store_lines.encode({"schema": 2, "op": {"kind": "relu"}, "slot": "x", "state": state})
    record = store_lines.decode(line, store_lines.parser_of(Fields))
    assert set(record) == {"schema", "op", "state"}
    for name, value in (("op", {"kind": "relu"}), ("state", state)):
        assert record[name] != value and store_lines.parse(record[name]) == value


def test_a_record_too_deep_for_any_reader_is_damage():
    body = b'{"schema":2,"a":' + b"[" * 100_000 + b"]" * 100_000
    line = b'%b,"crc32":"%08x"}\n' % (body, zlib.crc32(body))
    assert [type(item) for item in store_lines.read(io.BytesIO(line))] == [Damage]
