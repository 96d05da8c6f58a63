"""Losses and gradients of the heads against autograd of the formulas, in float64."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spacelite import heads
from spacelite.heads.base import Objective
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL
from spacelite.training import engine

WEIGHTS = [(0.2, 0.001), (0.0, 0.0), (0.7, 0.0), (0.0, 0.05)]  # inter, intra


def formula(leaves, examples, labels, inter, intra, class_weights=None):
    """The loss as it is written down: one head, a list of (n_i, d) examples, no shortcuts.
    Labels (B,), or (B, C) of 0/1."""
    spaces, weight, bias = leaves
    several = labels.dim() == 2
    logits, matching, mismatching, inverses = [], [], [], []
    for x, label in zip(examples, labels, strict=True):
        s = torch.tanh(torch.einsum("cld,td->tcl", spaces, x))
        logits.append(weight @ s.mean(dim=0).flatten() + bias)
        for c in range(len(bias)):
            match = label[c] == 1 if several else c == label
            (matching if match else mismatching).append(s[:, c].flatten())
        if len(x) > 1:
            inverses.append((1 / (s.var(dim=0, unbiased=True) + 1e-9)).sum())
    logits = torch.stack(logits)
    loss, ce = cross_entropies(logits, labels, class_weights)
    inter_loss = (1 - torch.cat(matching)).mean() / 2 if matching else 0
    inter_loss = inter_loss + ((1 + torch.cat(mismatching)).mean() / 2 if mismatching else 0)
    intra_loss = torch.stack(inverses).mean() if inverses else 0
    return loss + inter * inter_loss + intra * intra_loss, ce, logits


def cross_entropies(logits, labels, class_weights):
    """(as it is in the loss, as it is reported), by torch's own losses."""
    if labels.dim() == 1:
        weight = None if class_weights is None else class_weights.double()
        return F.cross_entropy(logits, labels, weight=weight), F.cross_entropy(logits, labels)
    plain = F.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="none")
    if class_weights is None:
        return plain.mean(), plain.mean()
    weights = class_weights.to(logits)[torch.arange(labels.shape[1]), labels]
    return (plain * weights).sum() / weights.sum(), plain.mean()


def ragged(seed, count, width, classes, *, several=False, lengths=None):
    random = torch.Generator().manual_seed(seed)
    if lengths is None:
        lengths = torch.randint(1, 9, (count,), generator=random)
        lengths[0] = 1  # there is always an example of one token
    examples = [torch.randn(int(n), width, generator=random, dtype=torch.float64) for n in lengths]
    shape = (count, classes) if several else (count,)
    labels = torch.randint(0, 2 if several else classes, shape, generator=random)
    return examples, lengths, labels


class Ragged:
    """Examples in memory with the interface of a TokenSplit, in any precision."""

    device, name = "cpu", "train"

    def __init__(self, examples, cut):
        self.examples, self.cut = examples, cut

    def load(self, rows):
        pass

    def gather(self, rows, scratch):
        return torch.cat([self.examples[row] for row in rows])

    def groups(self, rows, workers, columns):
        return [(0, self.cut), (self.cut, len(rows))]

    def features(self, pooling):
        return torch.stack([example[0] for example in self.examples])


def task(several):
    return MULTI_LABEL if several else SINGLE_LABEL


def initial_parameters(config, classes, width):
    return heads.kind(config.kind).initial(config, classes, width)


def stack(configs, width, dtype, objective):
    kind = heads.kind(configs[0].kind)
    (numbers,) = heads.alike(configs)
    configs = [configs[number] for number in numbers]
    parameters = [initial_parameters(config, objective.classes, width) for config in configs]
    head = kind.stack(configs, parameters, objective)
    converted = {name: value.to(dtype) for name, value in head.parameters.items()}
    return kind(head.configs, converted, objective)


def run_batch(head, examples, lengths, labels, cut, dtype, train=(1, 0)):
    """Run a batch as two groups of examples in two threads."""
    batch = head.objective.batch(lengths, labels, dtype)
    split = Ragged([example.to(dtype) for example in examples], cut)
    with ThreadPoolExecutor(2) as pool:
        workers = engine.Workers(pool, 2)
        engine.run_batch(split, [head], np.arange(len(examples)), batch, workers, train)


