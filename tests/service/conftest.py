"""Fixtures of the service's tests: a small bundle, an empty Redis, the service over them."""

import pytest
import redis


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A models folder with one bundle; do not change it."""
    from tests.service.small_bundle import make_bundle

    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """URL of one real server for the whole session."""
    from service.history.embedded import embedded_redis

    with embedded_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def redis_url(redis_server):
    """URL of that server, empty."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushdb()
    return redis_server


@pytest.fixture(scope="session")
def running_service(models, redis_server):
    """One service with default settings for the whole session."""
    from tests.service.running import serve

    with serve(models_dir=models, redis_url=redis_server, providers="cpu") as running:
        yield running


@pytest.fixture
def service(running_service, redis_url):
    """That service, over an empty Redis, and having noticed that it is empty."""
    from tests.service.running import wait_for
    from tests.service.small_bundle import DOMAINS, ids

    def is_as_new():
        domains = running_service.recommend(user_id="nobody", k=100).json()["domains"]
        return {name: [item["item_id"] for item in items] for name, items in domains.items()} == as_in_bundle

    as_in_bundle = {domain: ids(domain) for domain in DOMAINS}
    wait_for(is_as_new)
    return running_service


@pytest.fixture
def store(redis_url):
    """Puts a history, [(domain, item_id)], oldest first, where the service looks for it."""
    from tests.service.running import store_history

    def put(user_id, items):
        store_history(redis_url, user_id, items)

    return put
