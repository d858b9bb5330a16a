"""The service over a bundle that training exported: it starts (so the recorded answers come out again) and answers."""

from tests.service.running import serve


def test_the_exported_bundle_is_served(tiny_bundle, redis_url, store):
    recorded = tiny_bundle.warmup()[0]
    store("u1", recorded.history)
    with serve(models_dir=tiny_bundle.path.parent, redis_url=redis_url) as running:
        answer = running.recommend(user_id="u1", k=recorded.k).json()
        unknown = running.recommend(user_id="nobody").json()
    assert answer["source"] == "model"
    for domain, wanted in recorded.answer.items():
        assert [item["item_id"] for item in answer["domains"][domain]] == [item_id for item_id, _ in wanted]
    assert unknown["source"] == "popularity"
