"""Training again on newer events, without a validation part: as an earlier run chose on an earlier cut of the data.

What a model misses most are the newest events. Validation needs them to choose epochs and weights; once both are chosen, the
events of validation are better trained on, as in production, where nobody knows the test.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from training.baselines.config import PerDomainConfig
from training.checkpoint import read_checkpoint
from training.config import LoopConfig, RunConfig
from training.mixture import MIXTURE
from training.run import BEST, read_run


def config_like(former: Path) -> RunConfig:
    """The config of a finished run, with the number of epochs that its validation chose.

    Raises:
        WorkFailed: no run, or no checkpoint yet.
    """
    config = read_run(former).config
    _, notes = read_checkpoint(former / BEST)
    if isinstance(config, PerDomainConfig):
        return replace(config, domain_epochs=",".join(map(str, notes["epoch"].values())))
    if not isinstance(config, LoopConfig):
        return config
    return replace(config, epochs=notes["epoch"])


def copy_mixture(former: Path, run: Path) -> None:
    """Take over the weights of the mixture, if the former run has any."""
    if (former / MIXTURE).exists():
        shutil.copyfile(former / MIXTURE, run / MIXTURE)
