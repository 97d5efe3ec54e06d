"""The recommendation as code: what is printed trains, in every library that is here, and comes to the loss that the verdict promises."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batchlab.engine.losses import Loss
from batchlab.errors import BadInput, UnknownName
from batchlab.experiment import Experiment
from batchlab.report.snippets_section import snippets_section
from batchlab.report.wording import verdict_text
from batchlab.results import Verdict
from batchlab.search.findings import Findings
from batchlab.search.records import verdict_of
from batchlab.search.search import Search
from batchlab.snippets.snippets import SNIPPETS
from batchlab.strategies import STRATEGIES
from batchlab.threads import one_torch_thread

FEW = (
    "train.epochs=10",
    "search.rates=3",
    "search.tuning_seeds=2",
    "search.seeds=6",
    "search.timings=4",
    "search.defaults=false",
    "search.max_minutes=inf",
)
LIBRARIES = sorted(SNIPPETS)
Made = Callable[..., Experiment]


@dataclass(frozen=True)
class Compared:
    """A search that has ended, and its verdict."""

    search: Search
    verdict: Verdict


@pytest.fixture(scope="module")
def compared(tables: Path) -> Callable[[str], Compared]:
    """Compare on a bundled table, once each: regression with a network, two and three classes without."""
    from batchlab.config import load_profile
    from batchlab.rows.split import split
    from batchlab.table import pack

    known: dict[str, Compared] = {}
    models = {"diabetes": "mlp", "breast_cancer": "linear", "wine": "mlp"}

    def compare(data: str) -> Compared:
        if data not in known:
            overrides = (*FEW, f"model.kind={models[data]}", "strategies.mini_batch.batch_rows=32", "search.optimizers=['adam']")
            settings = load_profile("quick", data=data, strategies=["mini_batch"], overrides=overrides)
            table = pack(settings.source, settings.named_columns(), tables, settings.seed)
            search = Search(Experiment(settings, table, split(table, settings.split, settings.seed)))
            for part in search.parts():
                if not part.label.startswith(("first look", "race", "confirm")):
                    break  # what is measured after these takes longer and changes no promise
                part.run()
            known[data] = Compared(search, verdict_of(search.findings, verdict_text(search.findings)))
        return known[data]

    return compare


@pytest.fixture(autouse=True)
def alone_on_its_core() -> Iterator[None]:
    """Let torch compute on one thread: several of so little work would wait for each other wherever other processes run."""
    with one_torch_thread():
        yield


@pytest.fixture
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A library whose snippet can run here; Keras runs on torch."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    name = str(request.param)
    pytest.importorskip(name, reason=f"{name} is not installed")
    return name


def trained(code: str, features: np.ndarray, target: np.ndarray, seed: int = 0) -> Any:
    """Run the code as it is printed, below the arrays that it asks for, and return the model that it leaves."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    if "import keras" in code:
        importlib.import_module("keras").utils.set_random_seed(seed)
    namespace: dict[str, Any] = {"X": features, "y": target, "__name__": "snippet"}
    exec(compile(code, "snippet", "exec"), namespace)
    return namespace["model"]


def outputs_of(model: Any, features: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(torch.as_tensor(features))).cpu().reshape(len(features), -1)


def losses_of(compared: Compared, code: str) -> np.ndarray:
    """Return the validation loss `[draws]` in the target's unit of the code's model on each division that the verdict rests on."""
    search, best = compared.search, compared.search.findings.best
    assert best is not None
    data, facts = search.ground.data, compared.verdict.training
    assert facts is not None
    losses = []
    for result in best.results:
        if data.divisions is None:
            (train, truth), (held, held_truth) = data.evaluated
        else:
            rows, others = (
                torch.as_tensor(places[result.trial.division].astype(np.int64))
                for places in (data.divisions.train, data.divisions.validation)
            )
            train, truth, held, held_truth = data.features[rows], data.target[rows], data.features[others], data.target[others]
        model = trained(code, train.numpy(), truth.numpy(), seed=result.trial.seed % 2**31)
        per_row = Loss(facts.loss, facts.huber_delta).per_row(outputs_of(model, held.numpy())[None], held_truth[None])
        losses.append(float(per_row.mean()) * facts.loss_unit)
    return np.array(losses)


