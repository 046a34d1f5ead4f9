"""Fisher information of every output channel, by one backward pass with hooks.

    Δ_o = 1/(2N) · Σ_n ( Σ_d a_nd · g_nd )²          (arXiv 2307.09988, after arXiv 1801.05787)

``a`` is the layer's own output, bias included and *before* the activation function that follows; ``g = ∂L_n/∂a`` is the
gradient of image n's own loss. Behind ReLU the product a·g is the same on either side of it; behind ReLU6's upper
clamp it is 0 here, as it should be: no weight of the channel moves the loss there. ``d`` runs over positions.

No gradient of a weight is computed: the pass costs one forward pass and one chain of ``grad_input`` ops.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from profiler.workloads.plan import Head
from tinytrain.training import head_loss


def fisher_information(
    model: nn.Module,
    layers: Iterable[str],
    images: Tensor,
    labels: Tensor,
    *,
    head: Head,
    prototypes: Tensor | None,
    batch: int = 25,
) -> dict[str, Tensor]:
    """Δ_o of every output channel of ``layers``.

    Args:
        model: The network; its parameters and their gradients are left as they are.
        layers: Names of convolution, linear and GroupNorm modules that share no output.
        images: Shape (n, channels, height, width).
        labels: Shape (n,).
        head: The loss.
        prototypes: See :func:`tinytrain.training.head_loss`.
        batch: Images a pass; changes memory, not the result.

    Returns:
        Layer name to float64 of shape (output channels,).
    """
    modules = dict(model.named_modules())
    information: dict[str, Tensor] = {}
    handles = [modules[name].register_forward_hook(_catch(name, information)) for name in layers]
    training, wanted = model.training, {p: p.requires_grad for p in model.parameters()}
    model.eval().requires_grad_(False)
    try:
        for part, part_labels in zip(images.split(batch), labels.split(batch), strict=True):
            # Gradients must reach every layer although no parameter asks for one.
            output = model(part.clone().requires_grad_(True))
            # Summed, not averaged: each image keeps the gradient of its own loss.
            head_loss(output, part_labels, head, prototypes).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
        for parameter, flag in wanted.items():
            parameter.requires_grad_(flag)
        model.train(training)
    return {name: value / (2 * len(images)) for name, value in information.items()}


def _catch(name: str, information: dict[str, Tensor]):
    def on_forward(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        activation = output.detach().clone()  # an activation in place may follow

        def on_gradient(gradient: Tensor) -> None:
            products = activation.double() * gradient.double()
            sums = products.flatten(2).sum(2) if products.dim() > 2 else products  # linear layers have one position
            information[name] = information.get(name, 0) + (sums**2).sum(0)

        output.register_hook(on_gradient)

    return on_forward
