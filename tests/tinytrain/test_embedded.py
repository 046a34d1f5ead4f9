import re

import pytest
import torch

from tinytrain import backbones, data, episodes
from tinytrain.training import pseudo_query

SOURCE = data.EmbeddedSource("in a test")


@pytest.fixture(scope="module")
def model():
    return backbones.create("mcunet-5fps", SOURCE.weights("mcunet-5fps"))


@pytest.fixture(scope="module")
def accuracy_percent(model):
    """Mean 5-way 5-shot accuracy on digits that the weights have not seen."""
    images = SOURCE.images()
    features = episodes.embed(model, images.tensor(range(len(images)), (64, 64)))
    total = 0.0
    for seed in range(100):
        episode = episodes.draw(images, seed)
        task = episodes.Task(
            features[list(episode.support)],
            torch.tensor(episode.support_labels),
            features[list(episode.query)],
            torch.tensor(episode.query_labels),
        )
        total += episodes.accuracy(torch.nn.Identity(), task, 5)
    return total


def test_the_embedded_files_are_small_and_no_pickle():
    files = list(data.EMBEDDED_FOLDER.iterdir())
    assert sum(file.stat().st_size for file in files) <= 2e6
    assert {file.suffix for file in files} == {".npz", ".md"}


@pytest.mark.slow
def test_the_card_states_the_accuracy_that_the_weights_have(accuracy_percent):
    card = (data.EMBEDDED_FOLDER / "mcunet-5fps.md").read_text()
    stated = float(re.search(r"these weights, 5 shots \| ([\d.]+)", card).group(1))
    assert accuracy_percent == pytest.approx(stated, abs=0.5)
    assert accuracy_percent > 60  # chance is 20


def test_features_of_the_embedded_weights_separate_digits_never_seen(model):
    images = SOURCE.images()
    accuracies = [
        episodes.accuracy(model, episodes.draw(images, seed, queries=8).load(images, (64, 64)), 5) for seed in range(3)
    ]
    assert sum(accuracies) / 3 > 0.5


def test_no_layer_of_the_embedded_weights_is_dead(model):
    task = episodes.draw(SOURCE.images(), 0).load(SOURCE.images(), (64, 64))
    alive = {}
    for name, conv in backbones.convolutions(model):
        conv.register_forward_hook(lambda m, i, o, name=name: alive.update({name: float(o.std())}))
    episodes.embed(model, pseudo_query(task.support, 0))
    assert len(alive) == 42
    assert min(alive.values()) > 1e-3
