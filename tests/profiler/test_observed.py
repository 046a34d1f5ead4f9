"""What a device tells of its speed beside every trial, and what is made of it."""

import dataclasses

import pytest
from fake_device import OPS, FakeDevice, fresh, make_loop, measured

from profiler import store
from profiler.devices.state import MachineState, disturbances
from profiler.measure.observed import disturbance_warning, disturbed

CALM = MachineState(3, "isolated", "performance", 1_500_000, 55.0, 0, "pinctrl-bcm2711 line 17")


def pair(before, after):
    return [dataclasses.replace(CALM, **changes).to_dict() for changes in (before, after)]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({}, {}, []),
        ({"frequency_khz": None, "temperature_c": None, "throttled": None}, {}, []),
        ({"frequency_khz": 600_000}, {}, ["frequency changed"]),
        ({"frequency_khz": 1_500_345}, {}, []),
        ({}, {"temperature_c": 80.4}, ["hotter than 80 °C"]),
        ({"temperature_c": 80.4}, {}, ["hotter than 80 °C"]),
        ({"throttled": 1}, {}, ["supply voltage too low"]),
        ({}, {"throttled": 0b0110}, ["frequency capped", "throttled"]),
        ({"throttled": 0x50000}, {"throttled": 0x50000}, []),  # long ago
        ({"throttled": 0x10000}, {"throttled": 0x90000}, ["soft temperature limit"]),  # meanwhile, and over again
        ({"throttled": 0x10000}, {}, []),  # somebody cleared it
    ],
)
def test_a_change_of_frequency_heat_and_throttling_disturb_a_trial(before, after, found):
    assert disturbances(*pair(before, after)) == found


def test_every_trial_holds_the_state_before_and_after_it(tmp_path):
    warm = dataclasses.replace(CALM, temperature_c=60.0)
    for trial in measured(tmp_path, FakeDevice(states=[CALM, warm])):
        assert trial["state"] == {"before": CALM.to_dict(), "after": warm.to_dict()}


def test_a_device_that_does_not_tell_leaves_no_state_in_its_trials(tmp_path):
    assert all("state" not in trial for trial in measured(tmp_path, FakeDevice()))


def test_disturbed_trials_are_counted_by_cause_and_marked_in_the_table(tmp_path):
    slow = dataclasses.replace(CALM, frequency_khz=600_000, throttled=0b0100)
    device = FakeDevice(states=[CALM, CALM, slow, CALM])  # every other trial
    with store.Run.create(tmp_path / "run", fresh(device)) as run:
        make_loop(device, run).measure()
        counts = disturbed(run.trials)
        count = len(run.trials)
    assert counts == {"frequency changed": count // 2, "throttled": count // 2}
    assert "frequency changed" in disturbance_warning(counts, count)
    table = store.load(tmp_path / "run")
    assert set(table.disturbed_trials) == {0, 1} and len(table) == len(OPS)
    assert disturbed([]) == {}
