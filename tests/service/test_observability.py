"""docs/observability.md against the service: what it names exists, and what exists is in it."""

import logging
import re
from contextvars import copy_context
from pathlib import Path

import orjson
import pytest

from service import logs
from service.http.fast import _SERVER_TIMING
from service.metrics import STAGES, Metrics
from service.spans import STAGES as SPANS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/observability.md").read_text()


def rows(heading):
    """The cells of the first table under a heading, without its head."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def named(cell):
    return set(re.findall(r"`([\w.]+)`", cell))


def exported():
    """Every metric as Prometheus names it, with its labels."""
    return {
        collector._name + ("_total" if collector._type == "counter" else ""): set(collector._labelnames)
        for collector in Metrics().registry._collector_to_names
    }


def test_the_page_has_every_metric_with_its_labels_and_no_other():
    documented = {min(named(name)): named(labels) for name, labels, *_ in rows("Metrics")}
    assert documented == exported()


def test_alerts_and_text_name_metrics_and_labels_that_exist():
    known = exported()
    for name, labels in re.findall(r"\b(syncrec_\w+)(?:{([^}]*)})?", PAGE):
        base = name if name in known else re.sub(r"_(bucket|sum|count)$", "", name)
        assert base in known
        assert set(re.findall(r"(\w+)=~?\"", labels)) <= known[base]


def test_the_page_has_every_field_of_a_log_line():
    def line():
        logs.request_id.set("r")
        logs.trace_ids.set(("t", "s"))
        failed = (ValueError, ValueError("x"), None)
        return logs.JsonFormatter().format(logging.LogRecord("x", logging.ERROR, "x", 1, "x", (), failed))

    fields = set(orjson.loads(copy_context().run(line)))
    extras = {
        field
        for file in (ROOT / "service").rglob("*.py")
        for given in re.findall(r"(?<!_)extra=\{([^}]*)\}", file.read_text())
        for field in re.findall(r'"(\w+)":', given)
    }
    documented = set().union(*(named(name) for name, *_ in rows("Log lines")))
    assert "lines_held_back" in extras
    assert fields | extras <= documented


@pytest.mark.parametrize("stage", STAGES)
def test_stages_have_one_name_in_metrics_headers_and_spans(stage):
    assert stage.encode() in _SERVER_TIMING
    assert f"{stage};dur=" in PAGE
    assert stage in (*SPANS, "rest")


def test_the_page_has_every_attribute_of_a_span_and_no_other():
    source = (ROOT / "service/spans.py").read_text()
    made = set(re.findall(r'"((?:http|url|server|network|error|syncrec)\.[\w.]+)"', source)) - {"syncrec.service"}
    traces = PAGE.split("\n## Traces\n")[1]
    documented = {name for name in named(traces) if re.match(r"(http|url|server|network|error|syncrec)\.", name)}
    assert documented - {"url.path"} == made
