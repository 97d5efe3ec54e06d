"""What a snippet says of the recommendation, and the expressions that the snippets of several libraries share."""

import math
from dataclasses import dataclass
from itertools import pairwise
from string import Template
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from batchlab.engine.losses import is_own
from batchlab.engine.optimizers import Adam, AdamW, AnyOptimizer, Optimizer, Sgd
from batchlab.errors import BadInput
from batchlab.imported import SESSION
from batchlab.models.tcn import WindowTcn
from batchlab.networks.activations import ACTIVATIONS
from batchlab.snippets import texts as texts
from batchlab.strategies import STRATEGIES, Strategy
from batchlab.strategies.accumulated import Accumulated
from batchlab.strategies.data_loader import DataLoader
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.growing import Growing
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.strategies.streaming import Streaming

if TYPE_CHECKING:
    from batchlab.results import TrainingFacts, Verdict

OPTIMIZERS_OF_TORCH = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
LOSSES_OF_TORCH = {"mse": "nn.MSELoss", "huber": "nn.HuberLoss", "cross_entropy": "nn.CrossEntropyLoss"}
ROUNDING = 0.02
"""Epochs are whole where that changes the rows of a training by no more than this; else each passes over a random share of the rows."""


@dataclass(frozen=True)
class Recommended:
    """The recommended setting. `updates` decides the rows of a step; of accumulated ones `portion_rows` those whose gradient is computed
    at once. An epoch passes over `epoch_rows` random rows; None for all."""

    facts: "TrainingFacts"
    updates: FullBatch | MiniBatch | Growing
    portion_rows: int | None
    optimizer: Optimizer
    learning_rate: float
    epochs: int
    epoch_rows: int | None

    @property
    def shuffled(self) -> bool:
        """Whether rows come in random order, another one every epoch."""
        return isinstance(self.updates, Growing) or (isinstance(self.updates, MiniBatch) and self.updates.shuffled)

    @property
    def size(self) -> str:
        """The rows of a step, as an expression of X and, where they grow, of `epoch`."""
        updates = self.updates
        if isinstance(updates, Growing):
            most = "len(X)" if updates.most_rows is None else f"{updates.most_rows}, len(X)"
            return f"min({updates.batch_rows} * {updates.factor} ** (epoch // {updates.epochs}), {most})"
        return "len(X)" if isinstance(updates, FullBatch) else str(updates.batch_rows)


def recommended(verdict: "Verdict") -> Recommended:
    """Return what the verdict recommends; raises BadInput for nothing, and for what takes more than a few lines."""
    facts, settings = verdict.training, verdict.settings
    if facts is None or settings is None or verdict.rows is None or verdict.learning_rate is None:
        raise BadInput("this verdict recommends no setting or was written by a release that did not keep the model, so there is no code.")
    if facts.schedule.get("kind", "constant") != "constant" or facts.schedule.get("warmup"):
        raise BadInput(f"no few lines say a learning rate with schedule {facts.schedule}; compare with the constant one, the default.")
    if facts.loss not in LOSSES_OF_TORCH and not is_own(facts.loss):
        raise BadInput(f"no few lines say train.loss {facts.loss}; {', '.join(LOSSES_OF_TORCH)} and one of your own can be said.")
    if facts.model.get("embedded"):
        raise BadInput("no few lines say categories as trained vectors; compare with encoding.categories 'one_hot', the default.")
    (given,) = settings["strategies"].values()
    strategy = STRATEGIES[given["kind"]].model_validate(given)
    optimizer: Optimizer = TypeAdapter(AnyOptimizer).validate_python(settings["train"]["optimizer"])
    if optimizer.kind not in OPTIMIZERS_OF_TORCH:
        raise BadInput(f"no few lines say optimizer {optimizer.kind}; {', '.join(OPTIMIZERS_OF_TORCH)} can be said.")
    updates = _updates_of(strategy)
    portion = strategy.rows_per_portion(facts.train_rows) if isinstance(strategy, Accumulated) else None
    return Recommended(facts, updates, portion, optimizer, verdict.learning_rate, *_epochs(verdict.rows, facts.train_rows, updates))


def _updates_of(strategy: Strategy) -> FullBatch | MiniBatch | Growing:
    """Return what makes the strategy's updates of rows that are in memory, where shuffling blocks of them is shuffling all."""
    updates = MiniBatch(batch_rows=strategy.batch_rows) if isinstance(strategy, Streaming) else strategy.updates
    if isinstance(updates, Growing) and updates.adapts:
        raise BadInput(
            "no few lines say a batch that grows with the measured noise scale; compare with --set strategies.growing.growth=schedule, "
            "or leave growing out of the strategies."
        )
    if isinstance(updates, FullBatch | MiniBatch | Growing):
        return updates
    sampling = f" with sampling '{strategy.sampling}'" if isinstance(strategy, DataLoader) else ""
    raise BadInput(f"no few lines say the order of rows of strategy {strategy.kind}{sampling}; that of mini_batch can be said.")


