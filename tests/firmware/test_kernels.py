"""Every kernel, pass and variant on this machine against torch.autograd in float64."""

from __future__ import annotations

import dataclasses

import numpy as np
import op_cases
import op_references
import pytest
import torch
import torch.nn.functional as F
from op_cases import CASES, KINDS_AND_PASSES, VARIANTS, Case, random_case, random_op, seeded
from op_references import check_all

from profiler import kernels, ops
from profiler.ops import Access, Op, Pass

#: Words before, between and behind buffers. A NaN, so that reading one shows in the result as well.
GUARD_WORDS = 32
GUARD = np.uint32(0x7FC0DEAD)


class HostExecutor:
    """Runs kernels on this machine, in one arena with guards around every buffer."""

    def execute(self, case: Case, share: dict[int, int] | None = None) -> list[np.ndarray]:
        """All buffers after the op. ``share``: written buffer that lies over a read one, by index.

        Raises:
            AssertionError: something outside the buffers that may be written has changed.
        """
        share = share or {}
        own = [i for i in range(len(case.buffers)) if i not in share]
        arena = np.full(sum(case.buffers[i].size + GUARD_WORDS for i in own) + GUARD_WORDS, GUARD, np.uint32)
        views: dict[int, np.ndarray] = {}
        at = GUARD_WORDS
        for i in own:
            values = case.buffers[i]
            views[i] = arena[at : at + values.size].view(values.dtype).reshape(values.shape)
            views[i][...] = values
            at += values.size + GUARD_WORDS
        views |= {i: views[under].reshape(case.buffers[i].shape) for i, under in share.items()}
        before = arena.copy()
        buffers = [views[i] for i in range(len(case.buffers))]
        kernels.run(case.op, buffers, case.constants, case.channels)
        for i, spec in enumerate(case.op.buffers()):
            if spec.access is not Access.READ:
                offset = (views[i].ctypes.data - arena.ctypes.data) // 4
                before[offset : offset + views[i].size] = arena[offset : offset + views[i].size]
        assert np.array_equal(arena, before), f"{case.op.key} wrote outside its buffers"
        return [buffer.copy() for buffer in buffers]


@pytest.mark.parametrize(("kind", "pass_"), KINDS_AND_PASSES)
def test_both_variants_of_a_kernel_agree_with_torch_on_random_geometries(kind: str, pass_: Pass) -> None:
    rng, executor = seeded(kind, pass_), HostExecutor()
    for _ in range(CASES):
        case = random_case(random_op(kind, pass_, rng), rng)
        reference = op_references.expected(case)
        for variant in VARIANTS:
            case = dataclasses.replace(case, op=dataclasses.replace(case.op, variant=variant))
            check_all(case, executor.execute(case), reference)


LONG = [
    ops.Conv2d(96, 96, 3, 5, 3, 3, 1, 1, 1, 1),
    ops.Conv2d(80, 80, 5, 6, 1, 1),  # longer than a band, so rows are not joined
    ops.Conv2d(50, 50, 9, 5, 1, 1),  # joined into one row
    ops.Conv2d(3, 3, 1500, 8, 3, 3, 1, 1, 1, 1),
    ops.Conv2d(2, 3, 9, 1500, 1, 1),
    ops.Depthwise(130, 70, 5, 7, 7, 1, 1, 3, 3),
    ops.Linear(20000, 6),
    ops.Linear(7, 20000),
    ops.GlobalAvgPool(150, 130, 6),
    ops.AvgPool2d(90, 90, 2, 80, 80, 3, 3),
    ops.CosineHead(5000, 6),
    ops.CosineHead(6, 5000),
    ops.L2Normalize(40000),
    ops.SoftmaxCrossEntropy(5000),
    ops.GroupNorm(150, 130, 6, 1),
    ops.GroupNorm(60, 70, 16, 2),
]