def check_against_autograd(head, examples, labels, tolerance, class_weights=None):
    """Compare loss, CE and gradients of the batch that a head has run; its logits, head by head."""
    loss, ce = head.losses()
    for k, config in enumerate(head.configs):
        leaves = {name: v.double().requires_grad_() for name, v in head.head_parameters(k).items()}
        expected, expected_ce, logits = formula(
            leaves.values(), examples, labels, config.inter, config.intra, class_weights
        )
        expected.backward()
        assert math.isclose(loss[k], expected.item(), rel_tol=tolerance)
        assert math.isclose(ce[k], expected_ce.item(), rel_tol=tolerance)
        for name, leaf in leaves.items():
            error = (head.gradients[name][k].double() - leaf.grad).abs().max()
            assert error <= tolerance * max(1.0, leaf.grad.abs().max()), name
        yield k, logits


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("latent", [1, 3, 16])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_gradients_equal_autograd_of_the_formulas(classes, latent, dtype):
    configs = [
        heads.config("space", seed=seed, latent=latent, inter=inter, intra=intra)
        for seed, (inter, intra) in enumerate(WEIGHTS)
    ]
    examples, lengths, labels = ragged(classes * 100 + latent, 11, 12, classes)
    head = stack(configs, 12, dtype, Objective(SINGLE_LABEL, classes))
    run_batch(head, examples, lengths, labels, 4, dtype)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for k, logits in check_against_autograd(head, examples, labels, tolerance):
        predicted = torch.bincount(labels * classes + logits.argmax(dim=1), minlength=classes**2)
        assert torch.equal(head.totals.confusion[k].flatten(), predicted.double())
        assert head.totals.correct[k] == (logits.argmax(dim=1) == labels).sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_gradients_with_class_weights_and_several_labels_equal_autograd(several, weighted):
    classes = 4
    configs = [
        heads.config("space", seed=seed, latent=3, inter=inter, intra=intra)
        for seed, (inter, intra) in enumerate(WEIGHTS)
    ]
    examples, lengths, labels = ragged(several * 10 + 3, 13, 12, classes, several=several)
    if several:
        labels[0] = 0  # an example without a label, and one with all
        labels[1] = 1
    objective = Objective(task(several), classes)
    if weighted:
        objective = Objective.balanced(task(several), labels, classes)
    head = stack(configs, 12, torch.float64, objective)
    run_batch(head, examples, lengths, labels, 5, torch.float64)
    weights = objective.class_weights
    for k, logits in check_against_autograd(head, examples, labels, 1e-10, weights):
        if several:
            predicted = (logits > 0).long()
            assert head.totals.correct[k] == (predicted == labels).all(dim=1).sum()
            for c in range(classes):
                cells = torch.bincount(labels[:, c] * 2 + predicted[:, c], minlength=4)
                assert torch.equal(head.totals.confusion[k, c].flatten(), cells.double())


@pytest.mark.parametrize("value", [0, 1])
def test_a_batch_without_matching_or_without_mismatching_classes(value):
    configs = [heads.config("space", latent=2, inter=0.5, intra=0.0)]
    examples, lengths, labels = ragged(1, 6, 8, 3, several=True)
    labels[:] = value
    head = stack(configs, 8, torch.float64, Objective(MULTI_LABEL, 3))
    run_batch(head, examples, lengths, labels, 2, torch.float64)
    assert list(check_against_autograd(head, examples, labels, 1e-10))


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    weights = Objective.balanced(SINGLE_LABEL, labels, 3).class_weights
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    several = F.one_hot(labels, 3)
    for c, pair in enumerate(Objective.balanced(MULTI_LABEL, several, 3).class_weights):
        expected = compute_class_weight("balanced", classes=np.arange(2), y=several[:, c].numpy())
        np.testing.assert_allclose(pair, expected, rtol=1e-6)


def test_a_batch_of_single_tokens_has_no_intra_loss():
    configs = [heads.config("space", latent=3, inter=0.2, intra=0.5)]
    examples, lengths, labels = ragged(0, 6, 8, 2, lengths=torch.ones(6, dtype=torch.long))
    head = stack(configs, 8, torch.float64, Objective(SINGLE_LABEL, 2))
    run_batch(head, examples, lengths, labels, 2, torch.float64)
    assert head.penalties.intra[0] == 0
    assert list(check_against_autograd(head, examples, labels, 1e-10))


