"""One of several processes that train together; started by tests/training/test_processes.py with the variables of torchrun.

    python -m tests.reference.two_ranks JOBS.json

Does one job after the other, in float64 and through the real loop. A job is {dataset, run, config, stop}: `stop` interrupts
rank 0, and only that one, after so many steps; an existing checkpoint is continued. Prints how each job ended.
"""

import json
import signal
import sys
from pathlib import Path

import torch.distributed as dist

from training.dataset import open_dataset
from training.loop import Training
from training.methods import from_json
from training.processes import Processes, joined_processes
from training.run import LAST


def train_here(job: dict, processes: Processes) -> str:
    """Do one job; returns "finished" or "interrupted"."""
    steps = 0

    def report(now):
        nonlocal steps
        steps += now.score is None
        if steps == job.get("stop") and processes.rank == 0:
            signal.raise_signal(signal.SIGINT)

    path = Path(job["run"])
    training = Training(open_dataset(Path(job["dataset"])), from_json(job["config"], "job"), path, processes, report)
    training.objective.double()
    if (path / LAST).exists():
        training.resume()
    try:
        training.train()
    except KeyboardInterrupt:
        return "interrupted"
    return "finished"


if __name__ == "__main__":
    with joined_processes() as joined:
        for one in json.loads(Path(sys.argv[1]).read_text()):
            print(train_here(one, joined), flush=True)
            # The next job may continue this one: no rank may look for the checkpoint before rank 0 has written it.
            if joined.ranks > 1:
                dist.barrier()
