"""The gradient of a linear model over rows, read straight from the table: no copy, no BLAS call for twenty numbers."""

from numba import njit

from batchlab.engine.kernels.parts import PLAIN, loss_and_slope

# Flat weights are [features, outputs] row-major, then the biases [outputs].


@njit(**PLAIN)
def gradient_of_rows(features, target, rows, task, scale, weights, gradient, outputs):  # type: ignore[no-untyped-def]
    """Write the gradient of the summed loss × `scale` over `rows` and return the summed loss; `outputs` is scratch `[1, outputs]`."""
    gradient[:] = 0
    total = 0.0
    width, count = features.shape[1], outputs.shape[1]
    for row in rows:
        _outputs(features, row, weights, outputs)
        total += loss_and_slope(task.loss, outputs, 0, target[row], task.knee)
        if count == 1:
            slope = outputs[0, 0] * scale
            for feature in range(width):
                gradient[feature] += slope * features[row, feature]
            gradient[width] += slope
        else:
            for feature in range(width):
                value = features[row, feature] * scale
                for output in range(count):
                    gradient[feature * count + output] += value * outputs[0, output]
            for output in range(count):
                gradient[width * count + output] += scale * outputs[0, output]
    return total


@njit(**PLAIN)
def loss_of_rows(features, target, start, end, task, weights, outputs):  # type: ignore[no-untyped-def]
    """Return the summed loss of rows start..end."""
    total = 0.0
    for row in range(start, end):
        _outputs(features, row, weights, outputs)
        total += loss_and_slope(task.loss, outputs, 0, target[row], task.knee)
    return total


@njit(**PLAIN)
def _outputs(features, row, weights, outputs):  # type: ignore[no-untyped-def]
    width, count = features.shape[1], outputs.shape[1]
    if count == 1:
        value = weights[width]
        for feature in range(width):
            value += features[row, feature] * weights[feature]
        outputs[0, 0] = value
        return
    for output in range(count):
        outputs[0, output] = weights[width * count + output]
    for feature in range(width):
        value = features[row, feature]
        for output in range(count):
            outputs[0, output] += value * weights[feature * count + output]
