"""The parser, --debug and the exit codes. Subcommands are imported only when they are called."""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from formats.errors import WorkFailed, WrongUse
from syncrec import __version__

# Subcommand -> (module with add_arguments(parser) and run(arguments), its line in --help)
COMMANDS = {
    "demo": ("syncrec.demo", "the whole path on one machine: sample -> train -> export -> serve -> ask"),
    "prepare": ("syncrec.prepare", "raw events -> encoded dataset, with what was kept, what was dropped and why"),
    "train": ("syncrec.train", "dataset -> run: trains SyNCRec with early stopping on validation"),
    "evaluate": ("syncrec.evaluate", "run -> HR, NDCG, MRR per domain and the negative-transfer table"),
    "compare": ("syncrec.compare", "runs -> paired differences with intervals, and what the test could see"),
    "study": ("syncrec.study", "studies of runs and datasets; audit: is the quality of a run real?"),
    "export": ("syncrec.export", "run -> bundle: ONNX graph, items, model card; checked against the checkpoint"),
    "serve": ("syncrec.serve", "the HTTP service"),
    "api-key": ("syncrec.api_key", "makes a key for the service, and the hash of it that the settings hold"),
    "load-histories": ("syncrec.load_histories", "bulk-loads user histories into Redis"),
    "events": ("syncrec.events", "event log of the service -> Parquet by day; erases users from it"),
    "generate": ("syncrec.generate", "synthetic events of several domains with known truth: relatedness, Bayes NLL"),
    "experiment": ("syncrec.experiment", "A/B tests: plan one, report on one, simulate one with known truth"),
    "bench": ("syncrec.bench", "benchmarks: one table, and JSON"),
}

EXTRAS = {
    "demo": "demo,cpu",
    "train": "train,cpu",
    "evaluate": "train,cpu",
    "compare": "train,cpu",
    "study": "train,cpu",
    "export": "train,cpu",
    "serve": "serve,cpu",
    "load-histories": "serve",
    "events": "serve,experiments",
    "experiment": "serve,experiments",
}


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, instead of the whole usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help explains\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns 0 on success, 1 when the work failed, 2 on wrong use."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["--version"]:
        print(f"syncrec {__version__}")
        return 0
    if not argv or argv[0] in {"-h", "--help"}:
        print(_overview())
        return 0 if argv else 2
    name = argv[0]
    if name not in COMMANDS:
        print(f"syncrec: unknown command '{name}'; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    try:
        return run_command(name, argv[1:])
    except WorkFailed as error:
        if debug:
            traceback.print_exc()
        print(f"syncrec {name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, WrongUse) else 1
    except BrokenPipeError:
        # Whoever read our output has enough of it (`| head`). Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"syncrec {name}: stopped", file=sys.stderr)
        return 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        print(f"syncrec {name}: {_describe(error)}", file=sys.stderr)
        return 1


def run_command(name: str, argv: list[str]) -> int:
    """Run one subcommand; its errors are raised."""
    # Before torch is loaded. By default its idle threads spin, and on a machine that does something else too each step then
    # waits for threads that wait: 1,000 instead of 6,000 events/s beside two busy programs on two cores. Alone on them,
    # not spinning costs a quarter (9,400 instead of 12,800); who trains alone sets OMP_WAIT_POLICY=ACTIVE.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        module = importlib.import_module(COMMANDS[name][0])
        parser = _Parser(
            prog=f"syncrec {name}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="--debug shows the traceback of an error.",
        )
        module.add_arguments(parser)
        arguments = parser.parse_args(argv)
        return int(module.run(arguments))
    except ModuleNotFoundError as error:
        # A serving image has no torch and a training one no FastAPI: say which extra is missing.
        missing = (error.name or "").split(".")[0]
        if name not in EXTRAS or missing in {"", "formats", "model", "training", "service", "syncrec"}:
            raise
        raise WorkFailed(f"needs {missing}, which is not installed: pip install 'syncrec[{EXTRAS[name]}]'") from error


def _overview() -> str:
    lines = ["usage: syncrec COMMAND [ARGS]", ""]
    lines += [f"  {name:<16}{line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join([*lines, "", "syncrec COMMAND --help explains one, with an example; --debug shows tracebacks."])


def _describe(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
