"""What a run does on every device that needs no hardware: fills, digests, peaks and ticks."""

import numpy as np
import pytest
import raw_device as raw
from raw_device import BAD_RANGE, emulated

from profiler import prng
from profiler.ops import Conv2d, Depthwise, Empty, Linear, Op, Pass, Relu, SoftmaxCrossEntropy

LINEAR = Op(Linear(40, 12), Pass.FORWARD)
EMPTY = Op(Empty(), Pass.FORWARD)


def test_fills_write_the_words_that_the_host_makes(device):
    fills = [raw.fill(64, 0, stream=9), raw.fill(64, 256, 2, 5, 9), raw.fill(64, 512, 3, 130, 9), raw.fill(64, 768, 0)]
    device.run(([1024, 1, 4, 4, 4], fills), 0, seed=42)
    words = prng.mix((prng.key(42, 9) + np.arange(64) * prng.GOLDEN) & 0xFFFFFFFF)
    np.testing.assert_array_equal(np.frombuffer(device.peek(0, 256), "<f4"), (words.view(np.int32) >> 8) * 2.0**-24)
    np.testing.assert_array_equal(np.frombuffer(device.peek(256, 256), "<u4"), words % 5)
    np.testing.assert_array_equal(np.frombuffer(device.peek(512, 256), "<f4"), (words >> 8) * 2.0**-22)
    assert device.peek(768, 256) == bytes(256)


def test_each_image_draws_from_a_stream_of_its_own(device):
    header, entries = [256, 3, 0, 1, 1], [raw.fill(64, 0, stream=9)]
    device.run((header, entries), 1, seed=5)
    words = prng.mix((prng.key(5, 9 + (2 << 16)) + np.arange(64) * prng.GOLDEN) & 0xFFFFFFFF)
    np.testing.assert_array_equal(np.frombuffer(device.peek(0, 256), "<f4"), (words.view(np.int32) >> 8) * 2.0**-24)


def test_the_digest_is_the_hosts(device):
    device.run(([4096, 1, 1, 1, 1], [raw.fill(1000, 0, stream=3)]), 0, seed=8)
    values = np.concatenate([np.frombuffer(device.peek(o, 400), "<f4") for o in range(0, 4000, 400)])
    kind, projections = device.ask([raw.DIGEST, 0, 1000])
    assert kind == raw.DIGESTED
    np.testing.assert_allclose(projections, prng.digest(values), rtol=1e-12)


def test_the_arena_peak_is_the_highest_byte_written(device):
    answer = device.run(([4096, 1, 1, 1, 1], [raw.fill(100, 512)]), 0)
    assert answer[1] == 512 + 400
    assert device.run(([4096, 1, 0, 0, 0], [raw.fill(4, 0)]), 0)[0] == raw.REFUSED  # an op section holds no fill


def test_scratch_and_stack_peaks_are_reported(device):
    header, entries = raw.program(Op(Conv2d(9, 9, 8, 16, 3, 3, pad_h=1, pad_w=1), Pass.GRAD_INPUT))
    answer = device.run((header, entries), 1)
    limit = {number: size for _, size, number, _ in device.identity[10]}.get(15, 1 << 18)
    assert 64 <= answer[3] < 0.75 * limit
    assert answer[2] <= header[0]


@pytest.mark.parametrize("pass_", list(Pass))
def test_ticks_grow_with_macs_and_never_fall_below_a_sixteenth_of_them(device, pass_):
    # A vector unit does at most 16 float32 multiply-accumulates at once: a timed region that lost its kernel shows.
    training = {"trained_channels": 16} if pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE) else {}
    ops = [Op(Conv2d(n, n, 16, 16, 3, 3, pad_h=1, pad_w=1), pass_, **training) for n in (5, 10, 20)]
    ticks = least_ticks(device, [raw.program(op) for op in ops])
    if pass_ is Pass.UPDATE:  # works on the weights, whose number does not change
        assert min(ticks) > 16 * 144 / 16
        assert not emulated(device) or max(ticks) < 1.01 * min(ticks)
        return
    numerator, denominator = device.identity[6][3:] if emulated(device) else (1, 4)  # at most 4 instructions a tick
    for op, measured in zip(ops, ticks, strict=True):
        assert measured * denominator / numerator > op.macs / 16
    growth = (ticks[1] / ticks[0], ticks[2] / ticks[1])
    if emulated(device):
        assert min(growth) > 2.5 and max(growth) < 6.5
    elif "QEMU user" in repr(device.identity):  # translated while it runs: the whole span only
        assert ticks[2] > 5 * ticks[0]
    else:  # wall-clock time, of ops whose fixed part weighs more
        assert min(growth) > 1.2 and ticks[2] > 5 * ticks[0]


def least_ticks(device, programs):
    """The fewest ticks that each program ever took. On an emulated board they never differ; on a busy host the rounds
    lie far enough apart in time that one of them was left alone."""
    rounds = 1 if emulated(device) else 12
    found = [[min(device.ticks(program, 9, warmups=2)) for program in programs] for _ in range(rounds)]
    return [min(each) for each in zip(*found, strict=True)]


