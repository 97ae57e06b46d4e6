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


@pytest.fixture
def there(monkeypatch):
    """A generator that is taken for the GPU's."""
    generator = torch.Generator().manual_seed(1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", generator.get_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", generator.set_state)
    return generator


def test_what_is_random_on_a_gpu_goes_on_too(there):
    loader = shuffled()
    order = iter(loader)
    drawn = [torch.rand((), generator=there) for _ in zip(range(3), order)]
    state = loader.state_dict()
    rest = [float(torch.rand((), generator=there)) for _ in order]
    resumed = shuffled()
    resumed.load_state_dict(state)
    assert [float(torch.rand((), generator=there)) for _ in resumed] == rest
    after = [float(torch.rand((), generator=there)) for _ in resumed]
    assert len(drawn) + len(rest) == len(after) == 7
    assert not set(after) & set(rest)  # the state is taken once


def test_a_training_on_a_gpu_goes_on_without_one(there, monkeypatch):
    state = shuffled().state_dict()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "set_rng_state", None)
    resumed = shuffled()
    resumed.load_state_dict(state)
    assert len(list(resumed)) == 7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: its generator is NOT tested")
def test_the_generator_of_a_gpu_goes_on():
    torch.cuda.manual_seed(0)
    loader = shuffled()
    next(iter(loader))
    torch.rand(5, device="cuda")
    state = loader.state_dict()
    rest = torch.rand(5, device="cuda")
    resumed = shuffled()
    resumed.load_state_dict(state)
    next(iter(resumed))
    assert torch.equal(torch.rand(5, device="cuda"), rest)


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


def test_a_second_training_on_a_data_module_begins_at_the_first_sample():
    class Module(ResumableDataModule):
        def train_dataloader(self):
            return self.resumable(DATA, DistributedSampler(DATA, 1, 0, seed=3))

    data = Module()
    order = iter(data.train_dataloader())
    next(order)
    resumed = Module()
    resumed.load_state_dict(data.state_dict())
    assert len(list(resumed.train_dataloader())) == 6
    resumed.teardown("validate")
    assert len(list(resumed.train_dataloader())) == 6
    resumed.teardown("fit")
    assert len(list(resumed.train_dataloader())) == 7
