import math

import pytest
import torch
from torch.testing import assert_close

from model.losses import MutualInformation, pairwise_loss, softmax_loss, sum_per_group
from tests.reference.losses import mutual_information, pairwise


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_pairwise_loss_of_equal_scores_is_ln_2_each():
    assert_close(pairwise_loss(doubles(0, 3, -7), doubles(0, 3, -7)), doubles(*[math.log(2)] * 3))


def test_pairwise_loss_is_minus_log_sigmoid_of_the_difference():
    torch.manual_seed(0)
    users, positives, negatives = torch.randn(3, 20, 4, dtype=torch.float64)
    ours = pairwise_loss((users * positives).sum(-1), (users * negatives).sum(-1))
    assert_close(ours, torch.stack([pairwise(*row) for row in zip(users, positives, negatives, strict=True)]))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_pairwise_loss_of_extreme_differences_neither_saturates_nor_overflows(kind):
    positive = torch.tensor([1e4, -1e4, 0.0], dtype=kind, requires_grad=True)
    negative = torch.zeros(3, dtype=kind, requires_grad=True)
    losses = pairwise_loss(positive, negative)
    assert losses.tolist() == [0.0, 1e4, pytest.approx(math.log(2))]
    losses.sum().backward()
    # The derivative by s+ is -sigmoid(s- - s+).
    assert positive.grad.tolist() == [0.0, -1.0, -0.5]
    assert negative.grad.tolist() == [0.0, 1.0, 0.5]


def test_no_targets_have_no_loss():
    assert pairwise_loss(torch.zeros(0), torch.zeros(0)).sum() == 0


def test_sums_per_group_leave_empty_groups_at_zero():
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert sum_per_group(values, torch.tensor([3, 0, 3, 1]), 5).tolist() == [2, 8, 0, 1 + 4, 0]
    vectors = torch.stack([values, -values], 1)
    assert sum_per_group(vectors, torch.tensor([3, 0, 3, 1]), 5)[3].tolist() == [1 + 4, -1 - 4]


def test_sums_per_group_carry_gradients():
    values = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    (sum_per_group(values, torch.tensor([1, 0, 1]), 3) * torch.tensor([10.0, 100.0, 1000.0])).sum().backward()
    assert values.grad.tolist() == [100, 10, 100]


DIM = 4


def mutual(matrix):
    module = MutualInformation(DIM).double()
    with torch.no_grad():
        module.bilinear.copy_(matrix)
    return module


def one_domain(vectors):
    """[user, dim] -> [user, 1, dim]."""
    return vectors.unsqueeze(1)


@pytest.mark.parametrize("users", [2, 3, 7])
def test_equal_vectors_of_n_users_give_ln_n(users):
    vectors = one_domain(torch.ones(users, DIM, dtype=torch.float64))
    present = torch.ones(users, 1, dtype=torch.bool)
    matrix = torch.randn(DIM, DIM, dtype=torch.float64)
    assert_close(mutual(matrix)(vectors, vectors, present), doubles(math.log(users))[0])


def test_a_logit_of_ln_3_on_the_diagonal_of_four_users_gives_ln_2():
    """-log(3 / (3 + 1 + 1 + 1)) = ln 2; rho is divided by sqrt(dim), so W is sqrt(dim) ln 3 I."""
    vectors = one_domain(torch.eye(4, dtype=torch.float64))
    matrix = math.sqrt(DIM) * math.log(3) * torch.eye(4, dtype=torch.float64)
    assert_close(mutual(matrix)(vectors, vectors, torch.ones(4, 1, dtype=torch.bool)), doubles(math.log(2))[0])


def test_a_single_user_has_no_negatives_and_gives_zero_with_finite_gradients():
    vectors = torch.randn(1, 2, DIM, dtype=torch.float64, requires_grad=True)
    module = mutual(torch.eye(DIM))
    loss = module(vectors, vectors, torch.tensor([[True, False]]))
    loss.backward()
    assert loss == 0
    assert (vectors.grad == 0).all()
    assert (module.bilinear.grad == 0).all()


@pytest.fixture
def batch():
    """Five users, four domains: all users, two of them, one, none."""
    generator = torch.Generator().manual_seed(3)
    single, cross = torch.randn(2, 5, 4, DIM, generator=generator, dtype=torch.float64)
    present = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    matrix = torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)
    return single, cross, present, matrix


def test_it_agrees_with_the_slow_formula_on_domains_with_all_two_one_and_no_users(batch):
    single, cross, present, matrix = batch
    named = [
        {d: {u: vectors[u, d] for u in range(5) if present[u, d]} for d in range(4)} for vectors in (single, cross)
    ]
    assert_close(mutual(matrix)(single, cross, present), mutual_information(*named, matrix, DIM))


