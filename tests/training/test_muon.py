"""Muon against a singular value decomposition, and inside a training state."""

import pytest
import torch
from torch import nn

from smalti.errors import SmaltiError
from smalti.training.experiment import OptimizerConfig
from smalti.training.muon import Muon, hidden_kernels, orthogonalised
from smalti.training.state import TrainState, newest_checkpoint


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-3), (torch.bfloat16, 0.06)])
@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (30, 7)])
def test_updates_keep_the_singular_vectors_and_level_the_values(shape, dtype, off):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    updates = orthogonalised(matrices, dtype)
    assert updates.dtype == torch.float32
    for matrix, update in zip(matrices, updates, strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        inner = left.T @ update @ right.T
        values = inner.diagonal()
        assert values.min() > 0.55 and values.max() < 1.35
        assert (inner - values.diag()).abs().max() < off


def test_kernels_of_one_shape_are_updated_as_each_alone_and_as_torch_does():
    """In float32 up to rounding; torch.optim.Muon, of matrices in bfloat16, goes the same way within its own."""
    torch.manual_seed(0)
    start, gradients = torch.randn(3, 6, 10), torch.randn(4, 3, 6, 10)
    ends = []
    for make, together in (
        (lambda given: Muon(given, lr=0.1), True),
        (lambda given: Muon(given, lr=0.1), False),
        (lambda given: Muon(given, lr=0.1, dtype=torch.bfloat16), True),
        (lambda given: torch.optim.Muon(given, lr=0.1, weight_decay=0.0), True),
    ):
        weights = [nn.Parameter(each.clone()) for each in start]
        optimizers = [make(weights)] if together else [make([weight]) for weight in weights]
        for step in gradients:
            for weight, gradient in zip(weights, step, strict=True):
                weight.grad = gradient.clone()
            for optimizer in optimizers:
                optimizer.step()
        ends.append(torch.stack(weights).detach() - start)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-6)
    for other in ends[2:]:
        assert (ends[0] - other).norm() < 0.05 * ends[0].norm()


def test_what_is_masked_stays_as_it_is():
    layer = nn.Conv2d(3, 4, (2, 3))
    before, mask = layer.weight.detach().clone(), torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    (layer.weight * mask).square().sum().backward()
    Muon([layer.weight]).step()
    changed = (layer.weight != before).flatten(0, 1).any(0)
    assert torch.equal(changed, mask.bool())


class _Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv = nn.Embedding(4, 3), nn.Conv2d(3, 6, 3)
        self.hidden, self.head = nn.Linear(6, 5), nn.Linear(5, 2)


def test_the_head_and_embeddings_are_left_to_adamw_and_a_restored_state_goes_on_alike(tmp_path):
    torch.manual_seed(0)
    model = _Network()
    assert [id(kernel) for kernel in hidden_kernels(model)] == [id(model.conv.weight), id(model.hidden.weight)]
    config = OptimizerConfig(learning_rate=1e-2, muon_rate=2.0, ema_decay=0.0)
    gradients = [[torch.randn_like(parameter) for parameter in model.parameters()] for _ in range(3)]

    def go_on(state: TrainState, parts: list[list[torch.Tensor]]) -> None:
        for part in parts:
            for parameter, gradient in zip(state.model.parameters(), part, strict=True):
                parameter.grad = gradient.clone()
            state.optimizer_step(1e-2)
            state.finish_step()

    state = TrainState(model, config)
    go_on(state, gradients[:2])
    state.save(tmp_path, {}, {})
    go_on(state, gradients[2:])
    again = TrainState(_Network(), config)
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    again.restore(checkpoint)
    go_on(again, gradients[2:])
    for one, other in zip(state.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_rate_without_kernels_is_refused():
    with pytest.raises(SmaltiError, match=r"muon_rate 2.0 has no effect: no kernels inside this network; leave it out"):
        TrainState(nn.Embedding(4, 3), OptimizerConfig(muon_rate=2.0))
