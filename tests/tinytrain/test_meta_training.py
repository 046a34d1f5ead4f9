import json
import re
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from profiler.errors import UserError
from tinytrain import backbones, cli, data, episodes, meta_files, weights
from tinytrain.meta_training import MetaSettings, MetaTraining, augmented, episode_loss, parts
from tinytrain.norms import with_norms, without_norms

SETTINGS = MetaSettings(
    size=32, episodes=4, min_ways=2, max_ways=4, max_support=8, max_queries=8, validate_every=3, learning_rate=1e-3
)
SOURCE = data.EmbeddedSource("in a test")


@pytest.fixture(autouse=True)
def few_validations(monkeypatch):
    monkeypatch.setattr("tinytrain.meta_training.VALIDATION_EPISODES", 5)


@pytest.fixture(scope="module")
def digits():
    from tinytrain import images  # noqa: PLC0415

    return images.digits()


def started(digits, **changes) -> MetaTraining:
    settings = replace(SETTINGS, **changes)
    return MetaTraining(settings, digits, SOURCE.weights("mcunet-5fps") if settings.start == "pretrained" else None)


@pytest.mark.parametrize("start", ["pretrained", "nothing"])
def test_a_training_that_was_left_ends_as_one_that_was_not(digits, tmp_path, start):
    whole = started(digits, start=start)
    whole.run(tmp_path / "whole.pt")
    torn = started(digits, start=start)
    torn.train_episode()
    torn.history.append(torn.validate())
    meta_files.write_checkpoint(tmp_path / "torn.pt", torn.record())
    del torn
    again = started(digits, start=start)
    again.run(tmp_path / "torn.pt")
    assert again.done == whole.done == 4
    # From 3 on, because what was left behind had validated at 1 and not at the start.
    assert [v.episode for v in whole.history] == [0, 3, 4]
    for own, other in zip(again.backbone().parameters(), whole.backbone().parameters(), strict=True):
        assert torch.equal(own, other)
    assert again.smoothed_loss == whole.smoothed_loss


def test_the_loss_of_an_episode_is_protonets_and_its_gradient_reaches_the_support():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6)).double()
    support, query = torch.rand(4, 3, 2, 2).double().requires_grad_(True), torch.rand(3, 3, 2, 2).double()
    episode = episodes.Episode("set", 0, (0, 1), (0, 1, 2, 3), (4, 5, 6), (0, 0, 1, 1), (1, 0, 1))
    loss = episode_loss(model, episode, support, query)
    expected = 0.0
    unit = [f / f.norm() for f in model(support)]
    centres = [(unit[0] + unit[1]) / 2, (unit[2] + unit[3]) / 2]
    for image, label in zip(query, episode.query_labels, strict=True):
        f = model(image[None])[0]
        logits = torch.stack([10 * (f @ c) / (f.norm() * c.norm()) for c in centres])
        expected = expected + torch.logsumexp(logits, 0) - logits[label]
    assert loss.item() == pytest.approx(expected.item() / 3, rel=1e-12)
    loss.backward()
    assert support.grad.abs().sum() > 0


def test_a_checkpoint_under_other_settings_or_of_other_images_is_refused(digits, images):
    record = started(digits).record()
    with pytest.raises(UserError, match=r"learning_rate 0\.001, not 0\.01"):
        started(digits, learning_rate=0.01).restore(record)
    other = MetaTraining(SETTINGS, data.images.digits(range(9, -1, -1)), SOURCE.weights("mcunet-5fps"))
    with pytest.raises(UserError, match="other images"):
        other.restore(record)


def test_a_damaged_checkpoint_is_refused_in_one_sentence(digits, tmp_path):
    path = tmp_path / "checkpoint.pt"
    meta_files.write_checkpoint(path, started(digits).record())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="is no checkpoint"):
        meta_files.read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="is no checkpoint"):
        meta_files.read_checkpoint(path)


@pytest.mark.parametrize(
    "damage", [{"model": {}}, {"optimizer": {}}, {"done": "all"}, {"history": [{"a": 1}]}, {"smoothed_loss": None}]
)
def test_a_checkpoint_that_lacks_something_is_refused(digits, damage):
    with pytest.raises(UserError, match="the checkpoint is damaged"):
        started(digits).restore(started(digits).record() | damage)


