import pytest

from formats.errors import WrongUse
from training.baselines.config import SASRecConfig
from training.configured import configured
from training.methods import PRESETS


def test_the_original_sasrec_has_one_negative_and_the_other_a_softmax():
    assert (PRESETS["sasrec"]().loss, PRESETS["sasrec"]().candidates) == ("bce", 0)
    assert PRESETS["sasrec-ss"]().loss == "softmax"
    assert PRESETS["sasrec-ss"]().candidates > 0


@pytest.mark.parametrize(
    ("preset", "words", "field"),
    [
        ("sasrec-ss", ["candidates=0"], "candidates"),
        ("sasrec", ["candidates=10"], "candidates"),
        ("sasrec-ss", ["loss=bce"], "candidates"),
        ("sasrec-ss", ["loss=hinge"], "loss"),
        ("sasrec-ss", ["epochs=0"], "epochs"),
        ("sasrec-static", ["exponent=inf"], "exponent"),
        ("sasrec-famo", ["weight_rate=0"], "weight_rate"),
        ("sasrec-famo", ["weight_decay=-1"], "weight_decay"),
        ("sasrec-shapley", ["every_steps=0"], "every_steps"),
        ("sasrec-shapley", ["temperature=0"], "temperature"),
        ("bert4rec", ["mask_share=0"], "mask_share"),
        ("bert4rec", ["mask_share=1"], "mask_share"),
        ("mmoe", ["experts=0"], "experts"),
        ("mmoe", ["candidates=0"], "candidates"),
        ("ple", ["shared_experts=0"], "shared_experts"),
        ("ple", ["domain_experts=0"], "domain_experts"),
    ],
)
def test_a_value_without_sense_is_refused_by_name(preset, words, field):
    with pytest.raises(WrongUse, match=f"^{field}:"):
        configured(PRESETS[preset](), None, words)


@pytest.mark.parametrize("change", [{"heads": 3}, {"dropout": 1.0}])
def test_sizes_that_contradict_each_other_are_refused_by_name(change):
    (field,) = change
    with pytest.raises(WrongUse, match=f"^{field}:"):
        SASRecConfig(**change).network((3, 4))
