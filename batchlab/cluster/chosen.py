"""The hands that a profile asks for."""

from batchlab.experiment import Experiment
from batchlab.search.hands import Hands, Here


def hands_for(experiment: Experiment) -> Hands:
    """Return who trains; raises BadInput where the cluster cannot be reached or would come to other numbers."""
    rule = experiment.profile.run
    if rule.on == "local":
        return Here()
    from batchlab.cluster.nodes import check_installed

    check_installed()
    from batchlab.cluster.ray_hands import RayHands

    return RayHands(rule, experiment)
