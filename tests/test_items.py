"""Map-style data sets: fetched once, held, and refused with the item that is wrong."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset, WeightedRandomSampler

import batchlab
from batchlab.config import load_profile
from batchlab.errors import BadInput, UnknownName
from batchlab.sources.dataset import DataSet
from batchlab.sources.items import fetched
from batchlab.sources.unloaded import is_data_set, without_loader
from batchlab.table import pack
from tests.test_own_modules import LITTLE

HERE = __name__
LARGE = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from batchlab.intake.held import taken

class Large(torch.utils.data.Dataset):
    def __len__(self):
        return 2**15
    def __getitem__(self, number):
        return np.full(2**12, number, np.float32), number

peak = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
held = taken(Large(), None, scratch=Path(sys.argv[1]))
rows = sum(batch.num_rows for batch in held.reading.batches(print))
print(held.reading.size_bytes - 8 * rows, peak() - before)
"""
"""Takes a data set of half a GiB, reads it as a table, and prints its bytes and by how many the process's peak has grown."""


class Pictures(Dataset[tuple[torch.Tensor, str]]):
    """Digits as pictures, decoded when asked for."""

    def __init__(self, count: int = 200, augmented: bool = False) -> None:
        self.pixels, self.labels = (part[:count] for part in load_digits(return_X_y=True))
        self.augmented = augmented

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, str]:
        picture = torch.tensor(self.pixels[number], dtype=torch.float32).view(1, 8, 8) / 16
        return picture + 0.1 * torch.rand(()) if self.augmented else picture, f"digit {self.labels[number]}"


class Broken(Pictures):
    """One of whose items is wrong."""

    def __init__(self, wrong: Any) -> None:
        super().__init__(20)
        self.wrong = wrong

    def __getitem__(self, number: int) -> Any:
        return self.wrong() if number == 7 else super().__getitem__(number)


class Stream(IterableDataset[tuple[torch.Tensor, str]]):
    """Digits one after another, as a file of records or a queue has them."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, str]]:
        yield from (Pictures()[number] for number in range(200))


class Cut(Stream):
    """One that breaks off."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, str]]:
        yield from islice(super().__iter__(), 3)
        raise ConnectionError("the queue is closed")


class Vast(Dataset[tuple[torch.Tensor, int]]):
    """More than a disk holds."""

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(2**14), number


def pictures() -> Pictures:
    return Pictures()


def failing() -> Pictures:
    raise ValueError("no such folder")


def small(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, outputs))


def flat(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))


def test_what_is_a_data_set_is_told_from_frames_arrays_and_lists() -> None:
    assert is_data_set(Pictures())
    assert is_data_set(TensorDataset(torch.zeros(3, 2), torch.zeros(3)))
    assert not any(is_data_set(thing) for thing in (pd.DataFrame({"a": [1]}), np.zeros((2, 2)), torch.zeros(2), [1, 2], None))


def test_items_are_held_in_their_shape_with_their_targets() -> None:
    found = fetched(Pictures())
    assert found.inputs.shape == (200, 1, 8, 8)
    assert found.inputs.dtype == np.float32
    np.testing.assert_array_equal(found.inputs[17], Pictures()[17][0].numpy())
    assert found.target[17] == Pictures()[17][1]
    assert found.notes[0].startswith("the data set's 200 items were fetched once and written down")
    assert len(found.notes) == 1


def test_words_of_any_length_are_kept_whole() -> None:
    words = ["a", "much longer", "b"]
    found = fetched(TensorDatasetOfWords(words))
    assert found.target.tolist() == words


class TensorDatasetOfWords(Pictures):
    def __init__(self, words: list[str]) -> None:
        super().__init__(len(words))
        self.words = words

    def __getitem__(self, number: int) -> Any:
        return super().__getitem__(number)[0], self.words[number]


