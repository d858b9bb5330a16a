"""What `syncrec bench gpu` measures, with a CPU in a GPU's place."""

import json

import numpy as np
import pytest

from formats.bundle import newest_bundle
from formats.errors import WorkFailed
from service import bench_gpu
from service.bench_gpu import Card, card_of, find_card, floors, measure_gpu
from service.ranking import bound_session
from service.ranking.buckets import ROWS
from service.ranking.session import TENSORRT
from service.settings import Settings
from syncrec.cli import main
from tests.service.ranking.gpu_stand_in import cuda_here


def test_without_a_gpu_it_says_so_in_one_line(models, capsys):
    if find_card() is not None:
        pytest.skip("there is a GPU")
    assert main(["bench", "gpu", "--models", str(models)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert "no GPU to measure; --provider cpu" in told.err


def test_the_cpu_alone_is_measured_per_bucket(models, tmp_path, capsys):
    file = tmp_path / "gpu.json"
    command = ["bench", "gpu", "--models", str(models), "--provider", "cpu", "--seconds", "0.01", "--json", str(file)]
    assert main(command) == 0
    result = json.loads(file.read_text())
    assert result["benchmark"] == "gpu"
    assert (result["card"], result["floors"]) == (None, [])
    plain, bound = result["ways"]
    for way in (plain, bound):
        assert [one["rows"] for one in way["times"]] == list(ROWS)
        for one in way["times"]:
            assert one["users_per_s"] == pytest.approx(one["rows"] / one["p50_ms"] * 1000)
            assert one["p50_ms"] <= one["p99_ms"]
            assert one["runs"] >= 10
    assert bound["agreement"]["differing"] == 0
    assert bound["agreement"]["lists"] == 3 * (bench_gpu.RANDOM_HISTORIES + 4)  # domains; recorded requests
    printed = capsys.readouterr().out
    assert "CPU, fixed buffers" in printed


def test_every_way_is_measured_and_one_that_fails_says_why(monkeypatch, models):
    with cuda_here(monkeypatch, missing={TENSORRT}):
        measured = measure_gpu(newest_bundle(models), "gpu", Settings(), 0.001, lambda _: None)
    by_name = {way.name: way for way in measured.ways}
    assert list(by_name) == [
        "CPU",
        "CUDA with CUDA graphs",
        "CUDA without CUDA graphs",
        "TensorRT in half precision",
        "TensorRT in single precision",
    ]
    for name in list(by_name)[1:3]:
        assert by_name[name].problem is None
        assert by_name[name].agreement.differing == 0
        assert by_name[name].load_s > 0
    for name in list(by_name)[3:]:
        assert "does not work here" in by_name[name].problem
        assert by_name[name].times == ()
    assert measured.differing == []


def test_other_answers_than_the_cpu_s_fail_the_command(monkeypatch, models, capsys):
    run = bound_session.BoundSession.run

    def wrong(session, batch):
        scores, item_index = run(session, batch)
        if len(batch.history) == 3:  # an error of one size of batch
            item_index[1, 0, :2] = item_index[1, 0, 1::-1]
            scores[1, 0, 0] += 1
        return scores, item_index

    monkeypatch.setattr(bound_session.BoundSession, "run", wrong)
    monkeypatch.setattr(bench_gpu, "RANDOM_HISTORIES", 17)  # and 4 recorded: batches of 1 to 6
    command = ["bench", "gpu", "--models", str(models), "--provider", "cpu", "--seconds", "0.001", "--json", "-"]
    assert main(command) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["ways"][1]["agreement"]["differing"] > 0  # what was measured is written all the same
    assert "not the CPU's answers: CPU, fixed buffers: 1 of " in told.err


def test_floors_are_the_formulas_of_the_module():
    (one, *_, sixty_four) = floors(Card("x", 1000.0, 10.0), graph_bytes=10**9, items=10**6, dim=64)
    assert one.memory_ms == pytest.approx((1e9 + 8e6) / 1e12 * 1000)
    assert sixty_four.memory_ms == pytest.approx((1e9 + 64 * 8e6) / 1e12 * 1000)
    assert sixty_four.arithmetic_ms == pytest.approx(2 * 64 * 1e6 * 64 / 1e13 * 1000)
    assert floors(Card("unheard of", None, None), 1, 1, 1) == ()


@pytest.mark.parametrize(
    ("name", "bandwidth"),
    [
        ("NVIDIA H100 80GB HBM3", 3350),
        ("NVIDIA H100 PCIe", 2000),
        ("NVIDIA H200", 4800),
        ("NVIDIA A100-SXM4-40GB", 1555),
        ("NVIDIA A100 80GB PCIe", 1935),
        ("NVIDIA A10G", 600),
        ("NVIDIA L40S", 864),
        ("NVIDIA L4", 300),
        ("Tesla T4", 320),
        ("GeForce GT 710", None),
    ],
)
def test_a_card_is_found_by_the_name_its_driver_gives(name, bandwidth):
    assert card_of(name).bandwidth_gb_s == bandwidth


def test_a_driver_that_does_not_answer_is_told(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed' >&2; exit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(WorkFailed, match="does not name a card: NVIDIA-SMI has failed"):
        find_card()
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3'\n")
    assert find_card() == Card("NVIDIA H100 80GB HBM3", 3350.0, 67.0)


def test_batches_of_all_sizes_are_compared(models):
    bench = bench_gpu._Bench(newest_bundle(models), Settings(), 0.001)
    sizes = []

    class Noted:
        def run(self, batch):
            sizes.append(len(batch.history))
            return bench._plain.run(batch)

    bench._lists(Noted())
    assert sum(sizes) == bench_gpu.RANDOM_HISTORIES + 4
    assert sizes[:-1] == list(range(1, len(sizes)))
    assert np.max(sizes) > 16
