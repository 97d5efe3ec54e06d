"""A whole run of steps for all replicas: the kernels that Python calls."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from batchlab.engine.kernels import linear, mlp
from batchlab.engine.kernels.parts import FAST, PLAIN, average_share, update, wait_for_all

TRAINS, DIVERGED = 0, 1
LANE_ROWS, MOST_LANES = 128, 16
"""A step's rows are cut into lanes of about this many rows, at most so many: cores may share a step lane by lane, and the sum over
lanes has one order whoever computed them, so that results are the same for any number of threads."""
TRANSPOSING_ROWS = 16
"""From this many rows on, a step earns back the transposing of its matrices."""


class Task(NamedTuple):
    """What is computed: the network's widths (features first, outputs last), its parameters, and the numbers of its parts."""

    widths: Any
    parameters: int
    activation: int
    loss: int
    knee: float
    optimizer: int
    settings: Any
    block_rows: int
    averages: int


class Rows(NamedTuple):
    """Tables `[tables, rows, features]` and `[tables, rows]` (one for all, or one a seed; a row has as many features as the network is
    wide, and reaches over the next ones where the table is less so), the order of rows `[seeds, rows of the
    run]`, where in it each step ends `[steps]`, and the factor on the learning rate of each step (or one for all)."""

    features: Any
    target: Any
    order: Any
    ends: Any
    pace: Any


class Replicas(NamedTuple):
    """State of all replicas. `weights[steps made % 2]` `[2, replicas, parameters]` are the current ones, the other half the previous;
    `average` `[replicas, parameters]` is their running average."""

    seed: Any
    rate: Any
    weights: Any
    average: Any
    memory: Any
    state: Any
    steps: Any


class Scratch(NamedTuple):
    """Working memory: gradients, two a thread for replicas apart or one a job (replica and lane) for shared steps; transposed matrices,
    one a thread or replica; blocks, one a thread; losses, one a job; and where threads meet."""

    gradients: Any
    transposed: Any
    blocks: Any
    losses: Any
    meeting: Any


