import torch

from graphnets.matching.embedding import NodeEmbedding


def test_vectors_are_there_from_the_start():
    torch.manual_seed(0)
    x = torch.randn(5, 3 + 4)
    wide, narrow = NodeEmbedding(3, 4, 6)(x), NodeEmbedding(3, 4, 2)(x)
    assert torch.equal(wide[:, :4], x[:, 3:])
    assert not bool(wide[:, 4:].any())
    assert torch.equal(narrow, x[:, 3:5])


def test_without_vectors_it_is_an_mlp():
    torch.manual_seed(0)
    embed = NodeEmbedding(3, 0, 6)
    assert embed.vectors is None
    x = torch.randn(5, 3)
    assert torch.equal(embed(x), embed.other(x))
    assert bool(embed(x).any())


def test_every_weight_learns():
    torch.manual_seed(0)
    embed = NodeEmbedding(3, 4, 6)
    optimizer = torch.optim.SGD(embed.parameters(), 0.1)
    before = [p.detach().clone() for p in embed.parameters()]
    for _ in range(3):
        embed(torch.randn(5, 7)).square().sum().backward()
        optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(embed.parameters(), before))
