"""`batchlab retrain` and `batchlab update`: keep a model retrained, once and by hand."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from flows import options, running

if TYPE_CHECKING:
    from rich.console import Console

    from batchlab.retraining.outcome import Retraining
    from flows.local_server import LocalServer

Name = Annotated[str | None, typer.Option("--model", help="The name to register the model under; else <source>-<target>.")]
ProfileName = Annotated[str, typer.Option(help="nightly, quick, full, or the path of a TOML file.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the trainings.")]
STYLES = {"first": "bold green", "promoted": "bold green", "kept": "bold yellow"}


def retrain(
    data: options.Data = None,
    target: options.Target = None,
    name: Name = None,
    task: options.TaskOfTarget = None,
    profile: ProfileName = "nightly",
    overrides: options.Overrides = None,
    drop: options.Drop = None,
    categorical: options.Categorical = None,
    time_column: options.TimeColumn = None,
    missing: options.Missing = None,
    window: options.Window = None,
    horizon: options.Horizon = None,
    max_minutes: Annotated[float | None, typer.Option(help="A comparison, where one is due, searches no longer.")] = None,
    seed: Seed = None,
    json_file: options.JsonFile = None,
    no_server: options.NoServer = False,
) -> None:
    """Train on new data with the recommended setting; replace the champion only by a better model."""
    limit = [] if max_minutes is None else [f"search.max_minutes={max_minutes}"]
    settings = [
        *options.column_overrides(drop, categorical, time_column, missing=missing, window=window, horizon=horizon),
        *limit,
        *(overrides or []),
    ]
    _run("retrain", name, data, target, task, profile, settings, seed, json_file, no_server)


def update(
    data: options.Data = None,
    target: options.Target = None,
    name: Name = None,
    task: options.TaskOfTarget = None,
    profile: ProfileName = "nightly",
    overrides: options.Overrides = None,
    drop: options.Drop = None,
    categorical: options.Categorical = None,
    time_column: options.TimeColumn = None,
    missing: options.Missing = None,
    window: options.Window = None,
    horizon: options.Horizon = None,
    seed: Seed = None,
    json_file: options.JsonFile = None,
    no_server: options.NoServer = False,
) -> None:
    """Continue the champion on the new rows, some old ones among them; replace it only if that is better."""
    settings = [
        *options.column_overrides(drop, categorical, time_column, missing=missing, window=window, horizon=horizon),
        *(overrides or []),
    ]
    _run("update", name, data, target, task, profile, settings, seed, json_file, no_server)


def _run(
    mode: Literal["retrain", "update"],
    name: str | None,
    data: str | None,
    target: str | None,
    task: str | None,
    profile: str,
    overrides: list[str],
    seed: int | None,
    json_file: Any,
    no_server: bool,
) -> None:
    from batchlab.config import load_profile
    from flows.display import console
    from tasks.standing import rested_at_once, standing_of

    arguments: dict[str, Any] = {"data": data, "target": target, "task": task, "overrides": overrides, "seed": seed}
    settings = load_profile(profile, **arguments)
    options.check_early(settings, json_file)
    standing = standing_of(settings, name, mode)
    result = None if _a_server_runs(no_server) else rested_at_once(settings, standing, mode)
    if result is None:
        _make_ready(running.prepare_server(no_server), sure_to_train=standing.mark is None)
        from flows.retraining import retraining

        ended = running.run_flow(lambda: retraining(name=name, profile=profile, mode=mode, **arguments))
        result = cast("Retraining", ended)  # Prefect hands out what the state holds
    show(console(), result)
    options.write_json(json_file, result.model_dump_json(indent=2))


def _a_server_runs(no_server: bool) -> bool:
    """Whether a Prefect server is there to keep the flow run of a look that found nothing new; none is started for that alone."""
    from flows import local_server

    return not no_server and (local_server.configured_url() is not None or local_server.running() is not None)


def _make_ready(server: "LocalServer | None", sure_to_train: bool) -> None:
    """Import what the flow needs while the server starts: what a training needs only where there is sure to be one."""
    if sure_to_train:
        running.warm_up(server)
        return
    running.quiet()
    import flows.retraining  # noqa: F401

    if server is not None:
        server.wait()


def show(shown_on: "Console", result: "Retraining") -> None:
    """Print what was decided and why."""
    promotion = result.promotion
    for reason in result.stale:
        shown_on.print(f"• a comparison was made: {reason}" if result.comparison_run_id else f"• {reason}")
    for remark in result.remarks:
        shown_on.print(f"• {remark}")
    if promotion is not None:
        for reason in promotion.reasons:
            shown_on.print(f"• {reason}")
    shown_on.print(result.text, style=STYLES.get(result.outcome, ""))
    champion = "none" if result.champion is None else f"version {result.champion}"
    seen = f"   (this retraining: MLflow run {result.mlflow_run_id}; open it with: batchlab ui)" if result.mlflow_run_id else ""
    shown_on.print(f"champion of '{result.name}': {champion}{seen}", style="dim")
