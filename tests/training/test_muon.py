"""Muon against a singular value decomposition, and inside a training state."""

import pytest
import torch
from torch import nn

from smalti.errors import SmaltiError
from smalti.training.experiment import OptimizerConfig
from smalti.training.muon import Muon, hidden_kernels, orthogonalised
from smalti.training.state import TrainState, newest_checkpoint


@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (30, 7)])
def test_updates_keep_the_singular_vectors_and_level_the_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ orthogonalised(matrix) @ right.T
    values = inner.diagonal()
    assert values.min() > 0.6 and values.max() < 1.3
    assert (inner - values.diag()).abs().max() < 1e-3


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
    path = state.save(tmp_path, {}, {})
    go_on(state, gradients[2:])
    again = TrainState(_Network(), config)
    checkpoint = newest_checkpoint(path.parent)
    assert checkpoint is not None
    again.restore(checkpoint)
    go_on(again, gradients[2:])
    for one, other in zip(state.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_rate_without_kernels_is_refused():
    with pytest.raises(SmaltiError, match=r"muon_rate 2.0 has no effect: no kernels inside this network; leave it out"):
        TrainState(nn.Embedding(4, 3), OptimizerConfig(muon_rate=2.0))
