"""What a person sees in the MLflow UI: the child runs of one comparison, side by side, in a real browser."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from batchlab.results import Comparison
from batchlab.search.search import Search
from tasks import store
from tasks.recording import Ended, Recording
from tasks.searching import tell
from tests.conftest import command_path
from tests.test_outages import begun, everything_recorded

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here; `make browser` installs them")
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --window-size=1700,1300"""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path / 'chromium'}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def ui(mlruns: Path) -> Iterator[str]:
    """The address of `batchlab ui` on the test's store."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [command_path(), "ui", "--port", str(port)],
        env={**os.environ, "BATCHLAB_MLRUNS": str(mlruns)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2)
            break
        except OSError:
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.3)
    yield address
    os.killpg(process.pid, 15)
    process.wait(timeout=30)


@pytest.fixture
def recorded(searched: Search, mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Comparison]:
    """A comparison that this process has recorded in the test's store."""
    monkeypatch.setenv("BATCHLAB_MLRUNS", str(mlruns))
    store.client.cache_clear()
    told = tell.fn(searched, begun(searched))
    yield everything_recorded(Recording(Ended(searched.experiment, searched.findings, searched.known), told))
    store.client.cache_clear()


def test_the_mlflow_ui_compares_the_child_runs_of_a_comparison(recorded: Comparison, ui: str, browser: webdriver.Chrome) -> None:
    experiment, parent = recorded.comparison.mlflow_experiment_id, recorded.comparison.mlflow_run_id
    runs = urllib.parse.quote(json.dumps([item.mlflow_run_id for item in recorded.strategies]))
    browser.get(f"{ui}/#/compare-runs?runs={runs}&experiments={urllib.parse.quote(json.dumps([experiment]))}")
    shown = _text_with(
        browser, f"Comparing {len(recorded.strategies)} Runs", "full_batch", "mini_batch 8", "learning_rate", "seconds_to_target"
    )
    wanted = ("Parallel Coordinates Plot", "final_validation_loss", "mean_test_loss", "split_digest")
    assert [word for word in wanted if word not in shown] == []
    browser.get(f"{ui}/#/experiments/{experiment}/runs/{parent}?workflowType=machine_learning")
    shown = _text_with(browser, "diabetes: ", "Finished", "Train with")
    assert "Playground" not in shown  # of MLflow's GenAI view


def _text_with(browser: webdriver.Chrome, *words: str) -> str:
    """Return the page's text once it shows all the words."""

    def shown(driver: webdriver.Chrome) -> bool:
        return all(word in driver.find_element(By.TAG_NAME, "body").text for word in words)

    WebDriverWait(browser, 60).until(shown, message=f"the page never showed {words}")
    return browser.find_element(By.TAG_NAME, "body").text
