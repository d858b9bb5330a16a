"""Many questions at once: Holm's step-down procedure, by tea-tasting."""

from collections.abc import Mapping

from tea_tasting.experiment import ExperimentResult
from tea_tasting.multiplicity import adjust_fwer


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values by name: any of them below 5 % by chance in at most 5 % of experiments, however they depend."""
    if not p:
        return {}
    results = {"all": ExperimentResult({name: {"pvalue": value} for name, value in p.items()})}
    # Its default is Hochberg, which is valid only where the tests do not depend on each other the wrong way.
    found = adjust_fwer(results, arbitrary_dependence=True, method="bonferroni")["all"]
    return {name: float(found[name]["pvalue_adj"]) for name in p}
