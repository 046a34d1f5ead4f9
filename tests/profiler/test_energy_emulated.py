"""The emulated instrument against its own truth, through the vendor's own recorder and files."""

import json
import random

import numpy as np
import pytest
from command_line import profile

from profiler.energy.emulated import MODELS, EmulatedDriver, Faults, Segment
from profiler.energy.find import find_windows
from profiler.energy.instruments import EmulatedJoulescope, Joulescope, choose, open_emulated
from profiler.energy.judge import ClockRatio, Expected, accumulator_doubt, doubt
from profiler.energy.recording import open_jls
from profiler.errors import UserError

IDLE_W, ACTIVE_W = 0.020, 0.075


class Target:
    """A device that raises its trigger when it is told to."""

    def __init__(self):
        self.pending = []

    def run(self, duration_s, power_w=ACTIVE_W):
        self.pending += [Segment(0.0007, 0.05, False), Segment(duration_s, power_w, True), Segment(0.0003, 0.05, False)]

    def activity(self):
        done, self.pending = self.pending, []
        return done


def measure(joulescope, target, duration_s, loops=1000):
    """One window as a trial makes it: idle, run, idle. (the window, why it must not be used)."""
    since_s = min(joulescope.idle(0.1), joulescope.now_s - 0.1)
    target.run(duration_s)
    joulescope.idle(0.1)
    recording = joulescope.recording(since_s)
    windows = find_windows(recording)
    reason = doubt(windows, Expected(1, duration_s, loops), resolution_s=1e-6)
    slack_s = joulescope.accumulator_slack_s
    reason = reason or accumulator_doubt(recording, joulescope.accumulated(), slack_s=slack_s)
    return windows[0] if windows else None, reason


@pytest.mark.parametrize("model", MODELS)
def test_energy_is_within_a_thousandth_of_the_truth(model, tmp_path):
    target = Target()
    driver = EmulatedDriver(model, drift=0.01)
    with open_emulated(driver, target.activity, idle_power_w=IDLE_W, file=tmp_path / "run.jls") as joulescope:
        assert joulescope.label == "simulated"
        found = [measure(joulescope, target, duration_s) for duration_s in (0.3, 0.31, 0.5)]
        truths_uj = joulescope.truths_uj
    for (window, reason), truth_uj in zip(found, truths_uj, strict=True):
        assert not reason
        assert window.energy_uj == pytest.approx(truth_uj, rel=1e-3)
        assert window.net_energy_uj == pytest.approx(truth_uj * (1 - IDLE_W / ACTIVE_W), rel=5e-3)
    with open_jls(tmp_path / "run.jls") as recording:
        assert recording.label == "simulated"
        again = find_windows(recording)
    assert [w.energy_uj for w in again] == pytest.approx([w.energy_uj for w, _ in found], rel=1e-6)


