"""Windows of recordings at the instrument's full rate, in memory and in the vendor's own file format."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.energy import recording as recordings
from profiler.energy.find import GAP_MARGIN_S, find_windows
from profiler.energy.recording import MemoryRecording, Timebase, open_jls
from profiler.energy.scan import find_edges, integrate
from profiler.energy.windows import Status
from profiler.errors import UserError

RATE_HZ = 100_000


def made(levels, *, trigger_rate=1, power_offset=0, trigger_offset=0, idle_w=0.02, active_w=0.05, lost=()):
    """A recording whose trigger is ``levels``, a value a power sample; power follows it."""
    levels = np.asarray(levels, np.uint8)
    power = np.where(levels == 1, active_w, idle_w).astype(np.float32)
    bits = np.repeat(levels, trigger_rate)
    for first, stop in lost:
        power[first:stop] = np.nan
        bits[first * trigger_rate : stop * trigger_rate] = 0
    bits = np.concatenate([bits, np.zeros(-len(bits) % 8, np.uint8)])
    return MemoryRecording(
        "simulated",
        Timebase(RATE_HZ, power_offset, len(power)),
        Timebase(RATE_HZ * trigger_rate, trigger_offset * trigger_rate, len(levels) * trigger_rate),
        power,
        np.packbits(bits, bitorder="little"),
    )


def pulses(*lengths):
    """Levels that alternate, low first."""
    return np.concatenate([np.full(length, index % 2) for index, length in enumerate(lengths)])


# ---------------------------------------------------------------- edges and sums against literal references


@given(st.lists(st.integers(0, 1), min_size=1, max_size=300), st.sampled_from([8, 16, 64]))
def test_edges_are_where_the_level_changes(levels, piece):
    recording = made(levels)

    class InPieces(MemoryRecording):
        def trigger_pieces(self):
            for first in range(0, len(self.trigger_bits), piece // 8):
                yield self.trigger_bits[first : first + piece // 8]

    expected = [i for i in range(1, len(levels)) if levels[i] != levels[i - 1]]
    in_pieces = InPieces(**vars(recording))
    if not expected:
        with pytest.raises(UserError, match="never"):
            find_edges(in_pieces)
        return
    edges = find_edges(in_pieces)
    assert list(np.rint(edges.times_s * RATE_HZ)) == expected
    assert edges.rises_first == (levels[0] == 0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 200), st.floats(0, 200)), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 190), st.integers(1, 20)), max_size=4),
    st.integers(0, 10_000),
    st.integers(1, 90),
)
def test_sums_are_those_of_a_literal_loop(spans, lost, offset, piece):
    rng = np.random.default_rng(offset)
    power = rng.normal(3, 1, 200).astype(np.float32)
    for first, count in lost:
        power[first : first + count] = np.nan
    recording = MemoryRecording("x", Timebase(1000, offset, 200), Timebase(1000, offset, 200), power, np.zeros(25))
    places = np.sort(np.array(spans), axis=1)
    old, recordings.PIECE_SAMPLES = recordings.PIECE_SAMPLES, piece
    try:
        sums, gaps = integrate(recording, (places + offset) / 1000)
    finally:
        recordings.PIECE_SAMPLES = old
    for row, ends in enumerate((places + offset) / 1000 * 1000 - offset):
        start, stop = np.clip(ends, 0, 200)
        parts = [(i, max(0.0, min(stop, i + 1) - max(start, i))) for i in range(200)]
        total = sum(float(power[i]) * share for i, share in parts if share and not np.isnan(power[i]))
        assert sums.total_w[row] == pytest.approx(total, abs=1e-6)
        assert sums.samples[row] == pytest.approx(stop - start, abs=1e-6)
    inside = np.isnan(power)
    found = np.zeros(200, bool)
    for start, stop in np.rint(gaps.spans_s * 1000 - offset).astype(int):
        assert not found[max(start - 1, 0) : stop].any()
        found[start:stop] = True
    assert (found == inside).all()


# ---------------------------------------------------------------- windows


@pytest.mark.parametrize("trigger_rate", [1, 2])
@pytest.mark.parametrize(("power_offset", "trigger_offset"), [(0, 0), (777, 700), (700, 777)])
def test_energy_and_baseline_of_each_window(trigger_rate, power_offset, trigger_offset):
    """Two signals with their own rates and first samples: only the instrument's clock joins them."""
    levels = pulses(5000, 3000, 5000, 4000, 5000)
    recording = made(levels, trigger_rate=trigger_rate, power_offset=power_offset, trigger_offset=trigger_offset)
    shift = (trigger_offset - power_offset) / RATE_HZ  # the trigger's samples lie so much later
    first, second = find_windows(recording)
    for window, samples in ((first, 3000), (second, 4000)):
        assert window.status is Status.OK
        assert window.span.duration_s == pytest.approx(samples / RATE_HZ)
        expected_uj = (0.05 * samples - 0.03 * abs(shift) * RATE_HZ) / RATE_HZ * 1e6
        assert window.energy_uj == pytest.approx(expected_uj, rel=1e-6)
        assert window.baseline_power_uw == pytest.approx(20_000, rel=1e-6)
    assert first.span.start_s == pytest.approx((5000 + trigger_offset) / RATE_HZ)


