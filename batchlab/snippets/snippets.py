"""The recommendation as code that trains elsewhere: a few lines of torch, Lightning, skorch or Keras that need nothing of this library."""

from typing import TYPE_CHECKING

from batchlab.engine.losses import is_own
from batchlab.engine.optimizers import Adam, AdamW, Sgd
from batchlab.errors import BadInput, UnknownName
from batchlab.snippets import recommended as says
from batchlab.snippets import texts as texts
from batchlab.snippets.quantities import number
from batchlab.snippets.recommended import Recommended, recommended
from batchlab.strategies.growing import Growing

if TYPE_CHECKING:
    from batchlab.results import TrainingFacts, Verdict

SCALED = """numbers less their mean over their spread, categories one-hot,
#   dates as days and phases, gaps as the mean beside an input that says so; the saved model does all this itself"""


def code_of(verdict: "Verdict", library: str) -> str:
    """Return code that takes arrays `X` `[rows, inputs]` and `y` `[rows]` and leaves a trained `model`.

    Raises BadInput for an unknown library, a verdict that recommends nothing, and what the library cannot say in a few lines.
    """
    if library not in SNIPPETS:
        raise UnknownName("library", library, SNIPPETS)
    chosen = recommended(verdict)
    return f"{_takes(chosen.facts)}\n{SNIPPETS[library](chosen)}{_leaves(verdict, chosen.facts)}\n"


def _takes(facts: "TrainingFacts") -> str:
    inputs = SCALED if facts.scaled else "as they are"
    scaled = "less its mean over its spread" if facts.scaled else "as it is"
    target = "class numbers from 0" if facts.classifies else scaled
    seen = "" if facts.window == 1 else f", of the row and the {facts.window - 1} before it, oldest first"
    later = "" if not facts.horizon else f" of the row {facts.horizon} later"
    names = f"\n#   in this order: {', '.join(facts.input_names)}" if facts.input_names else ""
    anew = "\n#   fetched anew every epoch: what to expect is of items that differ each time (an augmentation)" if facts.versions else ""
    return f"# X [rows, {facts.inputs}]: the training rows' inputs{seen}, {inputs}{names}{anew}\n# y [rows]: the target{later}, {target}"


def _leaves(verdict: "Verdict", facts: "TrainingFacts") -> str:
    """Say what to expect of the model, in the unit of `y`, and what that is in the target's own."""
    said = f"# keep `model`{', it has the averaged weights' if facts.averaging else ''}"
    if verdict.loss is None or verdict.one_training_ci is None:
        return said
    low, high = verdict.one_training_ci
    ends = f"over {number(low / facts.loss_unit)}" if high is None else f"{number(low / facts.loss_unit)}–{number(high / facts.loss_unit)}"
    own = "" if facts.loss_unit == 1 else f"\n#   of this y; times {facts.loss_unit:.5g} of the target as it was: {verdict.loss:.4g}"
    expected = f"{number(verdict.loss / facts.loss_unit)} (95% of trainings: {ends})"
    return f"{said}; mean {facts.loss.rpartition(':')[2]} on validation rows to expect: {expected}{own}"


def _torch(chosen: Recommended) -> str:
    facts = chosen.facts
    loss, update = says.loss(facts, "model(X[rows])", "y[rows]"), "optimizer.step()\noptimizer.zero_grad()"
    update += "\naverage.update_parameters(model)" if facts.averaging else ""
    summed = chosen.portion_rows is not None
    return _written(
        texts.TORCH,
        facts,
        average=says.average(facts),
        optimizer=_torch_optimizer(chosen, "model"),
        epochs=chosen.epochs,
        order="randperm" if chosen.shuffled else "arange",
        some="" if chosen.epoch_rows is None else f"[:{chosen.epoch_rows}]",
        size=chosen.portion_rows or chosen.size,
        gradient=f"({loss} * len(rows) / len(X)).backward()" if summed else f"{loss}.backward()",
        step="" if summed else update,
        late_step=update if summed else "",
        keep=f"model = {kept}" if (kept := says.kept(facts, "average.module", "model")) != "model" else "",
    )


