import io

import numpy as np
import pytest
import torch
from PIL import Image

from profiler.errors import UserError
from profiler.workloads.lower import lower
from tinytrain import backbones, weights
from tinytrain.images import from_npz

NAMES = tuple(backbones.GEOMETRIES)


@pytest.mark.parametrize(("name", "layers", "features"), [(NAMES[0], 42, 160), (NAMES[1], 51, 112), (NAMES[2], 60, 96)])
def test_a_backbone_gives_a_feature_vector_at_any_input_size(name, layers, features):
    model = backbones.create(name)
    assert len(backbones.convolutions(model)) == layers
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, features)
    assert model(torch.zeros(1, 3, 96, 80)).shape == (1, features)


@pytest.mark.parametrize("name", NAMES)
def test_published_indices_name_the_convolutions_in_order(name):
    model = backbones.create(name)
    for index, (layer, _) in enumerate(backbones.convolutions(model)):
        assert backbones.layer_of_index(name, index) == layer
        assert backbones.flat_index(name, layer) == index


def test_the_published_schemes_of_mcunet_train_first_pointwise_layers_only():
    # Indices of the released 49 kB to 148 kB schemes: the paper says that they are first pointwise convolutions.
    for index in (21, 24, 27, 30, 33, 36, 39):
        assert backbones.layer_of_index("mcunet-5fps", index).endswith("pointwise1")


def test_creating_twice_gives_equal_random_weights_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = backbones.create("mbv2-w0.35"), backbones.create("mbv2-w0.35")
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_backbone_lowers_to_layers_named_by_module_path():
    network = lower(backbones.create("mcunet-5fps"), (3, 64, 64), "mcunet-5fps")
    assert [layer.name for layer in network.trainable] == [
        backbones.layer_of_index("mcunet-5fps", index) for index in range(42)
    ]


def test_an_unknown_backbone_and_foreign_weights_are_refused_by_name():
    with pytest.raises(UserError, match=r"no backbone 'resnet'.*mcunet-5fps"):
        backbones.create("resnet")
    foreign = backbones.create("mbv2-w0.35").state_dict()
    with pytest.raises(UserError, match=r"not those of mcunet-5fps: blocks\.1"):
        backbones.create("mcunet-5fps", foreign)


def test_a_file_that_is_no_weight_file_is_refused(tmp_path):
    path = tmp_path / "mcunet-5fps.pkl"
    with pytest.raises(UserError, match="cannot read the weights"):
        weights.read_pickle(path, "mcunet-5fps")
    path.write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00trueR.")  # a pickle that would run a command
    with pytest.raises(UserError, match="no int8 weight file"):
        weights.read_pickle(path, "mcunet-5fps")
    path.write_bytes(b"")
    with pytest.raises(UserError, match="no int8 weight file"):
        weights.read_pickle(path, "mcunet-5fps")


def test_weights_of_another_backbone_are_refused(data_folder):
    with pytest.raises(UserError, match="does not hold mcunet-5fps"):
        weights.read_pickle(data_folder / "weights" / "mbv2-w0.35.pkl", "mcunet-5fps")


def test_int8_files_of_ours_keep_every_weight_within_half_a_step(tmp_path):
    model = backbones.create("mcunet-5fps")
    path = tmp_path / "w.npz"
    weights.write_npz(path, model.state_dict())
    read = weights.read_npz(path)
    for key, value in model.state_dict().items():
        if key.endswith("bias"):
            assert torch.equal(read[key], value)
        else:
            step = value.abs().flatten(1).amax(1).div(127)
            assert ((read[key] - value).abs().flatten(1).amax(1) <= 0.5001 * step).all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "percent"), [(NAMES[0], 59.5), (NAMES[1], 51.1), (NAMES[2], 53.3)])
def test_published_weights_reach_their_top1_on_imagenet_samples(data_folder, name, percent):
    samples = from_npz(data_folder / "images" / "imagenet_1000x1_128.npz", "imagenet")
    model = backbones.create(name, weights.read_pickle(data_folder / "weights" / f"{name}.pkl", name), classes=1000)
    right = 0
    for start in range(0, 1000, 100):
        numbers = range(start, start + 100)
        with torch.no_grad():
            predicted = model(samples.tensor(numbers, (128, 128))).argmax(1)
        right += int((predicted == torch.from_numpy(samples.labels[list(numbers)])).sum())
    # JPEG decoders differ in the last bit, which moves an image or two.
    assert right / 10 == pytest.approx(percent, abs=0.5)


def test_jpeg_archives_decode_to_the_images_that_went_in(tmp_path):
    rng = np.random.default_rng(0)
    streams = []
    for level in (30, 200):
        buffer = io.BytesIO()
        Image.fromarray(np.full((16, 16, 3), level, np.uint8)).save(buffer, "JPEG", quality=95)
        streams.append(np.frombuffer(buffer.getvalue(), np.uint8))
    path = tmp_path / "set.npz"
    np.savez(
        path,
        blob=np.concatenate(streams),
        offset=np.cumsum([0, *map(len, streams)]),
        label=np.array([0, 1]),
        class_names=np.array(["dark", "light"]),
        group=rng.integers(0, 9, 2),
    )
    read = from_npz(path, "set")
    assert abs(int(read.pixels(0).mean()) - 30) <= 2
    assert abs(int(read.pixels(1).mean()) - 200) <= 2
    assert read.groups is not None
    assert read.class_names == ("dark", "light")
