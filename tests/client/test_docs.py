"""The examples of docs/client.md run, against a service of a few lines."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"


def test_there_are_examples():
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(fake, example):
    assert ADDRESS in example
    code = example.replace(ADDRESS, fake.url).replace("…", "k")
    exec(compile(code, "docs/client.md", "exec"), {"__name__": "example"})
    assert fake.fake.asked
    assert all(fake.fake.usual(one).status < 300 for one in fake.fake.asked)


def test_every_error_is_explained():
    from syncrec.client import ClientError, Refused, errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ClientError)]
    assert len(kinds) > 8
    for kind in kinds:
        assert f"`{kind.__name__}`" in TEXT, kind
    assert Refused in kinds


def test_every_setting_it_names_exists():
    from service.settings import Settings

    for name in re.findall(r"`SYNCREC_(\w+)`", TEXT):
        assert name.lower() in Settings.model_fields
