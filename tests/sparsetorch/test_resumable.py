import pytest
import torch
from torch.utils.data import Dataset, DistributedSampler

from sparsetorch.resumable import ResumableLoader
from sparsetorch.resumable.lightning import ResumableDataModule


class Draws(Dataset[float]):
    """Numbers that random ones are added to."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return index + float(torch.rand(()))


DATA = Draws()


def shuffled():
    return ResumableLoader(DATA, DistributedSampler(DATA, 1, 0, seed=3))


@pytest.mark.parametrize("done", [0, 1, 6, 7])
def test_the_rest_of_an_epoch_is_what_it_would_have_been(done):
    torch.manual_seed(0)
    loader = shuffled()
    order = iter(loader)
    for _ in range(done):
        next(order)
    state = loader.state_dict()
    rest = list(order) or list(loader)  # behind the last one comes the next epoch
    torch.manual_seed(5)
    resumed = shuffled()
    resumed.load_state_dict(state)
    assert list(resumed) == rest
    assert len(list(resumed)) == len(resumed) == 7  # and then whole epochs


def test_an_epoch_that_is_not_finished_does_not_shorten_the_next():
    loader = ResumableLoader(DATA, range(7))
    next(iter(loader))
    assert [int(x) for x in loader] == list(range(7))


def test_each_epoch_has_an_order_of_its_own():
    sampler = DistributedSampler(DATA, 1, 0)
    loader = ResumableLoader(DATA, sampler)
    first = [int(x) for x in loader]
    sampler.set_epoch(1)
    assert first != [int(x) for x in loader]


def test_a_data_module_goes_on():
    module = ResumableDataModule()
    assert module.state_dict() == {"loader": None}
    order = iter(module.resumable(DATA, range(7)))
    for _ in range(3):
        next(order)
    other = ResumableDataModule()
    state = module.state_dict()
    other.load_state_dict(state)
    assert other.state_dict() == state  # before there is a loader
    assert [int(x) for x in other.resumable(DATA, range(7))] == [3, 4, 5, 6]