def test_a_cold_run_is_possible_where_the_identity_says_so_and_refused_elsewhere(device):
    able = "QEMU" not in device.identity[3]
    assert device.identity[20] == able
    program = raw.program(LINEAR)
    assert device.run(program, caches=0)[0] == raw.DONE
    answer = device.run(program, caches=1)
    assert answer[0] == raw.DONE if able else answer == [raw.REFUSED, raw.NO_COLD_RUNS, 0, 1]
    assert device.run(program, caches=2) == [raw.REFUSED, raw.NO_COLD_RUNS, 0, 2]


def test_what_was_evicted_comes_from_memory_again():
    device = raw.RawDevice("native://")
    streaming = raw.program(Op(Relu(50_000), Pass.FORWARD))  # 400 kB: in some cache when warm
    found = [[min(device.ticks(streaming, 16, caches=caches)[1:]) for caches in (0, 1)] for _ in range(12)]
    device.close()
    warm, cold = map(min, zip(*found, strict=True))  # in some round neither was disturbed, as in least_ticks
    assert cold > 1.5 * warm


def test_an_empty_op_costs_next_to_nothing_but_not_nothing(device):
    ticks = device.ticks(raw.program(EMPTY), 5, warmups=1)
    assert min(ticks) > 0
    assert max(ticks) < 100 if emulated(device) else min(ticks) < 50_000


@pytest.mark.parametrize("url", raw.EMULATED_URLS)
def test_emulated_ticks_are_the_same_in_every_repetition_run_and_boot(url):
    op = Op(Depthwise(7, 9, 13, 3, 3, 2, 2, 1, 1), Pass.FORWARD)
    boots = []
    for _ in range(2):
        device = raw.RawDevice(url)
        boots.append([device.ticks(raw.program(op), 4, warmups=warmups) for warmups in (0, 2)])
        device.close()
    assert boots[0] == boots[1]
    # Where an instruction is not a whole number of ticks, the same instructions read as one of two neighbours.
    seen = np.array(boots)
    assert seen.max() - seen.min() <= (0 if url.endswith("stm32f405") else 1)


def test_ticks_of_an_entry_are_summed_over_the_images(device):
    one, many = least_ticks(device, [raw.program(LINEAR, images) for images in (1, 50)])
    assert 35 * one < many < 65 * one if emulated(device) else many > 10 * one


def test_entries_behind_the_body_run_once_a_repetition(device):
    header, entries = raw.program(LINEAR, images=40)
    header[4] -= 1  # the op lies behind the body
    alone = raw.program(LINEAR)
    behind, once = least_ticks(device, [(header, entries), alone])
    assert behind < 5 * once


def test_the_loss_adds_up_over_repetitions_because_the_setup_is_not_repeated(device):
    header, entries = raw.program(Op(SoftmaxCrossEntropy(5), Pass.FORWARD))
    loss = entries[-1][6][3]
    values = []
    for repetitions, warmups in ((0, 0), (1, 0), (2, 1)):
        device.run((header, entries), repetitions, warmups=warmups)
        values.append(np.frombuffer(device.peek(loss, 4), "<f4")[0])
    assert values[2] - values[0] == pytest.approx(3 * (values[1] - values[0]), rel=1e-4)


def test_all_ticks_can_be_read_in_pages_after_the_run(device):
    entries = raw.program(EMPTY)[1] * 3
    answer = device.run(([0, 1, 0, 0, 2], entries), 40)
    assert answer[4] == 120 and len(answer[5]) == 16
    pages = []
    while len(pages) < 120:
        kind, first, ticks = device.ask([raw.READ, len(pages)])
        assert kind == raw.TICKS and first == len(pages) and ticks
        pages += ticks
    assert pages[:16] == answer[5] and len(pages) == 120 and min(pages) > 0
    assert device.ask([raw.READ, 120]) == [raw.TICKS, 120, []]
    assert device.ask([raw.READ, 121])[:2] == [raw.REFUSED, BAD_RANGE]


@pytest.mark.parametrize("variant", [0, 1], ids=["blocked", "reference"])
@pytest.mark.parametrize("axis", [1, 200])
def test_the_axis_of_an_s8_op_without_trained_channels_changes_nothing(axis, variant, agent):
    """Found by the fuzzer: an axis of inputs with weights in groups read beyond the weights."""
    geometry = [8, 2, 6, 9, 3, 1, 3, 3, 2, 2, 3, 0]
    places = {"grad_output": 0, "weight": 1024, "grad_input": 2048, "scratch": 4096}
    fills = [raw.fill(512, 0, stream=1), raw.fill(1024, 1024, mode=4, stream=2)]
    wanted = list(places.values())[: 3 if variant else 4]
    digests = []
    for trained in ([], [0, axis, 0, 0]):
        entry = [1, 1, 1, variant, geometry, trained, wanted]
        assert agent.run(([1 << 14, 1, 2, 2, 3], [*fills, entry]))[0] == raw.DONE
        digests.append(agent.ask([raw.DIGEST, places["grad_input"], 8 * 2 * 6]))
    assert digests[0] == digests[1] and digests[0][0] == raw.DIGESTED
