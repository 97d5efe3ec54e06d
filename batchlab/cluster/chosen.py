"""The hands that a profile asks for."""

from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.imported import GIVEN
from batchlab.search.hands import Hands, Here


def hands_for(experiment: Experiment) -> Hands:
    """Return who trains; raises BadInput where the cluster cannot be reached or would come to other numbers, and where other processes
    cannot import what is to be trained."""
    rule, train = experiment.profile.run, experiment.profile.train
    if train.processes > 1:
        if rule.on != "local":
            raise BadInput(
                f"run.on={rule.on} hands out whole trainings, and train.processes={train.processes} divides each: choose one of them "
                "(run.on=local, or train.processes=1)."
            )
        from batchlab.cluster.rank_hands import RankHands

        if getattr(experiment.profile.model, "factory", None) in GIVEN or train.loss in GIVEN:
            raise BadInput(
                f"train.processes={train.processes} needs modules and losses that other processes can import: put them into a file, and "
                "name them as package.module:function."
            )
        return RankHands(experiment)
    if rule.on == "local":
        return Here()
    from batchlab.cluster.nodes import check_installed

    check_installed()
    from batchlab.cluster.ray_hands import RayHands

    return RayHands(rule, experiment)