@pytest.mark.parametrize("library", LIBRARIES, indirect=True)
@pytest.mark.parametrize("data", ["diabetes", "breast_cancer", "wine"])
def test_the_snippet_comes_to_the_promised_loss(data: str, library: str, compared: Callable[[str], Compared]) -> None:
    found = compared(data)
    losses, promised = losses_of(found, found.verdict.code(library)), found.verdict.loss_ci  # type: ignore[arg-type]
    print(f"{data} {library}: mean loss {losses.mean():.5g} over {len(losses)} draws; promised {found.verdict.loss:.5g}, {promised}")
    assert promised is not None
    assert promised[0] <= losses.mean() <= (promised[1] or np.inf)


@pytest.fixture(scope="module")
def verdict(compared: Callable[[str], Compared]) -> Verdict:
    return compared("wine").verdict


def asked(verdict: Verdict, strategy: dict[str, Any], rows: int = 530, **changed: Any) -> Verdict:
    """Return the verdict as if another strategy were recommended, or something else of its training were another."""
    assert verdict.settings is not None
    assert verdict.training is not None
    optimizer = changed.pop("optimizer", {"kind": "adam", "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8})
    settings = {"strategies": {strategy["kind"]: strategy}, "train": {"optimizer": optimizer, "learning_rate": [0.1], "max_rows": rows}}
    training = verdict.training.model_copy(update={"model": {"kind": "linear"}, "train_rows": 53, **changed})
    return verdict.model_copy(update={"settings": settings, "training": training, "rows": rows, "learning_rate": 0.1})


def rows_and_classes(count: int = 53) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of three classes that lie apart, as many inputs as wine has."""
    rng = np.random.default_rng(0)
    classes = np.arange(count) % 3
    return (rng.normal(size=(count, 13)) + np.eye(13)[classes] * 3).astype(np.float32), classes


def loss_on(model: Any, features: np.ndarray, classes: np.ndarray) -> float:
    return float(torch.nn.functional.cross_entropy(outputs_of(model, features), torch.as_tensor(classes)))


EVERY = {
    "full batch": {"kind": "full_batch"},
    "stochastic": {"kind": "stochastic"},
    "mini-batch": {"kind": "mini_batch", "batch_rows": 8},
    "in order": {"kind": "mini_batch", "batch_rows": 8, "shuffled": False},
    "loader": {"kind": "data_loader", "batch_rows": 8, "workers": 2},
    "streaming": {"kind": "streaming", "batch_rows": 8},
    "growing": {"kind": "growing", "batch_rows": 4, "growth": "schedule", "factor": 2, "epochs": 3},
    "accumulated": {"kind": "accumulated", "portion_rows": 10},
}


@pytest.mark.parametrize("library", LIBRARIES, indirect=True)
@pytest.mark.parametrize("strategy", [name for name in EVERY if name != "accumulated"])
@pytest.mark.parametrize("rows", [530, 130])
def test_every_strategy_that_can_be_said_learns(strategy: str, library: str, rows: int, verdict: Verdict) -> None:
    features, classes = rows_and_classes()
    code = asked(verdict, EVERY[strategy], rows).code(library)  # type: ignore[arg-type]
    assert loss_on(trained(code, features, classes), features, classes) < np.log(3)


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != "skorch"], indirect=True)
def test_gradients_summed_over_ragged_portions_make_the_updates_of_the_full_batch(library: str, verdict: Verdict) -> None:
    features, classes = rows_and_classes()
    whole, summed = (
        outputs_of(trained(asked(verdict, EVERY[name]).code(library), features, classes), features)  # type: ignore[arg-type]
        for name in ("full batch", "accumulated")
    )
    np.testing.assert_allclose(summed, whole, atol=1e-4)


def test_the_torch_snippet_averages_as_training_does(verdict: Verdict, experiment: Made) -> None:
    """From the same weights, over the same rows in their order, both come to the same average."""
    from batchlab.engine.loop import train
    from batchlab.engine.records import Trial

    made = experiment("quick", data="wine", overrides=["train.epochs=4", "train.optimizer.kind=adam"])
    strategy = EVERY["in order"] | {"batch_rows": 16}
    count = made.data.population.row_count
    code = asked(verdict, strategy, 4 * count, train_rows=count).code()
    features, classes = made.data.features.numpy(), made.data.target.numpy()
    torch.manual_seed(3)
    start = {name: weights.detach().numpy().astype(np.float64) for name, weights in torch.nn.Linear(13, 3).named_parameters()}
    plan = made.profile.train
    chosen = STRATEGIES["mini_batch"].model_validate(strategy)
    (engine,) = train(made.data, made.model, chosen, [Trial(0.1, 0, start=start)], plan, made.loss, torch.device("cpu"))
    model = trained(code, features, classes, seed=3)
    assert engine.steps == 4 * -(-count // 16)
    for name, weights in model.named_parameters():
        np.testing.assert_allclose(weights.detach(), engine.weights[name], atol=1e-5)


@pytest.mark.parametrize("library", LIBRARIES, indirect=True)
@pytest.mark.parametrize(
    "optimizer",
    [
        {"kind": "sgd", "momentum": 0.9, "nesterov": True},
        {"kind": "adam", "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6},
        {"kind": "adamw", "weight_decay": 0.1},
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_every_library_takes_the_same_steps(optimizer: dict[str, Any], library: str, verdict: Verdict) -> None:
    """From weights of zero, in the order of rows, all come where torch comes."""
    features, classes = rows_and_classes()
    wanted = asked(verdict, EVERY["in order"], optimizer=optimizer)
    models = [trained(_from_zero(wanted.code(name)), features, classes) for name in ("torch", library)]  # type: ignore[arg-type]
    torch_outputs, outputs = (outputs_of(model, features) for model in models)
    np.testing.assert_allclose(outputs, torch_outputs, rtol=1e-3, atol=1e-3)


def _from_zero(code: str) -> str:
    """Return the code with a network that begins at zero."""
    zero = "(lambda net: [torch.nn.init.zeros_(weights) for weights in net.parameters()] and net)(nn.Linear(13, 3))"
    start = 'keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")'
    assert "nn.Linear(13, 3)" in code or start in code
    return code.replace("nn.Linear(13, 3)", zero).replace(start, '"zeros"')


@pytest.mark.parametrize("library", LIBRARIES, indirect=True)
def test_a_network_of_ones_own_is_imported_from_its_place(
    library: str, verdict: Verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours_of_snippets.py").write_text(
        "from torch import nn\n\ndef net(inputs, outputs):\n    return nn.Linear(inputs, outputs)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    wanted = asked(verdict, EVERY["mini-batch"], model={"kind": "custom", "factory": "ours_of_snippets:net"})
    code = wanted.code(library)  # type: ignore[arg-type]
    assert "from ours_of_snippets import net" in code
    features, classes = rows_and_classes()
    assert loss_on(trained(code, features, classes), features, classes) < np.log(3)


@pytest.mark.parametrize("library", LIBRARIES, indirect=True)
def test_a_network_of_ones_own_gets_its_rows_in_their_shape_and_keeps_what_it_has_beside_its_weights(
    library: str, verdict: Verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shaped_of_snippets.py").write_text(
        "from torch import nn\n\n"
        "def net(shape, outputs):\n"
        "    assert shape == (13, 1)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(13, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, outputs))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = {"kind": "custom", "factory": "shaped_of_snippets:net", "shape": [13, 1], "integers": False}
    code = asked(verdict, EVERY["in order"], model=model).code(library)  # type: ignore[arg-type]
    features, classes = rows_and_classes(56)  # batch norm does not train on a last row alone
    found = trained(code, features, classes)
    assert loss_on(found, features, classes) < np.log(3)
    if library == "torch":
        assert not found.training
        assert found[1][2].running_mean.abs().sum() > 0


@pytest.mark.parametrize("library", LIBRARIES, indirect=True)
def test_huber_losses_and_weights_that_are_not_averaged_are_said(library: str, verdict: Verdict) -> None:
    features, classes = rows_and_classes()
    huber = {
        "loss": "huber",
        "huber_delta": 0.5,
        "outputs": 1,
        "averaging": False,
        "model": {"kind": "mlp", "widths": [8], "activation": "tanh"},
    }
    code = asked(verdict, EVERY["mini-batch"], **huber).code(library)  # type: ignore[arg-type]
    assert "verag" not in code
    outputs = outputs_of(trained(code, features, classes.astype(np.float32)), features)[:, 0]
    target = torch.as_tensor(classes, dtype=torch.float32)
    assert float(((outputs - target) ** 2).mean()) < float((target**2).mean())


def test_what_cannot_be_said_is_refused_with_what_can(verdict: Verdict) -> None:
    with pytest.raises(UnknownName, match=r"library 'jax' does not exist.*Valid: keras, lightning, skorch, torch"):
        verdict.code("jax")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"measured noise scale; compare with --set strategies.growing.growth=schedule"):
        asked(verdict, {"kind": "growing"}).code()
    with pytest.raises(BadInput, match="data_loader with sampling 'stratified'; that of mini_batch can be said"):
        asked(verdict, {"kind": "data_loader", "sampling": "stratified"}).code()
    with pytest.raises(BadInput, match="skorch sums no gradients over portions; full_batch makes the same updates"):
        asked(verdict, EVERY["accumulated"]).code("skorch")
    with pytest.raises(BadInput, match="Keras adds no weight decay to the gradient"):
        asked(verdict, EVERY["full batch"], optimizer={"kind": "sgd", "weight_decay": 0.1}).code("keras")
    with pytest.raises(BadInput, match=r"train\.loss log_cosh; mse, huber, cross_entropy and one of your own can be said"):
        asked(verdict, EVERY["full batch"], loss="log_cosh").code()
    with pytest.raises(BadInput, match=r"schedule .*cosine.*; compare with the constant one"):
        asked(verdict, EVERY["full batch"], schedule={"kind": "cosine", "warmup": 0.0}).code()
    with pytest.raises(BadInput, match="recommends no setting"):
        verdict.model_copy(update={"settings": None}).code()


def test_the_verdicts_json_keeps_what_the_code_needs(verdict: Verdict) -> None:
    again = Verdict.model_validate_json(verdict.model_dump_json())
    assert [again.code(library) for library in SNIPPETS] == [verdict.code(library) for library in SNIPPETS]  # type: ignore[arg-type]


def test_the_page_shows_torch_folds_the_others_and_says_why_one_is_missing(found: Findings, verdict: Verdict) -> None:
    own = verdict_of(found, "")
    shown = snippets_section(own)
    assert shown.index("import torch") < shown.index("<details>")
    assert shown.count("<details>") == len(SNIPPETS) - 1
    assert snippets_section(asked(verdict, EVERY["accumulated"])).count("<pre") == len(SNIPPETS) - 1
    odd = asked(verdict, EVERY["full batch"], model={"kind": "custom", "factory": "a<b>:net"})
    assert "from a&lt;b&gt; import net" in snippets_section(odd)
    assert "No setting is recommended" in snippets_section(verdict.model_copy(update={"settings": None}))