def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes_and_the_command_says_so(tmp_path):
    target, whole, cut = Target(), tmp_path / "whole.jls", tmp_path / "cut.jls"
    with open_emulated(EmulatedDriver(), target.activity, idle_power_w=IDLE_W, file=whole) as joulescope:
        for _ in range(4):
            measure(joulescope, target, 0.3)
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) * 3 // 4])
    status, out, err = profile("energy", cut, "--json")
    assert status == 0 and "cut.jls was cut off before it was closed: it is read as far as it goes" in err
    windows = json.loads(out)["windows"]
    assert 2 <= len(windows) < 4
    assert [w["energy_uj"] for w in windows] == pytest.approx([0.3e6 * ACTIVE_W] * len(windows), rel=1e-3)
    assert cut.read_bytes() == content[: len(content) * 3 // 4]
    assert "cut off" not in profile("energy", whole)[2]


def faults_of(seed, model):
    """One dropout, a skew, or a current range that changes late, anywhere in the second or so that a window takes."""
    chance = random.Random(seed)
    kind = seed % 3
    # A JS110's first window waits for a reading of its accumulator.
    at_s = (0.3 if model == "js110" else 0.1) + chance.random() * 0.6
    if kind == 0:
        dropouts = ((at_s, chance.choice([0.001, 0.01, 0.05, 0.2])),)
        return Faults(trigger_dropouts=dropouts) if seed % 2 else Faults(dropouts=dropouts)
    if kind == 1:
        return Faults(skew=chance.choice([-1, 1]) * 10 ** chance.uniform(-5, -0.7))
    return Faults(glitches=((at_s, 10 ** chance.uniform(-4, -1.2), chance.choice([0.1, 0.8, 1.3, 10.0])),))


@pytest.mark.parametrize(
    ("model", "seeds"),
    [("js220", range(9)), *(pytest.param(model, range(9, 43), marks=pytest.mark.slow) for model in MODELS)],
)
def test_a_fault_is_noticed_or_does_no_harm_and_measuring_again_completes(model, seeds):
    refused = 0
    for seed in seeds:
        target = Target()
        driver = EmulatedDriver(model, seed=seed, drift=0.005, faults=faults_of(seed, model))
        with open_emulated(driver, target.activity, idle_power_w=IDLE_W) as joulescope:
            for attempt in range(4):
                window, reason = measure(joulescope, target, 0.3)
                truth_uj = joulescope.truths_uj[attempt]
                if not reason:
                    assert window.energy_uj == pytest.approx(truth_uj, rel=5e-3), (seed, driver.faults)
                    break
                refused += 1
            else:
                assert abs(driver.faults.skew) > 0.003  # a clock that wrong stays wrong: nothing is accepted
    assert refused >= len(seeds) // 4


def test_a_js110s_accumulator_is_read_twice_a_second_and_disagrees_with_samples_that_are_wrong():
    """Of a count of its own, which only UTC joins with the samples."""
    target = Target()
    driver = EmulatedDriver("js110", faults=Faults(glitches=((0.0, 60.0, 1.02),)))
    with open_emulated(driver, target.activity, idle_power_w=IDLE_W) as joulescope:
        window, reason = measure(joulescope, target, 0.3)
        assert "accumulator says" in reason and window.energy_uj == pytest.approx(1.02 * joulescope.truths_uj[0], 1e-3)
        readings = joulescope.accumulated()
        assert np.diff([at_s for at_s, _ in readings]) == pytest.approx(0.5)
        assert joulescope.now_s - 0.5 < readings[-1][0] <= joulescope.now_s


def test_an_edge_beside_lost_samples_of_the_trigger_alone_is_none():
    for lost_s in (0.1003, 0.2, 0.4003):  # with the rise, within, with the fall
        target = Target()
        driver = EmulatedDriver("js220", faults=Faults(trigger_dropouts=((lost_s, 0.001),)))
        with open_emulated(driver, target.activity, idle_power_w=IDLE_W) as joulescope:
            target.run(0.3)
            joulescope.wait(0.5)
            windows = find_windows(joulescope.recording(0.0))
        assert windows and all("lies beside samples that the instrument lost" in w.reason for w in windows)


def test_a_window_of_another_length_than_others_make_expect_is_doubted():
    clocks = ClockRatio()
    expected = Expected(1, 0.3)
    ours = np.random.default_rng(1).normal(1 + 3e-3, 2e-5, 40) * expected.duration_s
    assert not any(clocks.doubt(duration_s, expected, resolution_s=1e-6) for duration_s in ours)
    shorter = clocks.doubt(ours[0] - 2e-4, expected, resolution_s=1e-6)  # 100 times less than the clocks may differ by
    assert "ppm more than other windows" in shorter and "-6" in shorter
    drifting = 0.3 * (1 + 3e-3 + np.linspace(0, 2e-3, 200))
    assert not any(clocks.doubt(duration_s, expected, resolution_s=1e-6) for duration_s in drifting)


@pytest.mark.parametrize(("model", "rate_hz"), [("js220", 1000), ("js220", 250), ("js320", 1000)])
def test_statistics_instead_of_samples_give_the_energy_within_its_uncertainty(model, rate_hz):
    """Edges at any place within an interval, which do not begin with the recording's first sample either."""
    target = Target()
    driver = EmulatedDriver(model, drift=0.001, start_s=1.0003)
    duration_s = 1.0 if rate_hz == 1000 else 1.2
    with open_emulated(driver, target.activity, idle_power_w=IDLE_W, statistics_hz=rate_hz) as joulescope:
        joulescope.wait(0.0042)
        for shift_s in (0.0, 0.00021, 0.0007):
            window, reason = measure(joulescope, target, duration_s + shift_s)
            truth_uj = joulescope.truths_uj[-1]
            assert not reason
            assert abs(window.energy_uj - truth_uj) < 2 * window.energy_uncertainty_uj
            assert window.energy_uj == pytest.approx(truth_uj, rel=5e-3 if rate_hz == 1000 else 1e-2)
            # Not so wide that it says nothing: two edges, each somewhere within an interval.
            assert window.energy_uncertainty_uj < 1e6 * ACTIVE_W / rate_hz
            assert window.span.duration_s == pytest.approx(duration_s + shift_s, abs=2e-6)
    streams = {f"u/{model}/simulated/s/{signal}/ctrl": 0 for signal in "ivp"}
    assert {topic: driver.query(topic) for topic in streams} == streams


def test_lost_statistics_refuse_the_window():
    target = Target()
    driver = EmulatedDriver("js220", faults=Faults(dropouts=((0.4, 0.05),)))
    with open_emulated(driver, target.activity, idle_power_w=IDLE_W, statistics_hz=1000) as joulescope:
        _, reason = measure(joulescope, target, 1.0)
        assert reason
        window, reason = measure(joulescope, target, 1.0)
        assert not reason and window.energy_uj == pytest.approx(joulescope.truths_uj[-1], rel=5e-3)


def test_a_js110_has_no_such_statistics_and_another_rate_than_asked_for_is_one_sentence():
    with (
        pytest.raises(UserError, match="nothing for a JS110: it computes its own statistics only twice a second"),
        open_emulated(EmulatedDriver("js110"), list, idle_power_w=IDLE_W, statistics_hz=1000),
    ):
        pass
    driver = EmulatedDriver("js220")
    with open_emulated(driver, list, idle_power_w=IDLE_W, statistics_hz=1000) as joulescope:
        since_s = joulescope.now_s
        driver.publish("u/js220/simulated/s/stats/scnt", 100_000)
        joulescope.wait(1.0)
        assert joulescope.now_s == pytest.approx(since_s)
        with pytest.raises(UserError, match="tells its statistics 10 times a second, not 1000 times"):
            joulescope.recording(since_s)


def test_an_input_that_a_model_does_not_have_is_one_sentence():
    assert Joulescope(EmulatedDriver("js220"), "u/js220/7", trigger_input=3).model == "js220"
    with pytest.raises(UserError, match="u/js110/7 has no input 2; it has 0 to 1") as caught:
        Joulescope(EmulatedDriver("js110"), "u/js110/7", trigger_input=2)
    assert caught.value.exit_status == 2


def test_nothing_is_recorded_without_the_controls():
    """As on the instrument: a signal that is off sends nothing."""
    driver = EmulatedDriver()
    heard = []
    driver.subscribe("u/js220/simulated/s/p/!data", "pub", lambda topic, value: heard.append(value))
    driver.advance([Segment(0.5, 1.0, False)])
    assert not heard
    driver.publish("u/js220/simulated/s/p/ctrl", 1)
    driver.advance([Segment(0.5, 1.0, False)])
    assert sum(len(value["data"]) for value in heard) == pytest.approx(500_000, rel=0.1)
    assert np.mean([value["data"].mean() for value in heard]) == pytest.approx(1.0, rel=1e-4)


def test_no_samples_are_one_sentence():
    joulescope = EmulatedJoulescope(EmulatedDriver(), list, idle_power_w=IDLE_W)
    with pytest.raises(UserError, match="no samples arrive from u/js220/simulated"):
        joulescope.recording(0.0)


@pytest.mark.parametrize(
    ("paths", "serial", "found"),
    [
        ([], None, "no Joulescope was found"),
        (["u/js220/001122"], "9", "no Joulescope with the serial number 9 was found \\(there: js220/001122\\)"),
        (["u/js220/001122", "u/js110/000003"], None, "there are several Joulescopes: js220/001122, js110/000003"),
    ],
)
def test_which_instrument_is_one_sentence(paths, serial, found):
    with pytest.raises(UserError, match=found):
        choose(paths, serial)


def test_an_instrument_is_named_by_the_end_of_its_serial_number():
    assert choose(["u/js220/001122", "u/js220/001133"], "33") == "u/js220/001133"
