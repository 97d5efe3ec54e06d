"""Contract of every model: its stacked forward is its network's, replica by replica; and the user's own networks."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from batchlab.engine.backends.base import seeded_network
from batchlab.engine.embedding import EmbeddedMlp
from batchlab.errors import BadInput
from batchlab.models import MODELS, Model
from batchlab.models.custom import Custom
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.models.tcn import Tcn
from batchlab.networks.activations import ACTIVATIONS
from batchlab.rows.preparation import identity
from batchlab.scoring.shipping import GRAPH, export, predicted, shipped
from batchlab.serving.batchlab_serving import PackedColumn


def residual(features: int, outputs: int) -> nn.Module:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer, self.norm = nn.Linear(features, features), nn.Linear(features, outputs), nn.LayerNorm(features)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.outer(rows + torch.tanh(self.inner(self.norm(rows))))

    return Residual()


def narrow(features: int, outputs: int) -> nn.Module:
    return nn.Linear(features, outputs + 1)


def raising(features: int, outputs: int) -> nn.Module:
    raise RuntimeError("boom")


def frozen(features: int, outputs: int) -> nn.Module:
    return nn.Linear(features, outputs).requires_grad_(False)


class Mixing(nn.Linear):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows - rows.mean(0))


class Detached(nn.Linear):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows).detach()


class Numbered(nn.Linear):
    def __init__(self, features: int, outputs: int) -> None:
        super().__init__(features, outputs)
        self.register_buffer("seen", torch.zeros(2, dtype=torch.int64))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1
        return super().forward(rows)


class Shuffled(nn.Linear):
    def __init__(self, features: int, outputs: int) -> None:
        super().__init__(features, outputs)
        self.register_buffer("order", torch.randperm(features))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows[..., self.order])


def no_network(features: int, outputs: int) -> int:
    return features


HERE = __name__
VARIANTS: list[Model] = [
    Linear(),
    *(Mlp(widths=(5, 3), activation=name) for name in ACTIVATIONS),  # type: ignore[arg-type]
    *(Tcn(channels=4).for_windows(moments, 6 // moments) for moments in (2, 3, 6)),
    Custom(factory=f"{HERE}:residual"),
]


def test_every_registered_model_is_under_contract() -> None:
    assert {model.kind for model in VARIANTS} == set(MODELS)


@pytest.mark.parametrize("model", VARIANTS, ids=repr)
def test_the_stacked_forward_is_each_replicas_own(model: Model) -> None:
    networks = [seeded_network(model, (6, 2), seed).double() for seed in range(4)]
    weights = {name: torch.stack([network.get_parameter(name) for network in networks]) for name, _ in networks[0].named_parameters()}
    rows = torch.randn(4, 9, 6, dtype=torch.float64)
    for network, inputs, found in zip(networks, rows, model.stacked(networks[0], weights, rows), strict=True):
        torch.testing.assert_close(found, network(inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", VARIANTS, ids=repr)
@pytest.mark.parametrize("classification", [False, True])
def test_an_exported_model_predicts_any_number_of_rows_as_the_original(model: Model, classification: bool, tmp_path: Path) -> None:
    scaling = identity(np.arange(6.0), np.arange(1.0, 7.0), target_mean=100.0, target_scale=7.0)
    columns = [PackedColumn(name, "number") for name in "abcdef"]
    network = seeded_network(model, (6, 3 if classification else 1), 0).double()
    weights = {name: parameter.detach().numpy() for name, parameter in network.named_parameters()}
    original = shipped(model, (6, 3 if classification else 1), weights, scaling, classification)
    loaded = torch.export.load(export(original, columns, tmp_path) and tmp_path / GRAPH).module()
    features = np.random.default_rng(0).normal(size=(9000, 6)).astype(np.float32)
    for count in (1, 2, 9000):
        rows = np.arange(count)
        np.testing.assert_allclose(
            predicted(loaded, features.__getitem__, rows), predicted(original, features.__getitem__, rows), rtol=0, atol=1e-12
        )
    scaled = torch.tensor((features - scaling.mean) / scaling.scale)
    expected = network(scaled).softmax(1) if classification else network(scaled) * 7 + 100
    np.testing.assert_allclose(predicted(original, features.__getitem__, np.arange(9000)), expected.detach().numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("residual", "write it as 'package.module:function'"),
        ("no.such.module:residual", "cannot be imported"),
        (f"{HERE}:residul", "did you mean 'residual'?"),
        (f"{HERE}:Numbered", "buffer 'seen' holds whole numbers and training changes it"),
        (f"{HERE}:Shuffled", "buffer 'order' holds whole numbers that differ from seed to seed"),
        (f"{HERE}:narrow", "maps (3, 6) to (3, 3); it must map it to (3, 2)"),
        (f"{HERE}:frozen", "without parameters to train"),
        (f"{HERE}:Mixing", "rows must not mix"),
        (f"{HERE}:Detached", "cannot train on 3 rows of 6 features"),
        (f"{HERE}:raising", f"'{HERE}:raising' raised RuntimeError: boom"),
        (f"{HERE}:no_network", "returned int; it must return a torch.nn.Module"),
    ],
)
def test_a_factory_that_cannot_be_used_is_refused_by_name(factory: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        Custom(factory=factory).network(6, 2)
    assert expected in str(caught.value)


def test_the_users_own_factory_is_found_in_the_current_folder(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (scratch / "my_networks.py").write_text("from torch import nn\ndef wide(features, outputs):\n    return nn.Linear(features, outputs)\n")
    assert isinstance(Custom(factory="my_networks:wide").network(4, 1), nn.Linear)
    sys.modules.pop("my_networks")


def test_embedded_categories_are_looked_up_replica_by_replica_as_torch_does() -> None:
    model = EmbeddedMlp(widths=(5, 3), activation="tanh", embedded=(4, 7))
    networks = [seeded_network(model, (8, 2), seed).double() for seed in range(3)]
    weights = {name: torch.stack([network.get_parameter(name) for network in networks]) for name, _ in networks[0].named_parameters()}
    rows = torch.randn(3, 9, 8, dtype=torch.float64)
    rows[..., 6], rows[..., 7] = torch.randint(0, 4, (3, 9)), torch.randint(0, 7, (3, 9))
    for network, inputs, found in zip(networks, rows, model.stacked(networks[0], weights, rows), strict=True):
        torch.testing.assert_close(found, network(inputs), rtol=0, atol=1e-12)
