"""Loss and gradient of an mlp over a block of rows that fits the core's cache: matrix products by BLAS, the rest fused around them."""

import numpy as np
from numba import njit

from batchlab.engine.kernels.parts import PLAIN, activate, borrowed, loss_and_slope

# Each layer's flat weights are [inputs, outputs] row-major, then its biases [outputs]. In this order the forward product and the
# weights' gradient run on BLAS's quick small-matrix paths; the third product, which carries slopes back, has them with `transposed`.
#
# Scratch for a block of n rows, one part after another: the inputs and every layer's values, n × widths; every hidden layer's slopes,
# n × hidden widths; two buffers for what is carried back, n × the widest hidden layer; one gradient of a layer's matrix.


@njit(**PLAIN)
def gradient_of_block(features, target, rows, task, scale, weights, transposed, gradient, first, scratch):
    """Write the gradient of the summed loss × `scale` over `rows` (add it, unless `first`) and return the summed loss.

    `transposed` holds every layer's matrix as [outputs, inputs]; it is empty where a step is too short to earn the transposing back.
    """
    widths, count = task.widths, len(rows)
    inputs = scratch[: count * widths[0]].reshape(count, widths[0])
    for row in range(count):
        for feature in range(widths[0]):
            inputs[row, feature] = features[rows[row], feature]
    _forward(inputs, widths, task.activation, weights, scratch)
    at = count * widths[:-1].sum()
    outputs = scratch[at : at + count * widths[-1]].reshape(count, widths[-1])
    total = 0.0
    for row in range(count):
        total += loss_and_slope(task.loss, outputs, row, target[rows[row]], task.knee)
        for output in range(outputs.shape[1]):
            outputs[row, output] *= scale
    _backward(outputs, widths, weights, transposed, gradient, first, scratch)
    return total


@njit(**PLAIN)
def loss_of_block(inputs, target, task, weights, scratch):
    """Return the summed loss of the rows `inputs`."""
    _forward(inputs, task.widths, task.activation, weights, scratch)
    at = len(inputs) * task.widths[:-1].sum()
    outputs = scratch[at : at + len(inputs) * task.widths[-1]].reshape(len(inputs), task.widths[-1])
    total = 0.0
    for row in range(len(inputs)):
        total += loss_and_slope(task.loss, outputs, row, target[row], task.knee)
    return total


@njit(**PLAIN)
def _forward(inputs, widths, activation, weights, scratch):
    """Leave every layer's values, the outputs among them, and slopes in the scratch."""
    count = len(inputs)
    last = len(widths) - 2
    value_at, slope_at, weight_at = count * widths[0], count * widths.sum(), 0
    values = inputs
    for layer in range(last + 1):
        width, outs = widths[layer], widths[layer + 1]
        matrix = weights[weight_at : weight_at + width * outs].reshape(width, outs)
        bias = weights[weight_at + width * outs : weight_at + width * outs + outs]
        results = scratch[value_at : value_at + count * outs].reshape(count, outs)
        if outs == 1:
            vector = weights[weight_at : weight_at + width]
            _product(borrowed(values), borrowed(vector), borrowed(scratch[value_at : value_at + count]))
        else:
            _product(borrowed(values), borrowed(matrix), borrowed(results))
        if layer < last:
            activate(activation, results, bias, scratch[slope_at : slope_at + count * outs].reshape(count, outs))
        else:
            for row in range(count):
                for output in range(outs):
                    results[row, output] += bias[output]
        value_at, slope_at, weight_at = value_at + count * outs, slope_at + count * outs, weight_at + (width + 1) * outs
        values = results


@njit(**PLAIN)
def _backward(carried, widths, weights, transposed, gradient, first, scratch):
    """Turn the outputs' slopes `carried` into the gradient of every layer, last to first."""
    count = len(carried)
    last = len(widths) - 2
    value_at, slope_at = count * widths[: last + 1].sum(), count * (widths.sum() + widths[1 : last + 1].sum())
    spare_at, weight_at = slope_at, 0
    widest = 0
    for layer in range(last + 1):
        weight_at += (widths[layer] + 1) * widths[layer + 1]
        widest = max(widest, widths[layer]) if layer else 0
    matrix_at = spare_at + 2 * count * widest
    for layer in range(last, -1, -1):
        width, outs = widths[layer], widths[layer + 1]
        weight_at, value_at, slope_at = weight_at - (width + 1) * outs, value_at - count * width, slope_at - count * width
        values = scratch[value_at : value_at + count * width].reshape(count, width)
        own = gradient[weight_at : weight_at + width * outs].reshape(width, outs)
        bias = gradient[weight_at + width * outs : weight_at + (width + 1) * outs]
        if first:
            _products(values, carried, own)
        else:
            spare = scratch[matrix_at : matrix_at + width * outs].reshape(width, outs)
            _products(values, carried, spare)
            for column in range(width):
                for output in range(outs):
                    own[column, output] += spare[column, output]
        if layer == last:
            if first:
                bias[:] = 0
            for row in range(count):
                for output in range(outs):
                    bias[output] += carried[row, output]
        if layer > 0:
            back = scratch[spare_at + (layer % 2) * count * widest :][: count * width].reshape(count, width)
            slopes = scratch[slope_at : slope_at + count * width].reshape(count, width)
            bias_before = gradient[weight_at - width : weight_at]
            if first:
                bias_before[:] = 0
            _carry_back(carried, weights, transposed, weight_at, slopes, back, bias_before)
            carried = back


@njit(_nrt=True)
def _product(left, right, results):
    """results ← left · right; `right` and `results` may be vectors. Takes `borrowed` arrays, as numpy's product counts references."""
    np.dot(left, right, results)


@njit(**PLAIN)
def _products(values, carried, results):
    """results ← valuesᵀ · carried; one output is a matrix-vector product."""
    if carried.shape[1] == 1:
        vector, sums = carried.reshape(len(carried)), results.reshape(len(results))
        _product(borrowed(values.T), borrowed(vector), borrowed(sums))
    else:
        _product(borrowed(values.T), borrowed(carried), borrowed(results))


@njit(**PLAIN)
def _carry_back(carried, weights, transposed, weight_at, slopes, results, bias):
    """results ← (carried · matrixᵀ) × slopes, and bias += their sum over rows."""
    width, outs = results.shape[1], carried.shape[1]
    if outs == 1:
        for row in range(len(carried)):
            slope = carried[row, 0]
            for column in range(width):
                value = slope * weights[weight_at + column] * slopes[row, column]
                results[row, column] = value
                bias[column] += value
        return
    if len(transposed):
        matrix = transposed[weight_at : weight_at + width * outs].reshape(outs, width)
        _product(borrowed(carried), borrowed(matrix), borrowed(results))
    else:
        turned = weights[weight_at : weight_at + width * outs].reshape(width, outs).T
        _product(borrowed(carried), borrowed(turned), borrowed(results))
    for row in range(len(results)):
        for column in range(width):
            value = results[row, column] * slopes[row, column]
            results[row, column] = value
            bias[column] += value


@njit(**PLAIN)
def transpose(weights, widths, transposed):
    """Write every layer's matrix but the first [inputs, outputs] as [outputs, inputs]."""
    at = 0
    for layer in range(len(widths) - 1):
        width, outs = widths[layer], widths[layer + 1]
        if layer > 0:
            matrix = weights[at : at + width * outs].reshape(width, outs)
            turned = transposed[at : at + width * outs].reshape(outs, width)
            for output in range(outs):
                for column in range(width):
                    turned[output, column] = matrix[column, output]
        at += (width + 1) * outs