@njit(**PLAIN)
def lane_count(row_count):
    return min(max(row_count // LANE_ROWS, 2 if row_count >= 0.75 * LANE_ROWS else 1), MOST_LANES)


@njit(**PLAIN)
def _gradient_of_lane(features, target, order, task, weights, start, end, lane, lanes, gradient, transposed, block):
    """Write a lane's share of the mean loss's gradient over rows start..end of the order and return its share of the summed loss."""
    scale = features.dtype.type(1 / (end - start))
    begin, finish = start + lane * (end - start) // lanes, start + (lane + 1) * (end - start) // lanes
    if len(task.widths) == 2:
        outputs = block[: linear.GROUP * task.widths[1]].reshape(linear.GROUP, task.widths[1])
        return linear.gradient_of_rows(features, target, order[begin:finish], task, scale, weights, gradient, outputs)
    if end - start < TRANSPOSING_ROWS:
        transposed = transposed[:0]
    blocks = (finish - begin - 1) // task.block_rows + 1
    total = 0.0
    for number in range(blocks):
        first, last = begin + number * (finish - begin) // blocks, begin + (number + 1) * (finish - begin) // blocks
        total += mlp.gradient_of_block(features, target, order[first:last], task, scale, weights, transposed, gradient, number == 0, block)
    return total


@njit(**PLAIN)
def _moves(replicas, task, replica, made, loss, gradient, factor):
    """Make update number `made` + 1; return whether loss and new weights are finite. If not, the replica keeps the weights it had."""
    weights = replicas.weights[made % 2, replica, : task.parameters]
    updated = replicas.weights[(made + 1) % 2, replica, : task.parameters]
    memory = replicas.memory[:, replica, : task.parameters]
    update(task.optimizer, weights, gradient, memory, replicas.rate[replica] * factor, made + 1, task.settings, updated)
    poison = updated.dtype.type(0)
    for index in range(len(updated)):
        poison += updated[index] * updated.dtype.type(0)  # stays 0 unless a weight is infinite or NaN
    finite = np.isfinite(loss) and np.isfinite(poison)
    if finite and task.averages:
        _average(replicas.average[replica, : task.parameters], updated, average_share(made + 1))
    return finite


@njit(**PLAIN)
def _average(average, weights, share):
    """Move the running average a share of the way to the weights."""
    if share > 0:
        step = weights.dtype.type(share)
        for index in range(len(weights)):
            average[index] += step * (weights[index] - average[index])


@njit(**PLAIN)
def _transpose(task, weights, row_count, transposed):
    """Write every matrix transposed, where that pays."""
    if len(task.widths) > 2 and row_count >= TRANSPOSING_ROWS:
        mlp.transpose(weights, task.widths, transposed)


@njit(**PLAIN)
def _train_replica(rows, replicas, task, scratch, replica, thread):
    """Make all steps of the run for one replica, on one core."""
    total, transposed, block = scratch.gradients[2 * thread, : task.parameters], scratch.transposed[thread], scratch.blocks[thread]
    seed = replicas.seed[replica]
    table = min(seed, len(rows.features) - 1)
    features, target, order = rows.features[table], rows.target[table], rows.order[seed]
    start, made = np.int64(0), replicas.steps[replica]
    for number in range(len(rows.ends)):
        end, factor = rows.ends[number], rows.pace[min(number, len(rows.pace) - 1)]
        weights = replicas.weights[made % 2, replica, : task.parameters]
        _transpose(task, weights, end - start, transposed)
        lanes, loss = lane_count(end - start), 0.0
        for lane in range(lanes):
            gradient = scratch.gradients[2 * thread + min(lane, 1), : task.parameters]
            loss += _gradient_of_lane(features, target, order, task, weights, start, end, lane, lanes, gradient, transposed, block)
            if lane > 0:
                _add(total, gradient)
        if not _moves(replicas, task, replica, made, loss, total, factor):
            replicas.state[replica] = DIVERGED
            break
        start, made = end, made + 1
    replicas.steps[replica] = made


@njit(**PLAIN)
def _train_share(rows, replicas, task, active, scratch, thread, threads):
    """Make one core's share of all steps of the run: its lanes of every step, and then its replicas' updates."""
    start = np.int64(0)
    for number in range(len(rows.ends)):
        end, factor = rows.ends[number], rows.pace[min(number, len(rows.pace) - 1)]
        lanes = lane_count(end - start)
        for place in range(thread, len(active), threads):
            weights = replicas.weights[replicas.steps[active[place]] % 2, active[place], : task.parameters]
            _transpose(task, weights, end - start, scratch.transposed[place])
        wait_for_all(scratch.meeting, threads)
        for job in range(thread, len(active) * lanes, threads):
            place, lane = job // lanes, job % lanes
            replica, gradient = active[place], scratch.gradients[job, : task.parameters]
            if replicas.state[replica] == TRAINS:
                weights = replicas.weights[replicas.steps[replica] % 2, replica, : task.parameters]
                transposed, block = scratch.transposed[place], scratch.blocks[thread]
                seed = replicas.seed[replica]
                table = min(seed, len(rows.features) - 1)
                features, target, order = rows.features[table], rows.target[table], rows.order[seed]
                scratch.losses[job] = _gradient_of_lane(
                    features, target, order, task, weights, start, end, lane, lanes, gradient, transposed, block
                )
        wait_for_all(scratch.meeting, threads)
        for place in range(thread, len(active), threads):
            if replicas.state[active[place]] == TRAINS:
                _sum_lanes_and_move(replicas, task, scratch, active[place], place * lanes, lanes, factor)
        wait_for_all(scratch.meeting, threads)
        start = end


@njit(**PLAIN)
def _sum_lanes_and_move(replicas, task, scratch, replica, first, lanes, factor):
    total, loss = scratch.gradients[first, : task.parameters], scratch.losses[first]
    for lane in range(first + 1, first + lanes):
        loss += scratch.losses[lane]
        _add(total, scratch.gradients[lane, : task.parameters])
    if _moves(replicas, task, replica, replicas.steps[replica], loss, total, factor):
        replicas.steps[replica] += 1
    else:
        replicas.state[replica] = DIVERGED


@njit(parallel=True, nogil=True, fastmath=FAST)
def train(threads, rows, replicas, task, active, together, scratch):
    """Make all steps of the run for the replicas numbered `active`: a replica a core, or `together`, every step's lanes spread over the
    cores; the same numbers. All `threads` must run at once, because in the latter case they wait for each other."""
    for index in prange(threads):
        thread = np.int64(index)  # not unsigned, as it would be in here only: what it is given to would be compiled for both
        if together:
            _train_share(rows, replicas, task, active, scratch, thread, threads)
        else:
            for place in range(thread, len(active), threads):
                _train_replica(rows, replicas, task, scratch, active[place], thread)


@njit(**PLAIN)
def _add(total, part):
    for index in range(len(total)):
        total[index] += part[index]


@njit(parallel=True, nogil=True, fastmath=FAST)
def summed_losses(threads, features, target, weights, task, blocks, losses):
    """Write `losses` [replicas, portions]: the summed loss of each equal portion of the rows under `weights` [replicas, parameters]."""
    replica_count, portions = losses.shape
    for index in prange(threads):
        thread = np.int64(index)
        for job in range(thread, replica_count * portions, threads):
            replica, portion = job // portions, job % portions
            start, end = portion * len(target) // portions, (portion + 1) * len(target) // portions
            losses[replica, portion] = _loss_of_portion(features, target, start, end, task, weights[replica], blocks[thread])


@njit(**PLAIN)
def _loss_of_portion(features, target, start, end, task, weights, block):
    if len(task.widths) == 2:
        return linear.loss_of_rows(features, target, start, end, task, weights, block[: task.widths[1]].reshape(1, task.widths[1]))
    total = 0.0
    for begin in range(start, end, task.block_rows):
        finish = min(begin + task.block_rows, end)
        total += mlp.loss_of_block(features[begin:finish], target[begin:finish], task, weights, block)
    return total
