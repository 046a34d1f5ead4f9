"""Which saved cost models there are, and whether they are of the device that answers."""

import json

import pytest
from fake_device import identity

from profiler.model_cards import ModelCard, find_models

CARD = {
    "schema": 2,
    "device": "qemu-test",
    "timer": "instructions",
    "caches": "warm",
    "board": "qemu-test",
    "clock_hz": 10**8,
    "firmware_version": "1",
    "build_hash": "build1",
    "identity": {"unique_id": ""},
    "typical_error_percent": 0.5,
    "n_ops": 12,
    "targets": {
        "latency": {"groups": {"relu/forward/f32/blocked": {}, "relu/forward/s8/blocked": {}, "add/forward/s8": {}}}
    },
}


def save(folder, **changes):
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps(CARD | changes))
    (folder / "arrays.npz").write_bytes(b"")
    return folder


def test_models_are_found_at_any_depth_and_once(tmp_path):
    paths = [save(tmp_path / name) for name in ("a.model", "deep/er/b.model")]
    cards, problems = find_models([tmp_path, tmp_path / "deep", paths[0], tmp_path / "nowhere"])
    assert [card.path for card in cards] == paths and not problems
    assert cards[0].dtypes == ("f32", "s8") and cards[0].n_ops == 12 and cards[0].typical_error_percent == 0.5


def test_a_shallow_search_stays_in_the_folder_and_its_own(tmp_path):
    save(tmp_path / "a.model")
    save(tmp_path / "deep" / "b.model")
    assert [card.path.name for card in find_models([tmp_path], deep=False)[0]] == ["a.model"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "schema None"),
        (json.dumps(CARD | {"schema": 1}), "schema 1, this version reads 2"),
        (json.dumps({k: v for k, v in CARD.items() if k != "identity"}), "damaged"),
        (json.dumps(CARD | {"targets": 3}), "damaged"),
        (json.dumps(CARD | {"identity": []}), "damaged"),
        (json.dumps(CARD | {"n_ops": "many"}), "damaged"),
    ],
)
def test_a_model_that_cannot_be_read_is_said_and_the_others_are_found(tmp_path, content, said):
    (save(tmp_path / "bad") / "model.json").write_text(content)
    save(tmp_path / "good")
    cards, problems = find_models([tmp_path])
    assert [card.path.name for card in cards] == ["good"]
    assert len(problems) == 1 and "bad is left out" in problems[0] and said in problems[0]


def test_a_model_json_of_another_program_is_none_of_ours(tmp_path):
    (tmp_path / "model.json").write_text('{"modelTopology": {}}')
    assert find_models([tmp_path]) == ([], [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"clock_hz": 10**8 + 10**5}, None),  # a host's, measured when the agent started
        ({"clock_hz": None}, None),
        ({"build_hash": "build2"}, "other build (build2)"),
        ({"clock_hz": 16_000_000}, "other clock (16,000,000 Hz)"),
        ({"timer": "tim2"}, "other timer (tim2)"),
        ({"identity": {"unique_id": "0a"}}, "other chip (0a)"),
    ],
)
def test_a_model_holds_for_the_device_it_was_fitted_to(tmp_path, changes, said):
    card = ModelCard.read(save(tmp_path / "m", **changes))
    assert card.differences(identity()) == ([said] if said else [])