@pytest.mark.parametrize("positive", [False, True], ids=["signed", "positive"])
@pytest.mark.parametrize("geometry", LONG, ids=lambda g: g.kind + "-" + "x".join(map(str, g.values())))
def test_long_sums_keep_their_accuracy(geometry: ops.Geometry, positive: bool) -> None:
    rng, executor = seeded(geometry, positive), HostExecutor()
    for pass_ in geometry.passes:
        trained = {"trained_channels": 5, "trains_bias": True} if pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE) else {}
        case = random_case(Op(geometry, pass_, **trained), rng)
        if positive:  # the partial sums grow all the way
            for values in case.buffers:
                np.abs(values, out=values)
        check_all(case, executor.execute(case), op_references.expected(case))


@pytest.mark.parametrize(
    ("kind", "pass_"), [(k, p) for k, p in KINDS_AND_PASSES if kernels.in_place(random_op(k, p, seeded(0)))]
)
def test_in_place_gives_the_same_bits(kind: str, pass_: Pass) -> None:
    rng, executor = seeded(kind, pass_, "in place"), HostExecutor()
    for _ in range(20):
        case = random_case(random_op(kind, pass_, rng), rng)
        share = kernels.in_place(case.op)
        apart, over = executor.execute(case), executor.execute(case, share)
        for i, spec in enumerate(case.op.buffers()):
            if spec.access is not Access.READ:
                assert np.array_equal(apart[i], over[i]), (case.op.key, spec.role)


def test_ops_without_an_in_place_rule_are_those_that_read_after_writing() -> None:
    safe = {(k, str(p)) for k, p in KINDS_AND_PASSES if kernels.in_place(random_op(k, p, seeded(0)))}
    assert safe == {
        ("add", "forward"),
        ("add", "grad_input"),
        ("relu", "forward"),
        ("relu", "grad_input"),
        ("softmax_cross_entropy", "forward"),
        ("softmax_cross_entropy", "grad_input"),
        ("l2_normalize", "forward"),
        ("l2_normalize", "grad_input"),
        ("group_norm", "forward"),
        ("group_norm", "grad_input"),
    }


def test_group_norm_backward_from_what_forward_saved_is_autograd_s() -> None:
    rng, executor = seeded("group norm"), HostExecutor()
    for _ in range(60):
        g = op_cases.random_geometry("group_norm", rng)
        forward = random_case(Op(g, Pass.FORWARD), rng)
        roles = [spec.role for spec in forward.op.buffers()]
        saved = dict(zip(roles, executor.execute(forward), strict=True))
        x, weight, bias = (
            torch.from_numpy(saved.get(role, np.zeros(g.in_channels, np.float32))).double().requires_grad_()
            for role in ("input", "weight", "bias")
        )
        y = F.group_norm(x.permute(2, 0, 1).unsqueeze(0), g.groups, weight, bias)[0].permute(1, 2, 0)
        assert op_references.relative_error(saved["output"], y.detach().numpy()) < 1e-5
        training = {"trained_channels": g.in_channels, "trains_bias": bool(g.has_bias)}
        for op in (Op(g, Pass.GRAD_INPUT), Op(g, Pass.GRAD_WEIGHT, **training)):
            case = random_case(op, rng)
            roles = [spec.role for spec in op.buffers()]
            buffers = dict(zip(roles, case.buffers, strict=True)) | {
                role: saved[role] for role in ("input", "weight", "statistics") if role in roles
            }
            after = executor.execute(Case(op, tuple(buffers.values()), case.constants, None))
            wanted = torch.autograd.grad(
                y, (x, weight, bias), torch.from_numpy(buffers["grad_output"]).double(), retain_graph=True
            )
            for role, values in zip(("grad_input", "weight_gradient", "bias_gradient"), wanted, strict=True):
                if role in roles:
                    before = 0 if role == "grad_input" else buffers[role]  # what is trained is added to
                    got = after[roles.index(role)] - before
                    assert op_references.relative_error(got, values.numpy()) < 2e-5, (op.key, role)


