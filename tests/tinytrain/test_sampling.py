import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from profiler.errors import UserError
from tinytrain import images as image_sets
from tinytrain.images import ImageSet
from tinytrain.sampling import MetaDataset


def made_up(sizes, group_size=None) -> ImageSet:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    groups = None if group_size is None else np.concatenate([np.arange(n) // group_size for n in sizes])
    return ImageSet("set", labels, tuple(map(str, range(len(sizes)))), lambda n: np.zeros((2, 2), np.uint8), groups)


@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(4, 60), min_size=5, max_size=60),
    cap=st.integers(5, 100),
    group_size=st.sampled_from([None, 1, 2]),
)
def test_tasks_keep_their_limits_and_their_sides_apart(seed, sizes, cap, group_size):
    images = made_up(sizes, group_size)
    episode = MetaDataset(max_support=cap, max_queries=80).draw(images, seed)
    assert 5 <= episode.ways <= min(50, len(sizes), cap)
    assert len(set(episode.classes)) == episode.ways
    assert episode.ways <= len(episode.support) <= cap
    assert episode.ways <= len(episode.query) <= 80
    assert not set(episode.support) & set(episode.query)
    shots, queries = (np.bincount(side) for side in (episode.support_labels, episode.query_labels))
    assert len(shots) == len(queries) == episode.ways
    assert shots.min() >= 1
    assert queries.max() <= min(10, min(sizes[c] for c in episode.classes) // 2)
    if group_size != 2:
        assert queries.min() == queries.max()
    for numbers, labels in ((episode.support, episode.support_labels), (episode.query, episode.query_labels)):
        assert [episode.classes[label] for label in labels] == images.labels[list(numbers)].tolist()
    if images.groups is not None:
        sides = [
            {(images.labels[n], images.groups[n]) for n in numbers} for numbers in (episode.support, episode.query)
        ]
        assert not sides[0] & sides[1]


def test_larger_classes_have_more_shots_and_ways_reach_from_five_to_fifty():
    images = made_up([20] * 30 + [200] * 30)
    drawn = [MetaDataset().draw(images, seed) for seed in range(200)]
    small, large = [], []
    for episode in drawn:
        shots = np.bincount(episode.support_labels)
        for number, count in zip(episode.classes, shots, strict=True):
            (small if number < 30 else large).append(count)
    assert np.mean(large) > 2 * np.mean(small)
    ways = {episode.ways for episode in drawn}
    assert (min(ways), max(ways)) == (5, 50)
    assert max(len(episode.support) for episode in drawn) <= 500
    assert MetaDataset().draw(images, 3) == drawn[3]


def test_classes_that_cannot_be_both_support_and_query_are_refused():
    with pytest.raises(UserError, match="one image"):
        MetaDataset(min_ways=2).draw(made_up([1, 1, 1]), 0)
    with pytest.raises(UserError, match="images of one group"):
        MetaDataset(min_ways=2).draw(made_up([4, 4], group_size=4), 0)
    with pytest.raises(UserError, match=r"5 to 50 ways .* 3 classes"):
        MetaDataset().draw(made_up([9, 9, 9]), 0)


def folder_of(tmp_path, names):
    for index, name in enumerate(names):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (index, 0, 0)).save(path)
    return tmp_path / "pets"


def test_an_image_folder_is_a_set_with_a_class_a_folder(tmp_path):
    folder = folder_of(tmp_path, ["dog/b.png", "cat/a.png", "dog/a.png", ".git/x.png", "dog/.hidden.png"])
    (folder / "dog" / "notes.txt").write_text("not an image")
    read = image_sets.from_folder(folder)
    assert (read.name, read.class_names, read.labels.tolist()) == ("pets", ("cat", "dog"), [0, 1, 1])
    assert [int(read.pixels(n)[0, 0, 0]) for n in range(3)] == [1, 2, 0]
    assert read.groups is None
    assert read.tensor([0], (6, 6)).shape == (1, 3, 6, 6)


def test_folders_below_the_classes_are_groups(tmp_path):
    read = image_sets.from_folder(folder_of(tmp_path, ["a/t1/0.png", "a/t1/1.png", "a/2.png", "a/3.png", "b/t1/4.png"]))
    groups = dict(zip([int(read.pixels(n)[0, 0, 0]) for n in range(5)], read.groups.tolist(), strict=True))
    assert groups[0] == groups[1]
    assert len({groups[0], groups[2], groups[3], groups[4]}) == 4


def test_parts_of_a_set_divide_its_classes(tmp_path):
    entries = ["train/a/0.png", "train/b/t1/1.png", "val/c/2.png", "val/d/3.png", "test/e/4.png"]
    read = image_sets.from_folder(folder_of(tmp_path, entries))
    assert read.class_names == ("a", "b", "c", "d", "e")
    assert [read.classes(part).tolist() for part in ("train", "val", "test")] == [[0, 1], [2, 3], [4]]
    assert read.groups is not None


def test_classes_called_train_and_val_are_classes(tmp_path):
    read = image_sets.from_folder(folder_of(tmp_path, ["train/0.png", "train/1.png", "val/2.png", "val/3.png"]))
    assert read.class_names == ("train", "val")
    assert read.splits is None


def test_a_set_divided_by_images_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"the class 'a' lies in train/ and in val/ of .*divide a set by classes"):
        image_sets.from_folder(folder_of(tmp_path, ["train/a/0.png", "train/b/1.png", "val/a/2.png"]))


def test_folders_without_classes_and_broken_images_are_refused(tmp_path):
    with pytest.raises(UserError, match="images of 1 classes"):
        image_sets.from_folder(folder_of(tmp_path, ["only/a.png"]))
    with pytest.raises(UserError, match="images of 0 classes"):
        image_sets.from_folder(tmp_path / "nowhere")
    folder = folder_of(tmp_path, ["other/b.png"])
    (folder / "other" / "b.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot read the image .*b.png"):
        image_sets.from_folder(folder).pixels(1)


def test_images_of_another_shape_are_cut_to_the_middle_and_not_squeezed():
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 255
    assert (image_sets.to_input(wide, (4, 4)) == 1).all()
    assert (image_sets.to_input(wide.T.copy(), (4, 4)) == 1).all()


def test_a_set_in_parts_numbers_its_images_on(tmp_path):
    for part, labels in enumerate(([0, 1], [1, 0, 1])):
        bits = np.packbits(np.full((len(labels), 8), part, np.uint8), axis=1)
        np.savez(
            tmp_path / f"{part}.npz",
            packed=bits,
            shape=[2, 4],
            label=labels,
            class_names=["a", "b"],
            split=["train", "val"],
        )
    read = image_sets.from_npz([tmp_path / "0.npz", tmp_path / "1.npz"], "set")
    assert read.labels.tolist() == [0, 1, 1, 0, 1]
    assert [int(read.pixels(n).max()) for n in range(5)] == [0, 0, 255, 255, 255]
    assert read.classes("val").tolist() == [1]
    with pytest.raises(UserError, match=r"no part 'test'.*train, val"):
        read.classes("test")
