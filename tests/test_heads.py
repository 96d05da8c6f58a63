"""Losses and gradients of the heads against autograd of the formulas, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from spacelite import heads
from spacelite.heads import BatchSize, HeadSettings, SpaceHeads


def formula(concept_spaces, weight, bias, examples, labels, inter, intra):
    """The loss as it is written down: one head, a list of (n_i, d) examples, no shortcuts."""
    classes = len(bias)
    logits, matching, mismatching, spreads = [], [], [], []
    for x, label in zip(examples, labels, strict=True):
        s = torch.tanh(torch.einsum("cld,td->tcl", concept_spaces, x))
        logits.append(weight @ s.mean(dim=0).flatten() + bias)
        for c in range(classes):
            (matching if c == label else mismatching).append(s[:, c].flatten())
        if len(x) > 1:
            spreads.append((1 / (s.var(dim=0, unbiased=True) + 1e-9)).sum())
    ce = F.cross_entropy(torch.stack(logits), labels)
    inter_loss = (1 - torch.cat(matching)).mean() / 2 + (1 + torch.cat(mismatching)).mean() / 2
    intra_loss = torch.stack(spreads).mean() if spreads else torch.zeros((), dtype=ce.dtype)
    return ce + inter * inter_loss + intra * intra_loss, ce, torch.stack(logits)


def ragged(seed, count, width, classes, lengths=None):
    random = torch.Generator().manual_seed(seed)
    if lengths is None:
        lengths = torch.randint(1, 9, (count,), generator=random)
        lengths[0] = 1  # there is always an example of one token
    examples = [torch.randn(int(n), width, generator=random, dtype=torch.float64) for n in lengths]
    labels = torch.randint(0, classes, (count,), generator=random)
    return examples, lengths, labels


def space(settings, classes, width, dtype):
    made = heads.stack(settings, classes, width, "cpu")
    assert isinstance(made, SpaceHeads)
    return SpaceHeads(settings, {k: v.to(dtype) for k, v in made.parameters.items()})


def step_in_groups(stack, examples, lengths, labels, cut, dtype):
    """A batch taken in as two groups of examples, as training does; returns its size."""
    size = BatchSize.of(lengths)
    stack.reset()
    gradient = torch.zeros_like(stack.projection)
    for part in (slice(0, cut), slice(cut, None)):
        x = torch.cat(examples[part]).to(dtype)
        s = F.linear(x, stack.projection).tanh()
        slopes = stack.step(s, lengths[part], labels[part], size, True)
        gradient += slopes.T @ x
    stack.gradients["concept_spaces"] = gradient.view_as(stack.parameters["concept_spaces"])
    return size


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("latent", [1, 3, 16])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_gradients_equal_autograd_of_the_formulas(classes, latent, dtype):
    width = 12
    settings = [
        HeadSettings(kind="space", seed=seed, latent=latent, inter=inter, intra=intra)
        for seed, (inter, intra) in enumerate([(0.2, 0.001), (0.0, 0.0), (0.7, 0.0), (0.0, 0.05)])
    ]
    examples, lengths, labels = ragged(classes * 100 + latent, 11, width, classes)
    stack = space(settings, classes, width, dtype)
    size = step_in_groups(stack, examples, lengths, labels, 4, dtype)
    loss, ce = stack.sums.losses(size, latent, stack.inter, stack.intra)
    for k, head in enumerate(settings):
        leaves = {name: v.double().requires_grad_() for name, v in stack.one(k).items()}
        expected, expected_ce, logits = formula(
            *leaves.values(), examples, labels, head.inter, head.intra
        )
        expected.backward()
        tolerance = 1e-10 if dtype == torch.float64 else 1e-5
        assert math.isclose(loss[k], expected.item(), rel_tol=tolerance)
        assert math.isclose(ce[k], expected_ce.item(), rel_tol=tolerance)
        for name, leaf in leaves.items():
            error = (stack.gradients[name][k].double() - leaf.grad).abs().max()
            assert error <= tolerance * max(1.0, leaf.grad.abs().max()), name
        guesses = torch.bincount(labels * classes + logits.argmax(dim=1), minlength=classes**2)
        assert torch.equal(stack.sums.confusion[k].flatten(), guesses.double())


def test_a_batch_of_single_tokens_has_no_intra_loss():
    settings = [HeadSettings(kind="space", latent=3, inter=0.2, intra=0.5)]
    examples, lengths, labels = ragged(0, 6, 8, 2, lengths=torch.ones(6, dtype=torch.long))
    stack = space(settings, 2, 8, torch.float64)
    size = step_in_groups(stack, examples, lengths, labels, 2, torch.float64)
    loss, _ = stack.sums.losses(size, 3, stack.inter, stack.intra)
    leaves = [value.requires_grad_() for value in stack.one(0).values()]
    expected, _, _ = formula(*leaves, examples, labels, 0.2, 0.5)
    expected.backward()
    assert math.isclose(loss[0], expected.item(), rel_tol=1e-12)
    torch.testing.assert_close(stack.gradients["concept_spaces"][0], leaves[0].grad)


def test_repeated_tokens_have_no_variance_and_leave_other_heads_alone():
    """1 / (0 + 1e-9) is large but finite, and a weight of 0 switches it off."""
    settings = [HeadSettings(kind="space", latent=2, inter=0.0, intra=w) for w in (0.0, 1e-3)]
    x = torch.randn(1, 8, dtype=torch.float64).repeat(4, 1)
    stack = space(settings, 2, 8, torch.float64)
    size = step_in_groups(
        stack, [x, x], torch.tensor([4, 4]), torch.tensor([0, 1]), 1, torch.float64
    )
    loss, ce = stack.sums.losses(size, 2, stack.inter, stack.intra)
    assert loss[0] == ce[0]
    assert math.isclose(loss[1] - ce[1], 1e-3 * 2 * 2 * 1e9, rel_tol=1e-3)
    assert all(gradient.isfinite().all() for gradient in stack.gradients.values())


@pytest.mark.parametrize("pooling", ["first", "pooler"])
def test_linear_gradients_equal_autograd(pooling):
    settings = [HeadSettings(kind="linear", seed=seed, pooling=pooling) for seed in range(3)]
    stack = heads.stack(settings, 4, 10, "cpu")
    features, labels = torch.randn(9, 10), torch.randint(0, 4, (9,))
    stack.step(features, labels, BatchSize.of(torch.ones(9)), True)
    for k in range(3):
        weight, bias = (value.clone().requires_grad_() for value in stack.one(k).values())
        inputs = features
        if pooling == "pooler":  # the head's own stream of dropout, of rate 0.1
            random = torch.Generator().manual_seed(k + 2**32)
            inputs = features * (torch.rand(9, 10, generator=random) >= 0.1) / 0.9
        loss = F.cross_entropy(inputs @ weight.T + bias, labels)
        loss.backward()
        torch.testing.assert_close(stack.gradients["classifier.weight"][k], weight.grad)
        torch.testing.assert_close(stack.gradients["classifier.bias"][k], bias.grad)
        assert math.isclose(stack.sums.ce[k] / 9, loss.item(), rel_tol=1e-5)


def test_dropout_is_off_in_evaluation():
    stack = heads.stack([HeadSettings(kind="linear", pooling="pooler")], 2, 10, "cpu")
    features, labels = torch.randn(50, 10), torch.randint(0, 2, (50,))
    seen = []
    for _ in range(2):
        stack.reset()
        stack.step(features, labels, BatchSize(50, 50, 0), False)
        seen.append(stack.sums.ce.item())
    plain = F.cross_entropy(features @ stack.one(0)["classifier.weight"].T
                            + stack.one(0)["classifier.bias"], labels, reduction="sum")  # fmt: skip
    assert seen[0] == seen[1] and math.isclose(seen[0], plain.item(), rel_tol=1e-5)


@pytest.mark.parametrize(
    ("settings", "classes", "published"),
    [
        (HeadSettings(kind="space", latent=3), 2, 4622),
        (HeadSettings(kind="space", latent=128), 2, 197122),
        (HeadSettings(kind="space", latent=3), 3, 6942),
        (HeadSettings(kind="linear", pooling="pooler"), 2, 1538),
        (HeadSettings(kind="linear", pooling="pooler"), 3, 2307),
    ],
)
def test_parameter_counts_are_the_published_ones(settings, classes, published):
    parameters = heads.initial_parameters(settings, classes, 768)
    assert sum(value.numel() for value in parameters.values()) == published


def test_initialisation_is_that_of_a_linear_layer_and_of_the_seed_alone():
    settings = HeadSettings(kind="space", latent=16, seed=5)
    first = heads.initial_parameters(settings, 3, 100)
    again = heads.stack([HeadSettings(kind="space", latent=16, seed=4), settings], 3, 100, "cpu")
    for name, value in first.items():
        assert torch.equal(value, again.one(1)[name])
        assert not torch.equal(value, again.one(0)[name])
    for name, fan_in in (("concept_spaces", 100), ("classifier.weight", 48)):
        bound = 1 / math.sqrt(fan_in)
        assert first[name].abs().max() <= bound
        # Uniform: mean 0, variance bound^2 / 3, to within sampling error.
        assert abs(first[name].mean()) < 0.2 * bound
        assert abs(first[name].var() / (bound**2 / 3) - 1) < 0.2