def test_vectors_of_absent_users_are_never_read(batch):
    single, cross, present, matrix = batch
    dirty = [torch.where(present[..., None], vectors, 1e3) for vectors in (single, cross)]
    assert_close(mutual(matrix)(*dirty, present), mutual(matrix)(single, cross, present))


def test_it_gives_no_nan_and_gradients_to_present_users_of_both_tasks_only(batch):
    single, cross, present, matrix = batch
    single.requires_grad_(), cross.requires_grad_()
    module = mutual(matrix)
    loss = module(single, cross, present)
    loss.backward()
    counted = present & (present.sum(0) >= 2)
    for vectors in (single, cross):
        assert vectors.grad.isfinite().all()
        assert (vectors.grad[counted].abs().sum(-1) > 0).all()
        assert (vectors.grad[~counted] == 0).all()
    assert module.bilinear.grad.abs().min() > 0


def test_the_same_permutation_of_both_sides_changes_nothing(batch):
    single, cross, present, matrix = batch
    order = torch.tensor([3, 0, 4, 1, 2])
    assert_close(mutual(matrix)(single[order], cross[order], present[order]), mutual(matrix)(single, cross, present))


def test_a_permutation_of_one_side_makes_it_larger():
    """With vectors that belong together, every other pairing is worse."""
    generator = torch.Generator().manual_seed(0)
    single = one_domain(torch.randn(6, DIM, generator=generator, dtype=torch.float64))
    present, module = torch.ones(6, 1, dtype=torch.bool), mutual(3 * torch.eye(DIM))
    paired = module(single, single, present)
    for shift in range(1, 6):
        assert module(single, single.roll(shift, 0), present) > paired
        assert module(single.roll(shift, 0), single, present) > paired


def test_the_parts_of_several_processes_add_up_to_the_whole(batch):
    single, cross, present, matrix = batch
    whole = mutual(matrix)(single, cross, present)
    for ranks in (2, 3, 6):
        parts = [slice(rank, None, ranks) for rank in range(ranks)]
        assert_close(sum(mutual(matrix)(single, cross[own], present, own) for own in parts), whole)


def test_the_similarity_is_directed_from_cdsr_to_sdsr():
    """Negatives are other users' SDSR vectors: softmax runs over those."""
    single, cross = torch.randn(2, 3, 1, DIM, dtype=torch.float64)
    matrix = torch.randn(DIM, DIM, dtype=torch.float64)
    present = torch.ones(3, 1, dtype=torch.bool)
    logits = single[:, 0] @ matrix @ cross[:, 0].T / math.sqrt(DIM)  # [single, cross]
    assert_close(mutual(matrix)(single, cross, present), -logits.log_softmax(0).diagonal().mean())


def test_softmax_loss_with_all_items_drawn_is_the_exact_cross_entropy():
    torch.manual_seed(0)
    states, vectors = torch.randn(7, 4, dtype=torch.float64), torch.randn(12, 4, dtype=torch.float64)
    target = torch.tensor([3, 4, 5, 6, 7, 8, 3])  # of the domain of items 3 to 8
    exact = torch.nn.functional.cross_entropy(states @ vectors[3:9].T, target - 3, reduction="none")
    shuffled = torch.tensor([8, 3, 6, 5, 4, 7])
    assert_close(softmax_loss(states, vectors, target, shuffled, 6), exact)


def test_softmax_loss_estimates_the_normaliser_without_bias():
    """The mean of exp(loss) = normaliser / exp(own score) over all draws is that of the whole domain."""
    torch.manual_seed(1)
    state, vectors = torch.randn(1, 4, dtype=torch.float64), torch.randn(12, 4, dtype=torch.float64)
    target = torch.tensor([4])
    draws = torch.combinations(torch.arange(3, 9), 3)
    estimates = torch.cat([softmax_loss(state, vectors, target, drawn, 6).exp() for drawn in draws])
    assert_close(estimates.mean(), softmax_loss(state, vectors, target, torch.arange(3, 9), 6).exp()[0])


def test_softmax_loss_stays_finite_with_huge_scores_one_item_and_only_the_target_drawn():
    vectors = doubles([0, 0], [100, 0], [-100, 0], [0, 0]).requires_grad_()
    states = doubles([100, 0], [100, 0])
    loss = softmax_loss(states, vectors, torch.tensor([1, 2]), torch.tensor([1, 2]), 2)
    assert_close(loss, doubles(0, 2e4))
    loss.sum().backward()
    assert vectors.grad.isfinite().all()
    assert_close(softmax_loss(states[:1], vectors, torch.tensor([1]), torch.tensor([1]), 1), doubles(0))
