"""When a task is tried again: where the store, the server or a disk may recover, never for bad input."""

import sqlite3
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from batchlab.errors import BatchlabError


async def may_pass(task: Task[..., Any], run: TaskRun, state: "State[Any]") -> bool:
    """Whether the failure is of a kind that passes by itself: a locked database, a lost connection, a disk error."""
    from sqlalchemy.exc import OperationalError

    try:
        await state.aresult()
    except (BatchlabError, FileNotFoundError, PermissionError):
        return False
    except (OSError, sqlite3.OperationalError, OperationalError):
        return True
    except BaseException:
        return False
    return False


RETRIES: dict[str, Any] = {"retries": 2, "retry_delay_seconds": [1, 5], "retry_condition_fn": may_pass, "cache_policy": NO_CACHE}
