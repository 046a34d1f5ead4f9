"""Messages: requests follow messages.cddl, and only replies that follow it are accepted."""

import copy
import dataclasses
import json
import struct
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zcbor.zcbor import zcbor

from profiler.devices.identity import Identity, Reset, ResetCause
from profiler.devices.state import MachineState
from profiler.link import messages
from profiler.link.messages import EncodedProgram
from profiler.link.replies import BadReply, decode_reply

FIRMWARE = Path(__file__).parents[2] / "firmware"


def definition(name):
    # zcbor's checker turns labels into Python names, which `pass` cannot be.
    text = (FIRMWARE / "link" / "messages.cddl").read_text().replace(" pass:", " pass_:")
    prelude = zcbor.PRELUDE_PATH.read_text()
    return zcbor.DataTranslator.from_cddl(f"{prelude}\n{text}", 64).my_types[name]


REQUEST, REPLY = definition("request"), definition("reply")


def follows(rule, payload):
    try:
        rule.validate_str(payload)
    except Exception:  # the checker raises whatever it stumbles over
        return False
    return True


# ---------------------------------------------------------------- requests

FILL = [0, 0, 0, 0, [1024, 1, 128, 1], [], [0]]
OP = [1, 2, 0, 1, [14, 14, 96, 32, 3, 3, 2, 2, 1, 1, 1, 0], [8, 0, 1, 1], [16, 4096 | 1, 1 << 20], b"\x0f"]
PROGRAM = EncodedProgram.of([262144, 25, 1, 1, 2, [0.1, 0.2, 0.3, 0.4]], [FILL, OP])
COMMANDS = {
    "identify": messages.identify(0xFFFF_FFFF, 60_000),
    "begin": messages.begin(PROGRAM),
    "append": messages.append(PROGRAM, 0, 2),
    "seal": messages.seal(PROGRAM),
    "run inline": messages.run(10, 2, 7, PROGRAM),
    "run what is stored": messages.run(10, 0, 7),
    "run cold": messages.run(10, 0, 7, cold=True),
    "read": messages.read(48),
    "digest": messages.digest(0x10001, 99),
    "peek": messages.peek(0x20, 768),
    "state": messages.state(),
    "counters": messages.counters(),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_request_follows_the_definition(name):
    assert follows(REQUEST, messages.encode_request(65535, COMMANDS[name]))


def test_the_definition_refuses_a_request_with_a_field_too_many():
    assert not follows(REQUEST, cbor2.dumps([1, [5, 0, 0]]))


def test_entries_travel_as_the_seals_crc_counts_them():
    payload = messages.encode_request(1, messages.append(PROGRAM, 0, 2))
    assert payload.endswith(cbor2.dumps(FILL) + cbor2.dumps(OP))
    assert cbor2.loads(payload) == [1, [2, 0, [FILL, OP]]]


def test_floats_travel_as_float32():
    assert struct.pack(">Bf", 0xFA, 0.3) in PROGRAM.header


def test_the_timed_entries_are_those_from_image_end_on():
    assert PROGRAM.timed == 1


# ---------------------------------------------------------------- replies

IDENTITY = [
    *[7, messages.PROTOCOL, "a-board", "cortex-m4f", b"\x01\x02", 168_000_000],
    *[["TIM2", 10**9, 32, 1, 1], "none", 0, "single"],
    *[[["sram", 128 << 10, 0, 0], ["blob", 1 << 19, 1, 0]], [1 << 19, 77, [127, 126]]],
    *[1280, 1024, 96, [0x103, 0x219], "0.1.0", "0123456789abcdef", "gcc 12", "-O2"],
    *[1, 8000, [5, 3, [3, 0x8200, 0x4000_0000, 0, 0, 0x800_1234, 0, 0]]],
]
ANSWERS = {
    "ok": [0],
    "accepted": [1],
    "refused": [2, 8, 3, 1 << 20],
    "done": [3, 1 << 20, 4096, 512, 20, [2**63, 5, 0]],
    "done, as far as the limit let it": [3, 1 << 20, 4096, 512, 5, [1, 2, 3, 4, 5], [2, 7, 60_012]],
    "counters_reply": [9, 1, 2, 3, 4, 5, 2**32 - 1],
    "ticks_page": [4, 16, [1, 2, 3, 2**64 - 1]],
    "digest_reply": [5, [1.5, -2.0, 0.0, 1e300]],
    "peek_reply": [6, b"abcd"],
    "identity": IDENTITY,
    "state_reply": [8, 3, "isolated", "performance", 1_500_000, 331_150, [0x50005], "pinctrl-bcm2711 line 17"],
}


def reply(answer, request_id=7, boot_id=99):
    return cbor2.dumps([request_id, boot_id, answer])


@pytest.mark.parametrize("name", ANSWERS)
def test_every_kind_of_answer_is_understood(name):
    assert follows(REPLY, reply(ANSWERS[name]))
    decoded = decode_reply(reply(ANSWERS[name]))
    assert (decoded.request_id, decoded.boot_id) == (7, 99)


def test_a_state_says_what_the_machine_tells_and_none_for_the_rest():
    told = decode_reply(reply(ANSWERS["state_reply"])).answer
    assert told == MachineState(3, "isolated", "performance", 1_500_000, 58.0, 0x50005, "pinctrl-bcm2711 line 17")
    silent = decode_reply(reply([8, 0, "", "", 0, 0, [], ""])).answer
    assert silent == MachineState(0, "", "", None, None, None, "")


def test_an_identity_keeps_every_field_and_survives_json():
    identity = decode_reply(reply(IDENTITY)).answer
    assert identity.board == "a-board" and identity.unique_id == "0102" and identity.entry_bytes == 96
    assert identity.region(1).name == "blob" and identity.blob_segments == (127, 126)
    assert identity.capabilities == (0x100, 0x110, 0x201, 0x231)
    assert identity.supported() == {
        ("conv2d", "forward", "f32"),
        ("conv2d", "grad_input", "f32"),
        ("depthwise", "forward", "s8"),
        ("depthwise", "update", "s8"),
    }
    assert Identity.from_dict(identity.to_dict()) == identity


def test_only_an_identity_that_says_so_can_run_cold():
    found = [decode_reply(reply([*IDENTITY[:20], cold, *IDENTITY[21:]])).answer.cold_runs for cold in (0, 1)]
    assert found == [False, True]


def test_an_identity_says_how_the_devices_last_life_ended():
    identity = decode_reply(reply(IDENTITY)).answer
    assert (identity.watchdog_ms, identity.reset.cause, identity.reset.running) == (8000, ResetCause.FAULT, 3)
    assert identity.reset.in_words == (
        "fault in entry 2 of the program (exception 0x3, CFSR 0x8200, HFSR 0x40000000, MMFAR 0x0, BFAR 0x0, "
        "PC 0x8001234, LR 0x0, xPSR 0x0)"
    )
    quiet = decode_reply(reply([*IDENTITY[:-1], [1, 0, []]])).answer.reset
    assert quiet == Reset(ResetCause.POWER) and quiet.in_words == "power"
    assert decode_reply(reply([*IDENTITY[:-1], [77, 0, []]])).answer.reset.cause is ResetCause.UNKNOWN


def test_a_record_of_before_there_were_watchdogs_is_read():
    identity = decode_reply(reply(IDENTITY)).answer
    record = json.loads(json.dumps(identity.to_dict()))
    assert Identity.from_dict(record) == identity
    del record["watchdog_ms"], record["reset"]
    assert Identity.from_dict(record) == dataclasses.replace(identity, watchdog_ms=0, reset=Reset())
    with pytest.raises(ValueError, match="not an identity record"):
        Identity.from_dict(record | {"reset": {"cause": "weather", "running": 0, "registers": []}})


def test_done_says_where_the_limit_stopped_a_run_and_nothing_where_it_did_not():
    assert decode_reply(reply(ANSWERS["done"])).answer.stop is None
    stopped = decode_reply(reply(ANSWERS["done, as far as the limit let it"])).answer
    assert stopped.stop == messages.Stop(whole_repetitions=2, entry=7, elapsed_ms=60_012)


def test_done_tells_windows_from_a_stop_by_their_length():
    windows, stop = [3, 900], [0, 1, 2]
    for tail, expected in (([windows], (3, 900)), ([stop, windows], (3, 900)), ([stop], None), ([], None)):
        found = decode_reply(reply([*ANSWERS["done"], *tail])).answer
        assert found.windows == (expected and messages.Windows(*expected))
        assert (found.stop is not None) == (stop in tail)
    for tail in ([windows, stop], [windows, windows], [stop, stop], [[1]], [7]):
        with pytest.raises(BadReply):
            decode_reply(reply([*ANSWERS["done"], *tail]))


def test_counters_come_in_the_order_of_the_definition():
    counted = decode_reply(reply(ANSWERS["counters_reply"])).answer
    assert counted == messages.Counters(1, 2, 3, 4, bad_crc=5, overruns=2**32 - 1)


def test_emulated_devices_label_their_timer_instructions_and_others_by_name():
    emulated = decode_reply(reply(IDENTITY)).answer
    real = decode_reply(reply([*IDENTITY[:6], ["DWT", 168_000_000, 32, 0, 1], *IDENTITY[7:]])).answer
    assert (emulated.timer_label, real.timer_label) == ("instructions", "DWT")
    assert real.ticks_to_us(168) == pytest.approx(1.0)


def test_an_identity_of_another_version_is_recognised_whatever_else_it_holds():
    assert decode_reply(reply([7, 4, "new", [1, 2], b"x"])).answer == messages.OtherProtocol(4)


HOSTILE = {
    "nothing": b"",
    "a byte string said to be 4 GB": b"\x83\x01\x02\x82\x06\x5a\xff\xff\xff\xff",
    "a list said to have 2**64 items": b"\x83\x01\x02\x9b" + b"\xff" * 8,
    "a list of endless length": b"\x9f\x01\x02\xff",
    "lists in lists": b"\x81" * 1500 + b"\x00",
    "a map": b"\x83\x01\x02\xa1\x00\x00",
    "a big number as a tag": b"\x83\x01\x02\x82\x06\xc2\x41\x01",
    "a shared reference": b"\xd8\x1c\x83\x01\x02\xd8\x1d\x00",
    "true for an integer": b"\x83\x01\x02\x81\xf5",
    "a negative integer": b"\x83\x01\x20\x81\x00",
    "text that is no UTF-8": b"\x83\x01\x02\x82\x07\x62\xff\xfe",
    "something after it": reply([0]) + b"\x00",
    "cut short": reply(IDENTITY)[:-3],
    "an unknown answer": reply([10]),
    "no answer": cbor2.dumps([1, 2]),
    "an identity of protocol 3 that ends as one of 2 did": reply(IDENTITY[:21]),
    "nine registers": reply([*IDENTITY[:-1], [5, 1, [0] * 9]]),
    "a stop of four values": reply([*ANSWERS["done"], [1, 2, 3, 4]]),
    "an answer without a tag": reply([]),
    "a field too many": reply([0, 0]),
    "a field too few": reply([2, 1, 0]),
    "a request id of 33 bits": reply([0], request_id=2**32),
    "17 ticks in done": reply([3, 0, 0, 0, 17, [0] * 17]),
    "49 ticks in a page": reply([4, 0, [0] * 49]),
    "a float for ticks": reply([4, 0, [1.0]]),
    "three projections": reply([5, [0.0] * 3]),
    "an integer for a projection": reply([5, [0.0, 0.0, 0.0, 1]]),
    "769 bytes": reply([6, bytes(769)]),
    "a control character in the board's name": reply([*IDENTITY[:2], "\x1b[2J", *IDENTITY[3:]]),
    "a timer of 0 Hz": reply([*IDENTITY[:6], ["DWT", 0, 32, 0, 1], *IDENTITY[7:]]),
    "no memory": reply([*IDENTITY[:10], [], *IDENTITY[11:]]),
    "room for no request": reply([*IDENTITY[:12], 10, *IDENTITY[13:]]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_reply_is_a_bad_reply(name):
    with pytest.raises(BadReply):
        decode_reply(HOSTILE[name])


@given(st.binary(max_size=300))
def test_random_bytes_are_a_reply_or_a_bad_reply_and_nothing_else(payload):
    try:
        decode_reply(payload)
    except BadReply:
        return
    assert follows(REPLY, payload)


VALUES = st.one_of(
    st.integers(-1, 2**65),
    st.booleans(),
    st.none(),
    st.text(max_size=40),
    st.binary(max_size=20),
    st.floats(allow_nan=False),
    st.lists(st.integers(0, 300), max_size=6),
)


def places(answer):
    """Where a value can be replaced: (index,) in the answer, (index, index) in a list within it."""
    yield from ((i,) for i in range(len(answer)))
    yield from ((i, j) for i, item in enumerate(answer) if isinstance(item, list) for j in range(len(item)))


@given(st.sampled_from(sorted(ANSWERS)), VALUES, st.data())
def test_what_is_accepted_follows_the_definition_wherever_a_value_is_replaced(name, value, data):
    answer = copy.deepcopy(ANSWERS[name])
    *outer, last = data.draw(st.sampled_from(list(places(answer))))
    holder = answer[outer[0]] if outer else answer
    holder[last] = value
    payload = reply(answer)
    try:
        decoded = decode_reply(payload)
    except BadReply:
        return
    assert isinstance(decoded.answer, messages.OtherProtocol) or follows(REPLY, payload)
