"""A CPU in place of a GPU: sessions that say they run on CUDA, and notice what a CUDA graph would not forgive."""

import threading
from contextlib import contextmanager

from service.ranking import gpu_session
from service.ranking.session import CPU, new_session


class Refused(Exception):
    """What ONNX Runtime raises has no common base either."""


class StandIn:
    """An InferenceSession on the CPU. runs: (graph number, thread) of each bound run."""

    def __init__(self, model, name, threads, providers, breaks):
        self.options = providers
        self.runs, self.unbound_runs = [], 0
        self._breaks, self._binding_of = breaks, {}
        self._session = new_session(model, name, threads, {CPU: {}})

    def get_providers(self):
        return list(self.options)

    def io_binding(self):
        return self._session.io_binding()

    def run(self, outputs, feed, options):
        assert options.get_run_config_entry("gpu_graph_id") == "-1"
        self.unbound_runs += 1
        return self._session.run(outputs, feed, options)

    def run_with_iobinding(self, binding, options):
        number = options.get_run_config_entry("gpu_graph_id")
        self.runs.append((number, threading.get_ident()))
        if self._breaks(self):
            raise Refused("CUDA failure 900: operation not permitted\nwhen stream is capturing")
        if number != "-1":
            # A replay knows the addresses of the recording alone.
            assert self._binding_of.setdefault(number, binding) is binding
        self._session.run_with_iobinding(binding, options)


@contextmanager
def cuda_here(monkeypatch, breaks=lambda session: False, refuses=lambda providers: False, missing=()):
    """A machine with CUDA and TensorRT, as far as `gpu_session` sees.

    breaks: whether a session's bound run fails. refuses: whether a session cannot be made. missing: providers that do not work.
    """
    made = []

    def new(model, name, threads, providers):
        if refuses(providers):
            raise Refused("the graph capture feature\ncannot be used")
        working = {provider: given for provider, given in providers.items() if provider not in missing}
        made.append(StandIn(model, name, threads, working, breaks))
        return made[-1]

    with monkeypatch.context() as patched:
        patched.setattr(gpu_session, "new_session", new)
        patched.setattr(gpu_session, "DEVICE", "cpu")
        yield made
