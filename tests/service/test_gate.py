"""Keys, roles and ports, on every route of the service."""

import hashlib
import re
import socket
import threading

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.service.running import serve

KEYS = {name: f"secret-of-{name}-{'x' * 40}" for name in ("reader", "writer", "admin")}
ROUTES = [
    ("POST", "/recommend", "read"),
    ("POST", "/recommend/batch", "read"),
    ("POST", "/events", "write"),
    ("GET", "/items/Books/B1/similar", "read"),
    ("PUT", "/items/Books/B1", "admin"),
    ("GET", "/users/u1/history", "read"),
    ("DELETE", "/users/u1", "admin"),
    ("GET", "/models", "admin"),
    ("POST", "/models/small-1/activate", "admin"),
    ("POST", "/models/rollback", "admin"),
    ("GET", "/experiments", "admin"),
    ("GET", "/experiments/one", "admin"),
    ("PUT", "/experiments/one", "admin"),
    ("DELETE", "/experiments/one", "admin"),
]
OPEN = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/recommend.js"]
MAY = {"reader": {"read"}, "writer": {"write"}, "admin": {"read", "write", "admin"}}


def digest(name):
    return hashlib.sha256(KEYS[name].encode()).hexdigest()


@pytest.fixture(scope="module")
def guarded(models, redis_server):
    keys = f"reader:read:{digest('reader')},writer:write:{digest('writer')}"
    with serve(
        models_dir=models, redis_url=redis_server, api_keys=keys, admin_keys=f"admin:{digest('admin')}"
    ) as running:
        yield running


def ask(service, method, path, key=None):
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return service.client.request(method, path, json={}, headers=headers)


def test_every_route_of_openapi_is_listed_here(guarded):
    described = {
        (method.upper(), path)
        for path, operations in guarded.client.get("/openapi.json").json()["paths"].items()
        for method in operations
    }
    listed = {(method, path) for method, path, _ in ROUTES} | {("GET", path) for path in OPEN}
    names = {"{domain}": "Books", "{item_id}": "B1", "{user_id}": "u1", "{version}": "small-1", "{key}": "one"}
    for method, pattern in described:
        path = re.sub(r"{\w+}", lambda found: names[found[0]], pattern)
        assert (method, path) in listed


@pytest.mark.parametrize(("method", "path", "role"), ROUTES)
def test_a_route_is_open_to_its_roles_alone(guarded, method, path, role):
    without = ask(guarded, method, path)
    assert without.status_code == 401
    assert without.headers["www-authenticate"] == "Bearer"
    assert without.headers["content-type"] == "application/problem+json"
    assert ask(guarded, method, path, "wrong").status_code == 401
    for name, key in KEYS.items():
        status = ask(guarded, method, path, key).status_code
        assert (status == 403) == (role not in MAY[name])
        assert status != 401


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_descriptions_need_no_key(guarded, path):
    assert guarded.client.get(path).status_code == 200


def test_a_key_may_come_in_its_own_header(guarded):
    headers = {"X-API-Key": KEYS["reader"]}
    assert guarded.client.post("/recommend", json={"user_id": "u"}, headers=headers).status_code == 200


def test_openapi_says_that_keys_are_needed(guarded):
    schema = guarded.client.get("/openapi.json").json()
    assert schema["paths"]["/recommend"]["post"]["security"]
    assert set(schema["components"]["securitySchemes"]) == {"HTTPBearer", "APIKeyHeader"}


def test_a_key_that_is_used_too_often_is_told_when_to_come_back(models, redis_url):
    keys = f"reader:read:{digest('reader')}"
    with serve(models_dir=models, redis_url=redis_url, api_keys=keys, rate_limit_per_s=0.01, rate_burst=3) as service:
        answers = [ask(service, "POST", "/recommend", KEYS["reader"]) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [422, 422, 422, 429]
        assert int(answers[3].headers["retry-after"]) > 50


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/metrics"])
def test_descriptions_and_metrics_can_be_closed(models, redis_url, path):
    with serve(models_dir=models, redis_url=redis_url, docs=False, metrics=False) as service:
        response = service.client.get(path)
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
        assert service.client.get("/healthz").status_code == 200


def test_admin_routes_answer_on_their_own_port_alone(models, redis_url):
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as public, socket.create_server(("127.0.0.1", 0)) as admin:
        port = admin.getsockname()[1]
        app = create_app(Settings(models_dir=models, redis_url=redis_url, admin_port=port, docs=False, metrics=False))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [public, admin]})
        thread.start()
        try:
            with (
                httpx.Client(base_url=f"http://127.0.0.1:{public.getsockname()[1]}", timeout=20) as outside,
                httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as inside,
            ):
                for method, path, role in ROUTES:
                    if role == "admin":
                        assert outside.request(method, path, json={}).status_code == 404
                        # A route that is not there has no more to say than that.
                        assert '"detail":"Not Found"' not in inside.request(method, path, json={}).text
                assert outside.put("/items/Books/B1", content=b"{bad").status_code == 404
                for path in ("/docs", "/metrics"):
                    assert outside.get(path).status_code == 404
                    assert inside.get(path).status_code == 200
                assert outside.post("/recommend", json={"user_id": "u"}).status_code == 200
        finally:
            server.should_exit = True
            thread.join()


def test_other_origins_are_answered_only_when_named(models, redis_url):
    with serve(models_dir=models, redis_url=redis_url, cors_origins=("https://shop.example",)) as service:
        for origin, allowed in (("https://shop.example", "https://shop.example"), ("https://other.example", None)):
            response = service.client.post("/recommend", json={"user_id": "u"}, headers={"Origin": origin})
            assert response.status_code == 200
            assert response.headers.get("access-control-allow-origin") == allowed
        asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        preflight = service.client.options(
            "/recommend", headers={**asked, "Access-Control-Request-Headers": "authorization,content-type"}
        )
        assert preflight.status_code == 200
        assert "POST" in preflight.headers["access-control-allow-methods"]


def test_without_a_named_origin_there_is_no_cors(service):
    response = service.client.post("/recommend", json={"user_id": "u"}, headers={"Origin": "https://shop.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]