def _lightning(chosen: Recommended) -> str:
    facts, loss = chosen.facts, says.loss(chosen.facts, "self.model(inputs)", "target")
    size, options, portions = chosen.size, "logger=False, enable_checkpointing=False", f"-(-len(X) // {chosen.portion_rows})"
    if chosen.portion_rows is not None:  # Lightning takes the mean over portions, whatever their rows
        size, loss = str(chosen.portion_rows), f"{loss} * len(inputs) * {portions} / len(X)"
        options = f"accumulate_grad_batches={portions}, {options}"
    order = ", shuffle=True" if chosen.shuffled else ""
    order = order if chosen.epoch_rows is None else f", sampler=data.RandomSampler(X, num_samples={chosen.epoch_rows})"
    grows = isinstance(chosen.updates, Growing)
    loader = f"data.DataLoader(data.TensorDataset(X, y), batch_size={size}{order})"
    growing = f"\ndef train_dataloader(self):\n    epoch = self.current_epoch\n    return {loader}"
    hook = "on_train_batch_end" if chosen.portion_rows is None else "on_train_epoch_end"
    return _written(
        texts.LIGHTNING,
        facts,
        average=f"self.{says.average(facts)}",
        averaging=f"\ndef {hook}(self, *_):\n    self.average.update_parameters(self.model)" if facts.averaging else "",
        loss=loss,
        optimizer=_torch_optimizer(chosen, "self.model"),
        train_dataloader=growing if grows else "",
        epochs=chosen.epochs,
        options=f"reload_dataloaders_every_n_epochs=1, {options}" if grows else options,
        loader="" if grows else f", {loader}",
        model=says.kept(facts, "training.average.module", "training.model"),
    )


def _skorch(chosen: Recommended) -> str:
    facts, grows = chosen.facts, isinstance(chosen.updates, Growing)
    _refuse_own_loss(facts, "skorch")
    if chosen.portion_rows is not None:
        raise BadInput("skorch sums no gradients over portions; full_batch makes the same updates, or take the code for torch.")
    order = "iterator_train__shuffle=True," if chosen.shuffled else ""
    order = order if chosen.epoch_rows is None else f"iterator_train__sampler=RandomSampler(X, num_samples={chosen.epoch_rows}),"
    delta = f",\n    criterion__delta={facts.huber_delta:g}" if facts.loss == "huber" else ""
    settings = "".join(f",\n    optimizer__{name}={value}" for name, value in says.optimizer_settings(chosen.optimizer).items())
    epoch = f"    net.set_params(batch_size={chosen.size}).partial_fit(X, y, epochs=1)"
    return _written(
        texts.SKORCH,
        facts,
        task="Classifier" if facts.classifies else "Regressor",
        import_sampler="" if chosen.epoch_rows is None else "from torch.utils.data import RandomSampler",
        column="" if facts.classifies else "[:, None]",
        average=says.average(facts),
        averaging=texts.SKORCH_AVERAGING if facts.averaging else "",
        criterion=says.LOSSES_OF_TORCH[facts.loss] + delta,
        optimizer=says.optimizer_class(chosen.optimizer) + settings,
        rate=says.rate(chosen),
        batches=order if grows else f"batch_size={chosen.size},\n{order}".strip(),
        epochs=chosen.epochs,
        callbacks="callbacks=[Averaging]," if facts.averaging else "",
        fit=f"net.initialize()\nfor epoch in range({chosen.epochs}):\n{epoch}" if grows else "net.fit(X, y)",
        keep="net.module_.load_state_dict(average.module.state_dict())" if facts.averaging else "",
    )


