"""The hands that a profile asks for."""

from collections.abc import Iterator
from contextlib import contextmanager

from batchlab.engine.loop import train
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.search.hands import Hands, Here, Trains


def hands_for(experiment: Experiment) -> Hands:
    """Return who trains; raises BadInput where the cluster cannot be reached or would come to other numbers, and where other processes
    cannot import what is to be trained."""
    rule = experiment.profile.run
    if experiment.profile.train.processes > 1:
        return _over_processes(experiment)
    if rule.on == "local":
        return Here()
    from batchlab.cluster.nodes import check_installed

    check_installed()
    from batchlab.cluster.ray_hands import RayHands

    return RayHands(rule, experiment)


@contextmanager
def trainer_for(experiment: Experiment) -> Iterator[Trains]:
    """Yield what makes a single training: in this process, or over those that the profile asks for."""
    if experiment.profile.train.processes == 1:
        yield train
        return
    hands = _over_processes(experiment)
    try:
        yield hands.train
    finally:
        hands.close()


def _over_processes(experiment: Experiment) -> Hands:
    profile, processes = experiment.profile, experiment.profile.train.processes
    if profile.run.on != "local":
        raise BadInput(
            f"run.on={profile.run.on} hands out whole trainings, and train.processes={processes} divides each: choose one of them "
            "(run.on=local, or train.processes=1)."
        )
    if (own := experiment.of_this_session) is not None:
        raise BadInput(
            f"train.processes={processes} trains in other processes, which cannot import {own} of this session: put it into a file, and "
            "name it as package.module:function."
        )
    from batchlab.cluster.rank_hands import RankHands

    return RankHands(experiment)