def _epochs(rows: int, train_rows: int, updates: Strategy) -> tuple[int, int | None]:
    """Return how many epochs a training of so many rows has, and the random rows of each where that is no whole number of epochs."""
    epochs = rows / train_rows
    whole = max(1, round(epochs))
    if abs(epochs - whole) <= ROUNDING * epochs or not isinstance(updates, MiniBatch) or not updates.shuffled:
        return whole, None
    return math.ceil(epochs), round(rows / math.ceil(epochs))


def network(facts: "TrainingFacts") -> str:
    """Return the network in torch."""
    model = facts.model
    if model["kind"] == "custom":
        name = model["factory"].partition(":")[2]
        if name.endswith("()"):
            return f"your_network  # the {name[:-2]} that was given, with fresh weights"
        shape = tuple(model.get("shape") or ())
        own = f"{own_name(name)}({shape or facts.inputs}, {facts.outputs})"
        return f"nn.Sequential(nn.Unflatten(1, {shape}), {own})" if len(shape) > 1 else own
    if model["kind"] == "linear":
        return f"nn.Linear({facts.inputs}, {facts.outputs})"
    if model["kind"] == "tcn":
        layers = [f"nn.{layer!r}" for layer in WindowTcn(**model).network(facts.inputs, facts.outputs).children()]
        return f"nn.Sequential({', '.join(layers)})"
    if model["kind"] != "mlp":
        raise BadInput(f"no few lines say model.kind {model['kind']}; linear, mlp, tcn and custom can be said.")
    widths = [facts.inputs, *model["widths"], facts.outputs]
    layers = [f"nn.Linear({width}, {after})" for width, after in pairwise(widths)]
    activation = f", nn.{ACTIVATIONS[model['activation']].layer}(), "
    return f"nn.Sequential({activation.join(layers)})"


def average(facts: "TrainingFacts") -> str:
    """Return the line that begins the running average: of the weights and, in a network of the user's own, of what it has beside them."""
    return Template(texts.AVERAGE).substitute(buffers=", use_buffers=True" if facts.model["kind"] == "custom" else "")


def kept(facts: "TrainingFacts", averaged: str, last: str) -> str:
    """Return the network that is kept; one of the user's own may predict otherwise than it trains."""
    return (averaged if facts.averaging else last) + (".eval()" if facts.model["kind"] == "custom" else "")


def factory_import(facts: "TrainingFacts") -> str:
    """Return the line that imports the user's own network; nothing for others, and for one that only a session knows."""
    return _import_of(facts.model.get("factory", ""))


def own_name(named: str) -> str:
    """Return the name by which code calls what the user named."""
    return named.rpartition(":")[2].rpartition(".")[2]


def loss_import(facts: "TrainingFacts") -> str:
    """Return the line that imports the user's own loss; nothing for others, and for one that only a session knows."""
    return _import_of(facts.loss) if is_own(facts.loss) else ""


def _import_of(named: str) -> str:
    place, _, name = named.partition(":")
    return f"from {place} import {name}" if name and place != SESSION else ""


def loss(facts: "TrainingFacts", outputs: str, target: str) -> str:
    """Return the mean loss in torch; one of the user's own is of numbers in the target's unit."""
    if is_own(facts.loss):
        unit = "" if facts.classifies else f" * {facts.target_scale:.9g} + {facts.target_mean:.9g}"
        outputs = outputs if facts.classifies else f"{outputs}.squeeze(-1)"
        return f"({own_name(facts.loss)}({outputs}{unit}, {target}{unit}).mean() / {facts.loss_unit:.9g})"
    if facts.loss == "cross_entropy":
        return f"nn.functional.cross_entropy({outputs}, {target})"
    if facts.loss == "huber":
        return f"nn.functional.huber_loss({outputs}.squeeze(-1), {target}, delta={facts.huber_delta:g})"
    return f"nn.functional.mse_loss({outputs}.squeeze(-1), {target})"


def optimizer_settings(optimizer: Optimizer) -> dict[str, str]:
    """Return the optimizer's settings by the names of torch.optim, those without which it would be another one."""
    given: dict[str, float | bool | tuple[float, float]] = {}
    if isinstance(optimizer, Sgd):
        given = {"momentum": optimizer.momentum, "nesterov": optimizer.nesterov}
    elif isinstance(optimizer, Adam):
        betas = (optimizer.beta1, optimizer.beta2)
        given = {"betas": betas if betas != (0.9, 0.999) else False, "eps": optimizer.epsilon if optimizer.epsilon != 1e-8 else False}
    found = {name: repr(value) for name, value in given.items() if value}
    if optimizer.weight_decay or isinstance(optimizer, AdamW):
        found["weight_decay"] = repr(optimizer.weight_decay)
    return found


def optimizer_class(optimizer: Optimizer) -> str:
    """Return the name of the optimizer's class, the same in torch and Keras."""
    return OPTIMIZERS_OF_TORCH[optimizer.kind]


def rate(chosen: Recommended) -> str:
    """Return the learning rate in as few digits as matter."""
    return repr(float(f"{chosen.learning_rate:.4g}"))