def _keras(chosen: Recommended) -> str:
    _refuse_own_loss(chosen.facts, "Keras")
    facts, grows, portion, weights = chosen.facts, isinstance(chosen.updates, Growing), chosen.portion_rows, ""
    batches = [f"batch_size={portion or chosen.size}", *([] if chosen.shuffled else ["shuffle=False"])]
    if portion is not None:  # Keras takes the mean over portions, whatever their rows
        short = f"np.where(np.arange(len(X)) < len(X) // {portion} * {portion}, {portion}, len(X) % {portion})"
        weights = f"weights = {short} * -(-len(X) // {portion}) / len(X)"
        batches.append("sample_weight=weights")
    said = ", ".join([*batches, "verbose=0", *(["callbacks=[averaging]"] if facts.averaging else [])])
    some = f"    rows = np.random.permutation(len(X))[:{chosen.epoch_rows}]\n    model.fit(X[rows], y[rows], {said})"
    one = f"for epoch in range({chosen.epochs}):\n{some if chosen.epoch_rows is not None else f'    model.fit(X, y, {said})'}"
    hook = "on_train_batch_end(self, batch, logs=None)" if portion is None else "on_epoch_end(self, epoch, logs=None)"
    return _written(
        texts.KERAS,
        facts,
        layer="" if facts.model["kind"] == "custom" else texts.KERAS_LAYER,
        averaging=texts.filled(texts.KERAS_AVERAGING, hook=hook) if facts.averaging else "",
        weights=weights,
        layers=_keras_layers(facts),
        optimizer=_keras_optimizer(chosen),
        loss=_keras_loss(facts),
        average="averaging = Averaging()" if facts.averaging else "",
        fit=one if grows or chosen.epoch_rows is not None else f"model.fit(X, y, epochs={chosen.epochs}, {said})",
        keep="model.set_weights(averaging.mean)" if facts.averaging else "",
    )


def _refuse_own_loss(facts: "TrainingFacts", library: str) -> None:
    if is_own(facts.loss):
        raise BadInput(f"{library} takes no loss that is a function of torch; take the code for torch or lightning.")


def _keras_layers(facts: "TrainingFacts") -> str:
    if facts.model["kind"] in ("custom", "tcn"):
        return f"keras.layers.TorchModuleWrapper({says.network(facts)})"
    activation = facts.model.get("activation")
    return ", ".join([*(f'layer({width}, "{activation}")' for width in facts.model.get("widths", ())), f"layer({facts.outputs})"])


def _keras_loss(facts: "TrainingFacts") -> str:
    if facts.classifies:
        return "keras.losses.SparseCategoricalCrossentropy(from_logits=True)"
    return f"keras.losses.Huber({facts.huber_delta:g})" if facts.loss == "huber" else '"mse"'


def _keras_optimizer(chosen: Recommended) -> str:
    rule, said = chosen.optimizer, says.rate(chosen)
    if rule.weight_decay and not isinstance(rule, AdamW):
        raise BadInput(f"Keras adds no weight decay to the gradient, as {rule.kind} does here; take the code for torch, or adamw.")
    if isinstance(rule, Sgd):
        said += (f", momentum={rule.momentum}" if rule.momentum else "") + (", nesterov=True" if rule.nesterov else "")
    elif isinstance(rule, Adam):
        said += f", beta_1={rule.beta1}, beta_2={rule.beta2}" if (rule.beta1, rule.beta2) != (0.9, 0.999) else ""
        said += f", epsilon={rule.epsilon}" + (f", weight_decay={rule.weight_decay}" if isinstance(rule, AdamW) else "")
    summed = "" if chosen.portion_rows is None else f", gradient_accumulation_steps=-(-len(X) // {chosen.portion_rows})"
    return f"keras.optimizers.{says.optimizer_class(rule)}({said}{summed})"


def _torch_optimizer(chosen: Recommended, model: str) -> str:
    settings = "".join(f", {name}={value}" for name, value in says.optimizer_settings(chosen.optimizer).items())
    return f"torch.optim.{says.optimizer_class(chosen.optimizer)}({model}.parameters(), lr={says.rate(chosen)}{settings})"


def _written(template: str, facts: "TrainingFacts", **parts: object) -> str:
    """Return the template with these parts, and those that every snippet in torch has."""
    shared = {
        "import_average": texts.IMPORT_AVERAGE if facts.averaging else "",
        "import_factory": "\n".join(filter(None, (says.factory_import(facts), says.loss_import(facts)))),
        "kind": "torch.long" if facts.classifies else "torch.float32",
        "network": says.network(facts),
        "numbers": "int64" if facts.model.get("integers") else "float32",
        "inputs": facts.inputs,
    }
    averaged = {name: part if facts.averaging else "" for name, part in parts.items() if name == "average"}
    return texts.filled(template, **{**shared, **parts, **averaged})


SNIPPETS = {"torch": _torch, "lightning": _lightning, "skorch": _skorch, "keras": _keras}