def test_what_cannot_be_trained_is_told_before_anything_is_computed(digits, tmp_path, capsys, monkeypatch):
    with pytest.raises(UserError, match=r"9 to 9 ways cannot be drawn from the 8 classes"):
        started(digits, min_ways=9, max_ways=9)
    monkeypatch.setattr(MetaTraining, "__init__", lambda *_: pytest.fail("it had begun"))
    (tmp_path / "file").write_text("")
    for words, says in (
        (("--out", str(tmp_path / "file")), "is a file, where a folder is to be"),
        (("--out", str(tmp_path / "file" / "below")), "Not a directory"),
        (("--out", str(tmp_path / "meta"), "--min-ways", "4"), "--min-ways 4 is more than --max-ways 3"),
    ):
        with pytest.raises(SystemExit) as leaving:
            cli.main([*COMMAND, *words])
        assert leaving.value.code in (1, 2)
        assert says in capsys.readouterr().err


def test_classes_to_train_and_to_validate_are_never_the_same(digits, images):
    train, validation = parts(digits)
    assert validation.tolist() == [4, 9]
    assert sorted([*train, *validation]) == list(range(10))
    split = replace(images, splits=np.array(["train", "val", "test", "train", "val", "test"]))
    assert [p.tolist() for p in parts(split)] == [[0, 3], [1, 4]]
    with pytest.raises(UserError, match=r"6 classes|1 to validate"):
        parts(images)


def test_augmented_images_are_seeded_changed_and_in_range():
    pixels = torch.rand(4, 3, 16, 16) * 2 - 1
    changed = [augmented(pixels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(changed[0], changed[1])
    assert not torch.equal(changed[0], changed[2])
    assert changed[0].abs().max() <= 1


def test_norms_go_in_and_out_again_without_changing_the_function():
    model = with_norms(backbones.create("mcunet-5fps")).train()
    for _ in range(2):
        model(torch.rand(4, 3, 32, 32) * 2 - 1)
    images = torch.rand(2, 3, 32, 32)
    plain = without_norms(model)
    assert model.training
    assert not any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    assert torch.allclose(plain(images), model.eval()(images), rtol=1e-3, atol=1e-5)


def test_half_precision_files_keep_three_digits_and_take_two_bytes_a_value(tmp_path):
    state = backbones.create("mcunet-5fps", SOURCE.weights("mcunet-5fps")).state_dict()
    path = tmp_path / "w.npz"
    weights.write_half(path, state)
    assert path.stat().st_size < 2.2 * sum(v.numel() for v in state.values())
    for key, value in weights.read_npz(path).items():
        assert torch.allclose(value, state[key], rtol=1e-3, atol=1e-6)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="no weight file"):
        weights.read_npz(path)


COMMAND = [
    *("meta-train", "--data", "embedded", "--dataset", "digits", "--size", "32", "--min-ways", "2", "--max-ways", "3"),
    *("--max-support", "6", "--max-queries", "6", "--validate-every", "100", "--threads", "1"),
]


@pytest.mark.slow
def test_killed_at_any_moment_the_command_goes_on(tmp_path, capsys):
    out = tmp_path / "meta"
    command = [sys.executable, "-m", "tinytrain.cli", *COMMAND, "--episodes", "120", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    while not (out / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    done = meta_files.read_checkpoint(out / "checkpoint.pt")["done"]
    assert 0 < done < 120
    with pytest.raises(SystemExit) as leaving:
        cli.main([*COMMAND, "--episodes", "120", "--out", str(out), "--json"])
    assert leaving.value.code == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert record["episodes"] == 120
    assert f"{done} of 120 episodes are done" in printed.err
    card = (out / "mcunet-5fps.md").read_text()
    assert re.search(rf"\| 120 \| {record['accuracy_after_percent']:.2f}", card)
    assert [v["episode"] for v in json.loads((out / "validations.json").read_text())] == [0, 100, 120]
    backbones.create("mcunet-5fps", weights.read_npz(out / "mcunet-5fps.npz"))