def test_an_augmentation_is_found_by_fetching_items_twice_and_said() -> None:
    notes = fetched(Pictures(augmented=True)).notes
    assert notes[1].startswith("item 0 is another one each time it is fetched")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: 1 / 0, "item 7 of the data set cannot be fetched: ZeroDivisionError: division by zero"),
        (lambda: (torch.zeros(1, 8, 9), "digit 1"), r"item 7 has inputs of shape \(1, 8, 9\) \(float32\), item 0 has \(1, 8, 8\)"),
        (lambda: torch.zeros(8), "item 7 of the data set is a Tensor; it must be a pair"),
        (lambda: (torch.zeros(1, 8, 8), "a", 3), "item 7 of the data set is 3 parts; it must be a pair"),
        (lambda: (torch.zeros(1, 8, 8), [1, 2]), r"item 7 has a target of shape \(2,\)"),
        (lambda: ((torch.zeros(1, 8, 8), torch.zeros(3)), 1), r"item 7 has 2 inputs, of \(1, 8, 8\) and \(3,\), and a module gets one"),
        (lambda: ({"a": torch.zeros(2), "b": torch.zeros(2)}, 1), "item 7 has 2 inputs"),
        (lambda: (np.array(["a"]), 1), "item 7 has inputs of <U1; they must be numbers"),
    ],
)
def test_an_item_that_cannot_be_used_is_named(wrong: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        fetched(Broken(wrong))


def test_a_data_set_without_items_and_what_is_none_are_refused() -> None:
    with pytest.raises(BadInput, match="has no items"):
        fetched(TensorDataset(torch.zeros(0, 2), torch.zeros(0)))
    with pytest.raises(BadInput, match="a Dataset is no data set: it has neither items by number"):
        fetched(Dataset())


@pytest.mark.parametrize("given", [Stream(), DataLoader(Stream(), 16), (pair for pair in Stream())])
def test_an_iterable_data_set_is_read_once_and_shuffled_whole(given: Any) -> None:
    found, numbered = fetched(without_loader(given)), fetched(Pictures())
    np.testing.assert_array_equal(found.inputs, numbered.inputs)
    np.testing.assert_array_equal(found.target, numbered.target)
    assert "in the order in which the iterable data set yields them; trainings shuffle all of them" in found.notes[0]


def test_an_iterable_data_set_is_compared_like_one_with_numbers() -> None:
    found, numbered = (batchlab.compare(given, model=flat, strategies=["mini_batch"], **LITTLE) for given in (Stream(), Pictures()))
    np.testing.assert_array_equal(found.search.experiment.table.features, numbered.search.experiment.table.features)
    assert found.search.experiment.given_items is None
    assert sum("the iterable data set" in note for note in found.verdict.notes) == 1


@pytest.mark.parametrize(
    ("data", "plain", "said"),
    [
        (Cut(), None, "item 3 of the data set cannot be fetched: ConnectionError: the queue is closed"),
        (Vast(), None, r"1,099,511,627,776 items of shape \(16384,\) \(float32\) take 67108864.00 GiB on disk, .* GiB are free"),
        (Stream(), Pictures(), "plain goes with items that are fetched by their numbers"),
        (iter([]), None, "has no items"),
    ],
)
def test_a_data_set_that_cannot_be_read_is_refused_and_nothing_is_left(tmp_path: Path, data: Any, plain: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        fetched(data, plain=plain, scratch=tmp_path)
    assert not list(tmp_path.iterdir())


def test_items_that_are_too_wide_are_refused_at_the_first_one() -> None:
    with pytest.raises(BadInput, match=r"an item has 16,385 numbers \(1, 16385\); at most 16,384 can be columns of a table"):
        fetched([(np.zeros((1, 2**14 + 1)), 0), ("never looked at", 1)])


def test_items_need_not_fit_into_memory(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, check=True)
    taken, grown = map(int, done.stdout.split())
    assert taken == 2**29
    assert grown < 2**28
    assert not list(tmp_path.iterdir())


def test_parts_of_a_dict_are_taken_by_the_targets_key() -> None:
    class Parts(Pictures):
        def __getitem__(self, number: int) -> Any:
            picture, label = super().__getitem__(number)
            return {"label": label, "image": picture}

    assert fetched(Parts(), "label").inputs.shape == (200, 1, 8, 8)
    with pytest.raises(UnknownName, match="target 'labels' does not exist; did you mean 'label'"):
        fetched(Parts(), "labels")


def test_a_data_set_is_compared_like_the_arrays_that_it_holds() -> None:
    found = batchlab.compare(Pictures(), model=flat, strategies=["mini_batch"], **LITTLE)
    experiment, items = found.search.experiment, fetched(Pictures())
    assert experiment.model.row_shape == (1, 8, 8)
    np.testing.assert_array_equal(experiment.table.features, items.inputs.reshape(200, -1))
    assert [experiment.table.schema.target.classes[number] for number in experiment.table.target] == items.target.tolist()
    assert any("items were fetched once and written down" in note for note in found.verdict.notes)


def test_a_factory_of_a_data_set_is_a_source_at_the_command_line(tmp_path: Path) -> None:
    given = ["model.kind=custom", f"model.factory={HERE}:small", "model.shape=[1,8,8]"]
    settings = load_profile("quick", data=f"{HERE}:pictures", overrides=given)
    assert settings.source == DataSet(factory=f"{HERE}:pictures")
    table = pack(settings.source, settings.named_columns(), tmp_path)
    assert table.features.shape == (200, 64)
    assert table.schema.target.classes == tuple(f"digit {number}" for number in range(10))
    assert any("items were fetched once and written down" in note for note in table.notes())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (f"{HERE}:failing", "raised ValueError: no such folder"),
        ("no_such_module:pictures", "source.factory 'no_such_module:pictures' cannot be imported"),
        (f"{HERE}:pictues", "function in tests.test_items 'pictues' does not exist; did you mean 'pictures'"),
    ],
)
def test_a_factory_that_cannot_be_used_is_refused(tmp_path: Path, data: str, said: str) -> None:
    settings = load_profile("quick", data=data)
    with pytest.raises((BadInput, UnknownName), match=said):
        pack(settings.source, settings.named_columns(), tmp_path)