def test_windows_that_the_recording_cuts_are_none():
    assert len(find_windows(made(pulses(0, 2000, 5000, 3000, 5000)))) == 1
    assert len(find_windows(made(pulses(5000, 3000, 5000, 2000)))) == 1
    assert find_windows(made(pulses(0, 2000, 5000))) == []


def test_a_gap_within_a_window_makes_two_false_edges_and_both_fragments_are_refused():
    """Samples lost in transfer are NaN in power and 0 in the trigger."""
    levels = pulses(5000, 70_000, 5000)
    first, second = find_windows(made(levels, lost=[(40_000, 45_000)]))
    assert first.status is second.status is Status.REFUSED
    assert "fall" in first.reason and "rise" in second.reason
    assert "energy_uj" not in first.to_dict()


def test_a_gap_beside_an_edge_refuses_the_window_and_one_elsewhere_does_not():
    margin = round(GAP_MARGIN_S * RATE_HZ)
    levels = pulses(5000, 3000, 5000)
    (window,) = find_windows(made(levels, lost=[(8000 + margin // 2, 8000 + margin)]))
    assert window.status is Status.REFUSED
    (window,) = find_windows(made(levels, lost=[(8000 + 4 * margin, 8000 + 5 * margin)]))
    assert window.status is Status.OK


def test_a_few_lost_samples_within_a_window_are_filled_and_many_refuse_it():
    """NaN in power alone, as while an instrument changes its range."""

    def window(count):
        recording = made(pulses(5000, 30_000, 5000))
        recording.power_w[20_000 : 20_000 + count] = np.nan
        return find_windows(recording)[0]

    assert window(20).status is Status.OK
    assert window(20).energy_uj == pytest.approx(0.05 * 30_000 / RATE_HZ * 1e6)
    assert window(20).nan_share == pytest.approx(20 / 30_000)
    assert window(40).status is Status.REFUSED and "40 of 30000" in window(40).reason


@pytest.mark.filterwarnings("error")
def test_a_window_without_any_power_or_whose_samples_are_all_lost_has_no_jumps():
    dead = made(pulses(2000, 3000, 2000, 3000, 2000), idle_w=0.0, active_w=0.0)
    assert [(w.status, w.jump_share, w.energy_uj) for w in find_windows(dead)] == [(Status.OK, 0.0, 0.0)] * 2
    lost = made(pulses(2000, 3000, 2000, 3000, 2000))
    lost.power_w[7000:10_000] = np.nan  # of power alone: the trigger shows the edges
    whole, gone = find_windows(lost)
    assert (whole.status, gone.status, gone.jump_share) == (Status.OK, Status.REFUSED, 0.0)


def test_the_uncertainty_covers_the_truth():
    """Edges anywhere within a sample, noise on every sample: the errors scatter as the uncertainties say."""
    rng = np.random.default_rng(5)
    rate, ratios = 10_000, []
    for _ in range(300):
        start, stop = 0.1 + rng.random() / rate, 0.15 + rng.random() / rate
        times = np.arange(2500) / rate
        share = np.clip(np.minimum(times + 1 / rate, stop) - np.maximum(times, start), 0, 1 / rate) * rate
        power = (0.05 * share + rng.normal(0, 0.005, 2500)).astype(np.float32)
        level = ((times >= start) & (times < stop)).astype(np.uint8)
        recording = MemoryRecording(
            "x",
            Timebase(rate, 0, 2500),
            Timebase(rate, 0, 2500),
            power,
            np.packbits(np.concatenate([level, np.zeros(-2500 % 8, np.uint8)]), bitorder="little"),
        )
        (window,) = find_windows(recording)
        ratios.append((window.energy_uj - 0.05 * (stop - start) * 1e6) / window.energy_uncertainty_uj)
    assert abs(np.mean(ratios)) < 0.35
    assert 0.6 < np.std(ratios) < 1.4


def test_a_trigger_that_never_moves_or_always_moves_is_one_sentence():
    with pytest.raises(UserError, match="never rises"):
        find_windows(made(np.zeros(1000)))
    with pytest.raises(UserError, match="never falls"):
        find_windows(made(np.ones(1000)))
    with pytest.raises(UserError, match="open input"):
        find_windows(made(np.tile([0, 1], 1_500_000)))


# ---------------------------------------------------------------- the vendor's files

pyjls = pytest.importorskip("pyjls")


def write_jls(path, recording, *, model="JS220", vendor="Jetperch", trigger="gpi[0]", notes=None, power="power"):
    writer = pyjls.Writer(str(path))
    if notes:
        writer.user_data(0, notes)
    writer.source_def(source_id=1, name=f"{model}-1", vendor=vendor, model=model, version="", serial_number="1")
    f32, u1, fsr = pyjls.DataType.F32, pyjls.DataType.U1, pyjls.SignalType.FSR
    kinds = [(1, power, "W", f32, recording.power), (2, trigger, "", u1, recording.trigger)]
    for number, name, units, data_type, base in kinds:
        writer.signal_def(
            signal_id=number, source_id=1, signal_type=fsr, data_type=data_type, sample_rate=base.rate_hz, name=name,
            units=units,
        )  # fmt: skip
    writer.fsr_f32(1, recording.power.offset, recording.power_w)
    writer.fsr_f32(2, recording.trigger.offset, recording.trigger_bits)
    writer.close()
    return path


RECORDED = made(pulses(5000, 3000, 5000, 4000, 5000), trigger_rate=2, power_offset=4000, trigger_offset=4004)


@pytest.fixture(scope="module")
def jls(tmp_path_factory):
    return write_jls(tmp_path_factory.mktemp("jls") / "run.jls", RECORDED)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_gives_the_windows_of_what_was_recorded(jls):
    before = digest(jls)
    with open_jls(jls) as recording:
        found = find_windows(recording)
    assert recording.label == "joulescope-js220"
    assert [w.energy_uj for w in found] == pytest.approx([w.energy_uj for w in find_windows(RECORDED)], rel=1e-6)
    assert [w.span for w in found] == [w.span for w in find_windows(RECORDED)]
    assert digest(jls) == before


def test_current_and_voltage_do_where_power_was_not_recorded(tmp_path):
    path = tmp_path / "iv.jls"
    writer = pyjls.Writer(str(path))
    writer.source_def(source_id=1, name="JS110-1", vendor="Jetperch", model="JS110", version="", serial_number="1")
    f32, u1, fsr = pyjls.DataType.F32, pyjls.DataType.U1, pyjls.SignalType.FSR
    for number, name, data_type in ((1, "current", f32), (2, "voltage", f32), (3, "gpi[0]", u1)):
        writer.signal_def(
            signal_id=number, source_id=1, signal_type=fsr, data_type=data_type,
            sample_rate=RATE_HZ * (1 + (number == 3)), name=name, units="",
        )  # fmt: skip
    writer.fsr_f32(1, 4000, RECORDED.power_w / 2)
    writer.fsr_f32(2, 4000, np.full_like(RECORDED.power_w, 2.0))
    writer.fsr_f32(3, 8008, RECORDED.trigger_bits)
    writer.close()
    with open_jls(path) as recording:
        found = find_windows(recording)
    assert [w.energy_uj for w in found] == pytest.approx([w.energy_uj for w in find_windows(RECORDED)], rel=1e-6)


def test_a_truncated_file_is_read_as_far_as_it_goes_and_stays_as_it_is(jls, tmp_path, capfd):
    content = jls.read_bytes()
    path = tmp_path / "truncated.jls"
    path.write_bytes(content[: len(content) * 2 // 3])
    before = digest(path)
    try:
        with open_jls(path) as recording:
            find_windows(recording)
    except UserError as error:
        assert str(path) in str(error)
    assert digest(path) == before
    assert capfd.readouterr().err == ""


def test_a_file_that_is_damaged_in_the_middle_is_one_sentence(jls, tmp_path, capfd):
    content = jls.read_bytes()
    damaged_samples = 0
    for place in range(100, len(content) - 100, len(content) // 40):
        path = tmp_path / "damaged.jls"
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with pytest.raises(UserError, match="damaged") as caught, open_jls(path) as recording:
            find_windows(recording)
        damaged_samples += "is damaged within power" in str(caught.value)
    assert damaged_samples > 5
    assert capfd.readouterr().err == ""


def test_an_emulated_instruments_file_says_that_it_is_simulated(tmp_path):
    with open_jls(write_jls(tmp_path / "e.jls", RECORDED, notes="simulated: not an instrument's")) as recording:
        assert recording.label == "simulated"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"vendor": "Otii"}, "was not recorded by a Joulescope"),
        ({"trigger": "gpi[1]"}, "holds no signal 'gpi\\[0\\]', only gpi\\[1\\], power"),
        ({"power": "current_range"}, "holds no signal 'current'"),
    ],
)
def test_files_of_another_kind_are_one_sentence(options, found, tmp_path):
    path = write_jls(tmp_path / "other.jls", RECORDED, **options)
    with pytest.raises(UserError, match=found), open_jls(path):
        pass


@pytest.mark.parametrize(
    ("content", "found"), [(b"", "is empty"), (b"\xf1 something", "is no JLS file"), (b"jlsfmt\r\n", "cannot be read")]
)
def test_files_that_are_no_recordings_are_one_sentence(content, found, tmp_path, capfd):
    path = tmp_path / "x.jls"
    path.write_bytes(content)
    with pytest.raises(UserError, match=found), open_jls(path):
        pass
    assert path.read_bytes() == content and capfd.readouterr().err == ""
