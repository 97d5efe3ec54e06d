"""prefect.yaml: Prefect ignores keys that it does not know, so every key, entrypoint and parameter is checked here."""

import copy
import functools
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import yaml
from prefect import Flow
from prefect.cli.deploy._models import ConcurrencyLimitSpec, DeploymentConfig, PrefectYamlModel, RawScheduleConfig, WorkPoolConfig
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.events import DeploymentEventTrigger
from prefect.flows import load_flow_from_entrypoint
from pydantic import BaseModel

from batchlab.config import load_profile
from flows.local_worker import POOL, RAY_POOL
from tests.conftest import CHECKOUT

TREE: dict[str, Any] = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())
Deployment = dict[str, Any]
NAMED = {f"{item['entrypoint'].split(':')[1]}/{item['name']}": item for item in TREE["deployments"]}
ALL = pytest.mark.parametrize("deployment", NAMED.values(), ids=NAMED)


def unknown(tree: dict[str, Any], model: type[BaseModel]) -> list[str]:
    """Return the keys of a tree that Prefect's model of it does not have."""
    known = {field.alias or name for name, field in model.model_fields.items()}
    return sorted(tree.keys() - known)


def ignored(tree: dict[str, Any]) -> Iterator[str]:
    """Yield every key of the file that Prefect would pass over in silence."""
    yield from unknown(tree, PrefectYamlModel)
    for deployment in tree["deployments"]:
        yield from unknown(deployment, DeploymentConfig)
        yield from unknown(deployment["concurrency_limit"], ConcurrencyLimitSpec)
        yield from unknown(deployment["work_pool"], WorkPoolConfig)
        for schedule in deployment.get("schedules", ()):
            yield from unknown(schedule, RawScheduleConfig)
        for trigger in deployment.get("triggers", ()):
            yield from unknown(trigger, DeploymentEventTrigger)


def test_prefect_knows_every_key_of_the_file() -> None:
    assert list(ignored(TREE)) == []


@pytest.mark.parametrize("part", ["", "concurrency_limit", "work_pool", "schedules", "triggers"])
def test_a_misspelt_key_would_be_found(part: str) -> None:
    tree = copy.deepcopy(TREE)
    deployment = next(item for item in tree["deployments"] if not part or part in item)
    place = deployment[part] if part else deployment
    (place[0] if isinstance(place, list) else place)["colision_strategy"] = 1
    assert list(ignored(tree)) == ["colision_strategy"]


def test_the_deployments_are_those_that_the_documents_name() -> None:
    comparisons, retrainings = (
        {"comparison/default", "comparison/on-ray"},
        {"retraining/nightly", "retraining/on-new-data", "retraining/update"},
    )
    assert set(NAMED) == {*comparisons, *retrainings, "ingestion/default"}


@ALL
def test_a_deployment_is_limited_to_one_run_with_a_stated_strategy_on_a_pool_that_is_made(deployment: Deployment) -> None:
    limit = ConcurrencyLimitConfig.model_validate(deployment["concurrency_limit"])
    assert limit.limit == 1
    assert "collision_strategy" in deployment["concurrency_limit"]
    assert deployment["work_pool"]["name"] == (RAY_POOL if deployment["name"] == "on-ray" else POOL)
    assert deployment["tags"] == ["batchlab"]  # notifications of failed runs go by it


@ALL
def test_schedules_and_triggers_are_ones_that_prefect_takes(deployment: Deployment) -> None:
    for schedule in deployment.get("schedules", ()):
        RawScheduleConfig.model_validate(schedule)
        kind = CronSchedule if "cron" in schedule else IntervalSchedule
        kind.model_validate({key: value for key, value in schedule.items() if key in kind.model_fields})
        assert "timezone" in schedule or "interval" in schedule
    for trigger in deployment.get("triggers", ()):
        DeploymentEventTrigger.model_validate(trigger)


@functools.cache
def flow_of(entrypoint: str) -> Flow[..., Any]:
    return load_flow_from_entrypoint(str(CHECKOUT / entrypoint), use_placeholder_flow=False)


@ALL
def test_the_entrypoint_is_the_flow_itself_with_every_parameter_described(deployment: Deployment) -> None:
    flow = flow_of(deployment["entrypoint"])
    assert flow.name == deployment["entrypoint"].split(":")[1]
    assert [name for name, item in flow.parameters.properties.items() if not item.get("description")] == []


@ALL
def test_the_parameters_are_ones_that_the_flow_takes(deployment: Deployment) -> None:
    flow = flow_of(deployment["entrypoint"])
    flow.validate_parameters(deployment["parameters"])
    for trigger in deployment.get("triggers", ()):
        assert trigger["parameters"].keys() <= flow.parameters.properties.keys()


def test_the_deployment_on_ray_names_settings_of_a_comparison_on_the_cluster_of_its_machine() -> None:
    given = NAMED["comparison/on-ray"]["parameters"]
    rule = load_profile(given["profile"], overrides=given["overrides"]).run
    assert (rule.on, rule.address) == ("ray", "auto")


def test_the_kinds_of_triggers_are_still_those_checked_here() -> None:
    kinds = {trigger.get("type") for item in TREE["deployments"] for trigger in item.get("triggers", ())}
    assert kinds == set(get_args(DeploymentEventTrigger.model_fields["type"].annotation))
