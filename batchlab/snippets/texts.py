"""The snippets, with `$names` for what differs. One that is alone in its line stands for lines; where there are none, its line goes."""

import re
from string import Template
from textwrap import indent

from batchlab.engine.averaging import DECAY

AVERAGE = f"average = AveragedModel(model, avg_fn=lambda mean, now, step: mean + (now - mean) / (1 + {DECAY} * (step + 1))$buffers)"
IMPORT_AVERAGE = "from torch.optim.swa_utils import AveragedModel"

TORCH = """\
import torch
from torch import nn
$import_average
$import_factory

X, y = torch.as_tensor(X, dtype=torch.$numbers), torch.as_tensor(y, dtype=$kind)
model = $network
$average
optimizer = $optimizer
for epoch in range($epochs):
    for rows in torch.$order(len(X))$some.split($size):
        $gradient
        $step
    $late_step
$keep
"""

LIGHTNING = """\
import lightning
import torch
from torch import nn
$import_average
from torch.utils import data
$import_factory


class Training(lightning.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model
        $average

    def training_step(self, batch, number):
        inputs, target = batch
        return $loss

    def configure_optimizers(self):
        return $optimizer
    $train_dataloader
    $averaging


X, y = torch.as_tensor(X, dtype=torch.$numbers), torch.as_tensor(y, dtype=$kind)
training = Training($network)
trainer = lightning.Trainer(max_epochs=$epochs, $options)
trainer.fit(training$loader)
model = $model
"""

SKORCH = """\
import torch
from skorch import NeuralNet$task
from skorch.callbacks import Callback
from torch import nn
$import_average
$import_factory
$import_sampler

X, y = torch.as_tensor(X, dtype=torch.$numbers), torch.as_tensor(y, dtype=$kind)$column
model = $network
$average
$averaging


net = NeuralNet$task(
    model,
    criterion=$criterion,
    optimizer=torch.optim.$optimizer,
    lr=$rate,
    $batches
    max_epochs=$epochs,
    train_split=None,
    verbose=0,
    $callbacks
)
$fit
$keep
model = net.module_
"""

KERAS = """\
import keras
import numpy as np
$import_factory


$layer


$averaging


X, y = np.asarray(X, np.$numbers), np.asarray(y)
$weights
model = keras.Sequential([keras.Input(($inputs,)), $layers])
model.compile($optimizer, $loss)
$average
$fit
$keep
"""

SKORCH_AVERAGING = """\


class Averaging(Callback):
    def on_batch_end(self, net, training=False, **_):
        if training:
            average.update_parameters(net.module_)
"""

KERAS_LAYER = """\
def layer(width, activation=None):  # begins with weights as torch does
    start = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    return keras.layers.Dense(width, activation, kernel_initializer=start)
"""

KERAS_AVERAGING = f"""\
class Averaging(keras.callbacks.Callback):
    steps, mean = 0, None

    def $hook:
        now, self.steps = self.model.get_weights(), self.steps + 1
        self.mean = [mean + (new - mean) / (1 + {DECAY} * self.steps) for mean, new in zip(self.mean or now, now)]
"""


def filled(template: str, **parts: object) -> str:
    """Return the template with its names replaced; lines that stand for one keep its indentation."""
    lines = []
    for line in template.splitlines():
        alone = re.fullmatch(r"( *)\$(\w+)", line)
        if alone is None:
            lines.append(Template(line).substitute(parts))
        elif parts[alone[2]]:
            lines.append(indent(str(parts[alone[2]]).rstrip("\n"), alone[1]))
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)) + "\n"
