"""Several models live at once, as experiments need them."""

import asyncio
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest

from service.errors import UnknownModel
from service.metrics import Metrics
from service.models.models import Models
from service.models.registry import Registry
from service.ranking.catalog import NO_ITEMS
from service.ranking.item_states import ItemStateStore
from service.ranking.live_popularity import LivePopularity
from service.ranking.query import Query
from service.redis_client.client import open_redis
from service.settings import Settings
from tests.service.models_folder import add_bundle, damage
from tests.service.small_bundle import DOMAINS, reference_list


@pytest.fixture
def folder(tmp_path):
    for number in (1, 2, 3):
        add_bundle(tmp_path, number)
    return tmp_path


@asynccontextmanager
async def models_of(folder, url):
    async with open_redis(url, timeout_ms=5000, connections=2) as redis:
        settings = Settings(models_dir=folder, providers="cpu")
        models = Models(settings, Registry(redis), LivePopularity(redis, 7.0), ItemStateStore(redis), Metrics())
        await models.start()
        try:
            yield models
        finally:
            await models.close()


async def best_of(models, version=None):
    """The first book that a model answers to a history."""
    history = np.array([5, 50], dtype=np.int32)
    with models.used(version) as model:
        query = Query(history, history, (False,) * len(DOMAINS), NO_ITEMS, 1)
        ran = await model.ranker.rank(query, time.monotonic() + 10)
        return model.catalog.item_ids[ran.answer[0].item_index[0]]


def wanted(number):
    return reference_list([5, 50], "Books", 1, {"B4"}, seed=number)[0][0]


def live(states):
    return {state.version for state in states if state.is_live}


async def test_each_of_several_live_models_gives_its_own_answers(folder, redis_url):
    async with models_of(folder, redis_url) as models:
        await models.keep({"model-1", "model-2"})
        assert live(await models.report()) == {"model-1", "model-2", "model-3"}
        for _ in range(3):
            for number in (1, 2, 3):
                assert await best_of(models, f"model-{number}") == wanted(number)
        assert await best_of(models) == wanted(3)


async def test_what_is_kept_no_longer_is_closed_unless_it_serves(folder, redis_url):
    async with models_of(folder, redis_url) as models:
        await models.keep({"model-1", "model-3"})
        await models.activate("model-1")
        assert live(await models.report()) == {"model-1", "model-3"}
        await models.keep(())
        assert live(await models.report()) == {"model-1"}
        with pytest.raises(UnknownModel), models.used("model-3"):
            pass
        assert await best_of(models) == wanted(1)


async def test_a_kept_model_that_is_activated_is_not_loaded_again_and_the_old_one_goes(folder, redis_url):
    async with models_of(folder, redis_url) as models:
        await models.keep({"model-1"})
        with models.used("model-1") as before:
            await models.activate("model-1")
            with models.used() as now:
                assert now is before
        assert live(await models.report()) == {"model-1"}
        await models.roll_back()
        assert live(await models.report()) == {"model-1", "model-3"}


async def test_a_model_that_cannot_be_kept_leaves_the_others_and_says_so(folder, redis_url, caplog):
    damage(folder, "model-1")
    async with models_of(folder, redis_url) as models:
        await models.keep({"model-1", "model-2", "gone"})
        assert live(await models.report()) == {"model-2", "model-3"}
        assert "no bundle 'gone'" in caplog.text
        assert "ranker.onnx" in caplog.text
        lines = len(caplog.records)
        await models.keep({"model-1", "model-2", "gone"})  # not tried again at once
        assert len(caplog.records) == lines


async def test_a_model_in_use_is_kept_until_it_is_used_no_more(folder, redis_url):
    async with models_of(folder, redis_url) as models:
        await models.keep({"model-1"})
        with models.used("model-1") as model:
            await models.keep(())
            await asyncio.sleep(0.05)
            query = Query(np.array([5], dtype=np.int32), NO_ITEMS, (False,) * len(DOMAINS), NO_ITEMS, 1)
            assert (await model.ranker.rank(query, time.monotonic() + 10)).answer
