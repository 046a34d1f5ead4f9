from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from profiler.errors import UserError
from tinytrain import backbones, data, episodes
from tinytrain.images import ImageSet


@given(
    seed=st.integers(0, 10**6),
    ways=st.integers(2, 6),
    shots=st.integers(1, 6),
    members=st.integers(8, 20),
    groups=st.sampled_from([None, 2, 3]),
)
def test_an_episode_keeps_images_and_groups_on_one_side(seed, ways, shots, members, groups):
    labels = np.repeat(np.arange(6), members)
    tracks = None if groups is None else np.tile(np.arange(members) // groups, 6)
    images = ImageSet("set", labels, tuple("abcdef"), lambda n: np.zeros((2, 2), np.uint8), tracks)
    assume(groups is None or members - groups >= shots)  # a whole group is left for the query
    episode = episodes.draw(images, seed, ways=ways, shots=shots, queries=4)
    assert len(episode.support) == ways * shots
    assert not set(episode.support) & set(episode.query)
    for numbers, task_labels in ((episode.support, episode.support_labels), (episode.query, episode.query_labels)):
        assert [episode.classes[label] for label in task_labels] == labels[list(numbers)].tolist()
    if tracks is not None:
        sides = [{(labels[n], tracks[n]) for n in numbers} for numbers in (episode.support, episode.query)]
        assert not sides[0] & sides[1]


def test_equal_seeds_give_equal_episodes_and_other_seeds_others(images):
    assert episodes.draw(images, 3) == episodes.draw(images, 3)
    assert episodes.draw(images, 3) != episodes.draw(images, 4)


def test_shots_are_drawn_from_half_of_the_groups_whatever_their_group(images):
    counts = set()
    for seed in range(20):
        episode = episodes.draw(images, seed, ways=2, shots=3)
        for way in range(2):
            sides = [
                {int(images.groups[n]) for n, label in zip(numbers, labels, strict=True) if label == way}
                for numbers, labels in (
                    (episode.support, episode.support_labels),
                    (episode.query, episode.query_labels),
                )
            ]
            assert len(sides[1]) == 3  # of five groups of two; two hold three shots
            counts.add(len(sides[0]))
    assert counts == {2}
    drawn = [episodes.draw(images, seed, ways=2, shots=2) for seed in range(20)]
    own = {len({int(images.groups[n]) for n in e.support[:2]}) for e in drawn}
    assert own == {1, 2}


def test_episodes_on_disk_are_those_that_were_drawn_and_refused_with_other_images(images, tmp_path):
    drawn = [episodes.draw(images, seed, ways=3, shots=2) for seed in range(3)]
    path = tmp_path / "episodes.json"
    episodes.save(path, drawn, images)
    assert episodes.load(path, images) == drawn
    other = replace(images, labels=images.labels[::-1].copy())
    with pytest.raises(UserError, match="not those that were drawn from"):
        episodes.load(path, other)
    path.write_bytes(b"\xff" * 1000)
    with pytest.raises(UserError, match="is no file of episodes: 'utf-8' codec can't decode byte 0xff in position 0"):
        episodes.load(path, images)
    path.write_text("[]")
    with pytest.raises(UserError, match="is no file of episodes"):
        episodes.load(path, images)
    with pytest.raises(UserError, match="cannot read the episodes"):
        episodes.load(tmp_path / "none.json", images)


def test_more_ways_than_classes_or_more_shots_than_images_are_refused(images):
    with pytest.raises(UserError, match=r"7 ways .* 6 classes of noise"):
        episodes.draw(images, 0, ways=7)
    with pytest.raises(UserError, match="too few images for 10 shots"):
        episodes.draw(images, 0, shots=10)


def test_prototypes_are_normalised_means_of_normalised_features():
    features = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]])
    result = episodes.prototypes(features, torch.tensor([0, 0, 1]), 2)
    half = 0.5**0.5
    assert torch.allclose(result, torch.tensor([[half, half], [-1.0, 0.0]]))


def test_accuracy_counts_the_query_nearest_to_its_own_prototype():
    task = episodes.Task(
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        torch.tensor([0, 1]),
        torch.tensor([[3.0, 1.0], [1.0, 3.0], [2.0, 1.0], [1.0, 0.5]]),
        torch.tensor([0, 1, 1, 0]),
    )
    assert episodes.accuracy(nn.Identity(), task, 2) == 0.75


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "five", "one"), [("omniglot", 91, 78), ("gtsrb", 70, 57), ("dtd", 75, 55)])
def test_frozen_features_separate_the_sets_as_well_as_they_should(data_folder, dataset, five, one):
    source = data.FolderSource(data_folder, "--data")
    model, images = backbones.create("mcunet-5fps", source.weights("mcunet-5fps")), source.images(dataset)
    model = model.to(memory_format=torch.channels_last)
    parts = np.array_split(np.arange(len(images)), 60)
    features = torch.cat([episodes.embed(model, images.tensor(part, (128, 128))) for part in parts])
    for shots, expected in ((5, five), (1, one)):
        drawn = [episodes.draw(images, seed, shots=shots).of_features(features) for seed in range(300)]
        accuracies = [100 * episodes.accuracy(nn.Identity(), task, 5) for task in drawn]
        assert np.mean(accuracies) == pytest.approx(expected, abs=1.5), shots
