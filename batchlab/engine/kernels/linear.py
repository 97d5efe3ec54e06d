"""The gradient of a linear model over rows, read straight from the table: no copy, no BLAS call for twenty numbers."""

from numba import njit

from batchlab.engine.kernels.parts import INLINED, PLAIN, loss_and_slope

# Flat weights are [features, outputs] row-major, then the biases [outputs].
GROUP = 4
"""Rows that a pass over the weights takes along, where there is one output."""


@njit(**PLAIN)
def gradient_of_rows(features, target, rows, task, scale, weights, gradient, outputs):
    """Write the gradient of the summed loss × `scale` over `rows` and return the summed loss; `outputs` is scratch `[4, outputs]`."""
    gradient[:] = 0
    total, start = 0.0, 0
    if outputs.shape[1] == 1:
        for start in range(0, len(rows) - GROUP + 1, GROUP):
            total += _add_group(features, target, rows, start, task, scale, weights, gradient, outputs)
        start = len(rows) // GROUP * GROUP
    for place in range(start, len(rows)):
        total += _add_row(features, target, rows[place], task, scale, weights, gradient, outputs)
    return total


@njit(**INLINED)
def _add_group(features, target, rows, start, task, scale, weights, gradient, outputs):
    """Add four rows to the gradient of one output and return their loss."""
    a, b, c, d = rows[start], rows[start + 1], rows[start + 2], rows[start + 3]
    width = task.widths[0]
    of_a = of_b = of_c = of_d = weights[width]
    for feature in range(width):
        weight = weights[feature]
        of_a += features[a, feature] * weight
        of_b += features[b, feature] * weight
        of_c += features[c, feature] * weight
        of_d += features[d, feature] * weight
    outputs[0, 0], outputs[1, 0], outputs[2, 0], outputs[3, 0] = of_a, of_b, of_c, of_d
    total = 0.0
    for place in range(GROUP):
        total += loss_and_slope(task.loss, outputs, place, target[rows[start + place]], task.knee)
    of_a, of_b, of_c, of_d = outputs[0, 0] * scale, outputs[1, 0] * scale, outputs[2, 0] * scale, outputs[3, 0] * scale
    for feature in range(width):
        gradient[feature] += (
            of_a * features[a, feature] + of_b * features[b, feature] + of_c * features[c, feature] + of_d * features[d, feature]
        )
    gradient[width] += of_a + of_b + of_c + of_d
    return total


@njit(**INLINED)
def _add_row(features, target, row, task, scale, weights, gradient, outputs):
    """Add one row to the gradient and return its loss."""
    width, count = task.widths[0], outputs.shape[1]
    _outputs(features, row, task, weights, outputs)
    loss = loss_and_slope(task.loss, outputs, 0, target[row], task.knee)
    if count == 1:
        slope = outputs[0, 0] * scale
        for feature in range(width):
            gradient[feature] += slope * features[row, feature]
        gradient[width] += slope
        return loss
    for feature in range(width):
        value = features[row, feature] * scale
        for output in range(count):
            gradient[feature * count + output] += value * outputs[0, output]
    for output in range(count):
        gradient[width * count + output] += scale * outputs[0, output]
    return loss


@njit(**PLAIN)
def loss_of_rows(features, target, start, end, task, weights, outputs):
    """Return the summed loss of rows start..end; `outputs` is scratch `[1, outputs]`."""
    total = 0.0
    for row in range(start, end):
        _outputs(features, row, task, weights, outputs)
        total += loss_and_slope(task.loss, outputs, 0, target[row], task.knee)
    return total


@njit(**INLINED)
def _outputs(features, row, task, weights, outputs):
    width, count = task.widths[0], outputs.shape[1]
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