def test_a_profile_runs_no_data_sets_code_unless_its_user_says_so(tmp_path: Path) -> None:
    profile = tmp_path / "given.toml"
    profile.write_text(f'[source]\nkind = "dataset"\nfactory = "{HERE}:pictures"\n[strategies]\nmini_batch = {{}}\n')
    with pytest.raises(BadInput, match=r"runs code: source\.factory is"):
        load_profile(str(profile))
    assert load_profile(str(profile), overrides=[f"source.factory={HERE}:pictures"]).source == DataSet(factory=f"{HERE}:pictures")


def halved(items: list[tuple[torch.Tensor, str]]) -> tuple[torch.Tensor, list[str]]:
    return torch.stack([picture / 2 for picture, _ in items]), [label for _, label in items]


def padded(items: list[tuple[torch.Tensor, str]]) -> tuple[torch.Tensor, list[str]]:
    longest = max(int(picture.sum()) for picture, _ in items)
    return torch.stack([torch.full((longest,), 1.0) for _ in items]), [label for _, label in items]


def test_of_a_data_loader_its_data_set_is_taken_as_its_collate_function_makes_it() -> None:
    loaders = DataLoader(Pictures(), 16, shuffle=True), DataLoader(Pictures(), 16), DataLoader(Pictures(), batch_size=None)
    for loader in loaders:
        assert isinstance(without_loader(loader), Pictures)
    halves = fetched(without_loader(DataLoader(Pictures(), 16, collate_fn=halved)))
    np.testing.assert_array_equal(halves.inputs, fetched(Pictures()).inputs / 2)
    assert is_data_set(loaders[0])


def test_a_data_loaders_batch_size_is_not_taken_and_that_is_said() -> None:
    found = batchlab.compare(DataLoader(Pictures(), 16, shuffle=True), model=flat, strategies=["mini_batch"], **LITTLE)
    assert any("not its batch size (16): batch sizes are what is compared" in note for note in found.verdict.notes)


def test_a_missing_number_of_an_item_is_told_of_the_data_set() -> None:
    rows = torch.zeros(9, 1, 2)
    rows[4] = torch.nan
    with pytest.raises(BadInput, match="the data set's items hold 2 missing or infinite numbers in 1 of 9 rows, the first in row 4"):
        batchlab.compare(TensorDataset(rows, torch.arange(9)), model=small, progress=False)


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        (lambda: DataLoader(Pictures(), 16, sampler=WeightedRandomSampler([1.0] * 200, 200)), "WeightedRandomSampler decides which rows"),
        (lambda: DataLoader(Pictures(), 16, sampler=RandomSampler(Pictures(), replacement=True)), "RandomSampler decides which rows"),
        (lambda: DataLoader(Pictures(), batch_sampler=[[0, 1]]), "list decides which rows come"),
        (lambda: DataLoader(Pictures(), 16, collate_fn=padded), "does it pad to the longest"),
    ],
)
def test_a_data_loader_that_decides_about_rows_is_refused_by_name(loader: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        batchlab.compare(loader(), model=small, progress=False)


def test_a_list_of_pairs_is_a_data_set() -> None:
    pairs = [(torch.full((2,), float(number)), number % 3) for number in range(9)]
    assert is_data_set(pairs)
    assert fetched(pairs).inputs.shape == (9, 2)
    assert not is_data_set([[1.0, 2.0], [3.0, 4.0]])
