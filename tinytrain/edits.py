"""Modules added to a backbone for training: TinyTL's lite residuals, and bottleneck adapters.

Both end in a 1×1 convolution that starts at zero, so that the edited network first computes what the backbone does:
prototypes and frozen features stay. The backbone's layers keep their names, and both can be lowered to a device.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from profiler.errors import UserError
from tinytrain.backbones import GEOMETRIES, Backbone

#: Channels of a group of the normalisation, and groups of the convolution (arXiv 2007.11622).
NORM_CHANNELS, CONV_GROUPS, LARGEST_KERNEL = 8, 2, 5
#: Of an adapter: channels of the map for one of its bottleneck.
REDUCTION = 4
#: Share of the blocks that have no adapter, counted from the first.
ADAPTERS_DROPPED = 0.5


class Edited(nn.Module):
    """A backbone with modules beside its blocks (``lite``) or behind them (``adapter``).

    Args:
        model: The backbone; its modules are shared.
        lite: By block number as text: what is added to the block's output, computed from its input.
        adapter: By block number as text: what is added to the block's output, computed from that.
    """

    def __init__(self, model: Backbone, *, lite: nn.ModuleDict | None = None, adapter: nn.ModuleDict | None = None):
        super().__init__()
        self.name, self.features = model.name, model.features
        for name, module in model.named_children():
            setattr(self, name, module)
        self.lite, self.adapter = lite or nn.ModuleDict(), adapter or nn.ModuleDict()

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`Backbone.forward`."""
        x = self.first_conv_relu(self.first_conv(x))
        for number, block in enumerate(self.blocks):
            y = block(x)
            if str(number) in self.lite:
                y = y + self.lite[str(number)](x)
            if str(number) in self.adapter:
                y = y + self.adapter[str(number)](y)
            x = y
        return self.classifier(self.flatten(self.pool(x)))


class LiteResidual(nn.Module):
    """Average pooling by 2, grouped convolution, GroupNorm, ReLU, 1×1, bilinear up-sampling by 2.

    Where the pooled and up-sampled map would not be as large as the block's output (maps of odd extents), pooling and
    up-sampling are left out.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, *, pooled: bool) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2) if pooled else nn.Identity()
        self.grouped = nn.Conv2d(
            in_channels, in_channels, kernel, stride, padding=kernel // 2, groups=CONV_GROUPS, bias=False
        )
        self.norm = nn.GroupNorm(max(1, in_channels // NORM_CHANNELS), in_channels)
        self.relu = nn.ReLU()
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear") if pooled else nn.Identity()
        nn.init.zeros_(self.pointwise.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.pointwise(self.relu(self.norm(self.grouped(self.pool(x))))))


class Adapter(nn.Module):
    """1×1 convolution to a quarter of the channels, ReLU, 1×1 convolution back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(NORM_CHANNELS, channels // REDUCTION)
        self.down, self.relu, self.up = nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.relu(self.down(x)))


def with_lite_residuals(model: nn.Module, size: tuple[int, int]) -> Edited:
    """A copy of the backbone with a lite residual beside every block (TinyTL, arXiv 2007.11622).

    Args:
        model: The backbone.
        size: Height and width of its input, by which maps are pooled or not.

    Raises:
        UserError: the model is no backbone.
    """
    _check_backbone(model, "lite residuals")
    extents = [(extent + 1) // 2 for extent in size]  # behind the first convolution
    channels, modules = model.first_conv.out_channels, {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for number, geometry in enumerate(GEOMETRIES[model.name]):
            stride = geometry.stride
            behind = [-(-extent // stride) for extent in extents]
            pooled = all(2 * -(-(e // 2) // stride) == b for e, b in zip(extents, behind, strict=True))
            kernel = min(geometry.kernel, LARGEST_KERNEL)
            modules[str(number)] = LiteResidual(channels, geometry.out_channels, kernel, stride, pooled=pooled)
            extents, channels = behind, geometry.out_channels
    return Edited(copy.deepcopy(model), lite=nn.ModuleDict(modules)).eval()


def with_adapters(model: nn.Module, size: tuple[int, int], dropped: float = ADAPTERS_DROPPED) -> Edited:
    """A copy of the backbone with adapters behind its last blocks (AdapterDrop, arXiv 2010.11918).

    Args:
        model: The backbone.
        size: Height and width of its input; adapters fit any.
        dropped: Share of the blocks, counted from the first, that have none: 0 or more and below 1.

    Raises:
        UserError: the model is no backbone.
    """
    _check_backbone(model, "adapters")
    geometries = GEOMETRIES[model.name]
    first = int(dropped * len(geometries))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules = {str(n): Adapter(geometries[n].out_channels) for n in range(first, len(geometries))}
    return Edited(copy.deepcopy(model), adapter=nn.ModuleDict(modules)).eval()


def _check_backbone(model: nn.Module, what: str) -> None:
    if not isinstance(model, Backbone):
        raise UserError(
            f"{what} are added to the blocks of a backbone, and this network is none",
            hint=f"take one of {', '.join(GEOMETRIES)}, or a method that adds nothing",
        )
