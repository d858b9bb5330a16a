"""`syncrec bench experiment`: its log is one that a report can be made of, and every step is measured."""

import json
from datetime import timedelta

from service.experiments.evidence import report_of
from syncrec import bench_experiment
from syncrec.bench_experiment import START, TARGET_EVENTS, measure
from syncrec.cli import main


def test_every_step_is_measured_in_a_process_of_its_own(tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert main(["bench", "experiment", "--events", "200000", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result["events"] == 200_000
    assert [step["target_s"] for step in result["steps"]] == [None, 45.0, 10.0, None, 5.0]
    # A Python with DuckDB loaded takes more than 30 MB and, on so few rows, less than 3 GB: the unit is right.
    assert all(30e6 < step["peak_rss_bytes"] < 3e9 and step["seconds"] > 0 for step in result["steps"])
    printed = capsys.readouterr().out
    assert "200,000 impressions" in printed
    assert f"target at {TARGET_EVENTS:,}" in printed


def test_the_log_is_an_experiment_without_faults_of_as_many_impressions_as_were_asked_for(tmp_path):
    measure(tmp_path, 140_000)
    report = report_of(tmp_path, bench_experiment._experiment(), START + timedelta(days=17))
    # 14 days and the one more.
    assert sum(arm.impressions for arm in report.arms) == 150_000
    assert 1300 < sum(arm.users for arm in report.arms) <= 1400
    for arm, rate in zip(report.arms, (0.05, 0.053), strict=True):
        assert abs(arm.clicks / arm.impressions / rate - 1) < 0.1
    assert report.findings == ()


def test_too_few_events_are_wrong_use(capsys):
    assert main(["bench", "experiment", "--events", "100"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