def test_repeated_tokens_have_no_variance_and_leave_other_heads_alone():
    """1 / (0 + 1e-9) is large but finite, and a weight of 0 switches it off."""
    configs = [heads.config("space", latent=2, inter=0.0, intra=w) for w in (1e-3, 0.0)]
    x = torch.randn(1, 8, dtype=torch.float64).repeat(4, 1)
    head = stack(configs, 8, torch.float64, Objective(SINGLE_LABEL, 2))
    labels = torch.tensor([0, 1])
    run_batch(head, [x, x], torch.tensor([4, 4]), labels, 1, torch.float64)
    loss, ce = head.losses()
    assert loss[1] == ce[1]
    assert math.isclose(loss[0] - ce[0], 1e-3 * 2 * 2 * 1e9, rel_tol=1e-3)
    assert all(gradient.isfinite().all() for gradient in head.gradients.values())


def plain_mlp(leaves, features, mask):
    first, first_bias, weight, bias = leaves
    return (F.relu(features @ first.T + first_bias) * mask) @ weight.T + bias


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(("kind", "pooling", "rate"), [
    ("linear", "first", 0.0), ("linear", "pooler", 0.1), ("mlp", "first", 0.2),
])  # fmt: skip
def test_pooled_gradients_equal_autograd(kind, pooling, rate, several):
    configs = [heads.config(kind, seed=seed, pooling=pooling) for seed in range(3)]
    examples, lengths, labels = ragged(7, 40, 10, 4, several=several)
    head = stack(configs, 10, torch.float64, Objective(task(several), 4))
    run_batch(head, examples, lengths, labels, 5, torch.float64, (2, 7))
    features = torch.stack([example[0] for example in examples])
    loss, ce = head.losses()
    for k in range(3):
        leaves = [value.double().requires_grad_() for value in head.head_parameters(k).values()]
        # The mask of seed k in epoch 2, batch 7.
        random = np.random.default_rng([k, 2, 7]).random((40, 10), np.float32)
        mask = torch.from_numpy(random >= rate) / (1 - rate)
        if rate:
            assert abs((mask == 0).double().mean() - rate) < 0.1
        logits = (
            plain_mlp(leaves, features, mask) if kind == "mlp"
            else (features * mask) @ leaves[0].T + leaves[1]
        )  # fmt: skip
        expected, expected_ce = cross_entropies(logits, labels, None)
        expected.backward()
        assert math.isclose(loss[k], expected.item(), rel_tol=1e-6)
        assert math.isclose(ce[k], expected_ce.item(), rel_tol=1e-6)
        for name, leaf in zip(head.parameters, leaves, strict=True):
            torch.testing.assert_close(head.gradients[name][k], leaf.grad, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_dropout_is_off_in_evaluation(kind):
    config = heads.config(kind, pooling="pooler")
    head = stack([config], 10, torch.float64, Objective(SINGLE_LABEL, 2))
    examples, lengths, labels = ragged(3, 50, 10, 2)
    features = torch.stack([example[0] for example in examples])
    run_batch(head, examples, lengths, labels, 5, torch.float64, train=None)
    leaves = list(head.head_parameters(0).values())
    logits = plain_mlp(leaves, features, 1) if kind == "mlp" else features @ leaves[0].T + leaves[1]
    expected = F.cross_entropy(logits, labels)
    assert math.isclose(head.losses()[1][0], expected.item(), rel_tol=1e-10)
    assert not head.gradients


@pytest.mark.parametrize(
    ("config", "classes", "published"),
    [
        (heads.config("space", latent=3), 2, 4622),
        (heads.config("space", latent=128), 2, 197122),
        (heads.config("space", latent=3), 3, 6942),
        (heads.config("mlp", pooling="first"), 2, 592130),
        (heads.config("linear", pooling="pooler"), 2, 1538),
        (heads.config("linear", pooling="pooler"), 3, 2307),
    ],
)
def test_parameter_counts_are_the_published_ones(config, classes, published):
    parameters = initial_parameters(config, classes, 768)
    assert sum(value.numel() for value in parameters.values()) == published


def test_initialisation_is_that_of_a_linear_layer_and_of_the_seed_alone():
    config = heads.config("space", latent=16, seed=5)
    first = initial_parameters(config, 3, 100)
    other = heads.config("space", latent=16, seed=4)
    again = stack([other, config], 100, torch.float32, Objective(SINGLE_LABEL, 3))
    for name, value in first.items():
        assert torch.equal(value, again.head_parameters(1)[name])
        assert not torch.equal(value, again.head_parameters(0)[name])
    for name, fan_in in (("concept_spaces", 100), ("classifier.weight", 48)):
        bound = 1 / math.sqrt(fan_in)
        assert first[name].abs().max() <= bound
        # Uniform: mean 0, variance bound^2 / 3, to within sampling error.
        assert abs(first[name].mean()) < 0.2 * bound
        assert abs(first[name].var() / (bound**2 / 3) - 1) < 0.2