def test_group_norm_holds_its_accuracy_where_the_mean_is_many_standard_deviations() -> None:
    rng, executor = seeded("offset"), HostExecutor()
    for offset, height in ((200, 5), (-1000, 90)):
        case = random_case(Op(ops.GroupNorm(height, 80, 16, 2), Pass.FORWARD), rng)
        case.buffers[0][...] = rng.standard_normal(case.buffers[0].shape) + offset
        check_all(case, executor.execute(case), op_references.expected(case))


@pytest.mark.parametrize("extents", [(1, 1, 3), (1, 2, 3), (2, 1, 6), (1, 1, 9)])
def test_groups_of_one_to_three_values_leave_the_rounding_of_their_terms(extents: tuple[int, int, int]) -> None:
    rng, executor = seeded("tiny", extents), HostExecutor()
    case = random_case(Op(ops.GroupNorm(*extents, 3), Pass.GRAD_INPUT), rng)
    _, gradient, weight, statistics, _ = case.buffers
    term = np.abs(np.repeat(statistics[:, 1], extents[2] // 3) * weight * gradient).max()
    wanted = op_references.expected(case)["grad_input"]
    np.testing.assert_allclose(executor.execute(case)[4], wanted, rtol=0, atol=1e-5 * term)


def test_a_constant_group_is_normalised_to_its_shift() -> None:
    g = ops.GroupNorm(3, 5, 6, 2)
    output, statistics = np.empty(g.output_shape, np.float32), np.empty((2, 2), np.float32)
    shift = np.arange(6, dtype=np.float32)
    constant = np.full(g.input_shape, 1e4 / 3, np.float32)
    kernels.run(Op(g, Pass.FORWARD), [constant, np.ones(6, np.float32), shift, output, statistics])
    np.testing.assert_allclose(output, np.broadcast_to(shift, g.output_shape), atol=0.1)
    np.testing.assert_allclose(statistics, [[1e4 / 3, 1e5**0.5]] * 2, rtol=1e-6)


def test_gradients_accumulate_over_images() -> None:
    rng, executor = seeded("accumulate"), HostExecutor()
    op = Op(ops.Conv2d(5, 6, 6, 7, 3, 3, 2, 1, 1, 1), Pass.GRAD_WEIGHT, trained_channels=5, trains_bias=True)
    first, second = random_case(op, rng), random_case(op, rng)
    once = executor.execute(first)
    chained = Case(op, (*second.buffers[:2], once[2], once[3]), second.constants, first.channels)
    twice = executor.execute(chained)
    alone = executor.execute(
        Case(op, (*second.buffers[:2], 0 * once[2], 0 * once[3]), second.constants, first.channels)
    )
    for role in (2, 3):
        np.testing.assert_allclose(twice[role], once[role] + alone[role], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_update_leaves_untrained_weights_bit_for_bit(optimizer: str) -> None:
    rng, executor = seeded("untouched", optimizer), HostExecutor()
    for axis, channels in (("out", 7), ("in", 6)):
        op = Op(ops.Conv2d(4, 4, 6, 7, 3, 3), Pass.UPDATE, trained_channels=3, trained_axis=axis, trains_bias=True,
                optimizer=optimizer)  # fmt: skip
        case = random_case(op, rng)
        weights = executor.execute(case)[0]
        frozen = np.setdiff1d(np.arange(channels), case.trained)
        select = (frozen,) if axis == "out" else (..., frozen)
        assert np.array_equal(weights[select], case.buffers[0][select])
        trained = (case.trained,) if axis == "out" else (..., case.trained)
        assert (weights[trained] != case.buffers[0][trained]).all()


def test_the_first_k_and_a_list_of_them_are_the_same() -> None:
    rng, executor = seeded("first k"), HostExecutor()
    for kind in ("conv2d", "depthwise", "linear"):
        for pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
            op = random_op(kind, pass_, rng)
            first = Case(op, random_case(op, rng).buffers, kernels.StepConstants(), None)
            listed = Case(op, first.buffers, first.constants, np.arange(op.trained_channels, dtype=np.uint16))
            for a, b in zip(executor.execute(first), executor.execute(listed), strict=True):
                assert np.array_equal(a, b)


def test_max_pooling_hands_a_tie_to_the_first_maximum() -> None:
    op = Op(ops.MaxPool2d(2, 2, 1, 2, 2, 2, 2), Pass.GRAD_INPUT)
    grad = np.full((2, 2, 1), np.nan, np.float32)
    kernels.run(op, [np.ones((2, 2, 1), np.float32), np.full((1, 1, 1), 3, np.float32), grad])
    assert grad.ravel().tolist() == [3, 0, 0, 0]


def test_a_vector_of_zeros_stays_finite_when_normalised() -> None:
    zeros, ones, out = np.zeros(5, np.float32), np.ones(5, np.float32), np.empty(5, np.float32)
    kernels.run(Op(ops.L2Normalize(5), Pass.FORWARD), [zeros, out])
    assert out.tolist() == [0] * 5
    kernels.run(Op(ops.L2Normalize(5), Pass.GRAD_INPUT), [zeros, ones, out])
    assert np.allclose(out, 1e12)


def test_the_loss_is_finite_for_logits_far_apart() -> None:
    logits = np.array([-1000, 300, 200], np.float32)
    probabilities, loss = np.empty(3, np.float32), np.zeros(1, np.float32)
    op = Op(ops.SoftmaxCrossEntropy(3), Pass.FORWARD)
    kernels.run(op, [logits, np.array([0], np.int32), probabilities, loss])
    assert probabilities.tolist() == [0, 1, 0]
    assert loss[0] == 1300


def test_a_label_outside_the_classes_touches_nothing_else() -> None:
    rng, executor = seeded("label"), HostExecutor()
    for label in (-1, 7, 2**31 - 1, -(2**31)):
        case = random_case(Op(ops.SoftmaxCrossEntropy(7), Pass.FORWARD), rng)
        case.buffers[1][0] = label
        after = executor.execute(case)
        assert np.isfinite(after[3]).all()
        back = random_case(Op(ops.SoftmaxCrossEntropy(7), Pass.GRAD_INPUT), rng)
        back.buffers[1][0] = label
        assert np.array_equal(executor.execute(back)[2], back.buffers[0])


def test_the_empty_op_does_nothing() -> None:
    kernels.run(Op(ops.Empty(), Pass.FORWARD), [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b[:-1], "takes 4 buffers, got 3"),
        (lambda b: [b[0].astype(np.float64), *b[1:]], "input must be float32 of shape"),
        (lambda b: [b[0][:, :-1], *b[1:]], "input must be float32 of shape"),
        (lambda b: [b[0].transpose(1, 0, 2), *b[1:]], "input must be C-contiguous"),
    ],
)
def test_buffers_that_do_not_fit_are_refused_before_anything_runs(change, says: str) -> None:
    op = Op(ops.Conv2d(4, 4, 2, 3, 3, 3), Pass.FORWARD)
    buffers = [np.zeros(spec.shape, np.float32) for spec in op.buffers()]
    with pytest.raises(ValueError, match=says):
        kernels.run(op, change(buffers))


def test_channels_out_of_order_or_range_are_refused() -> None:
    op = Op(ops.Conv2d(4, 4, 2, 3, 3, 3), Pass.GRAD_WEIGHT, trained_channels=2)
    buffers = [np.zeros(spec.shape, np.float32) for spec in op.buffers()]
    for channels in ([1, 0], [1, 1], [0, 3]):
        with pytest.raises(ValueError, match="takes no such op"):
            kernels.run(op, buffers, channels=np.array(channels, np.uint16))
    with pytest.raises(ValueError, match="uint16 array of shape"):
        kernels.run(op, buffers, channels=np.array([0, 1, 2], np.uint16))
