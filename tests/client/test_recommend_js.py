"""recommend.js: what it asks, how events survive, what it never does."""

import itertools
import re
import uuid

import pytest

from tests.client import engines

CLIENT = "const shop = createClient({ userId: 'u', onDropped: page.onDropped });"


@pytest.fixture(params=["quickjs", "node"])
def run(request, tmp_path):
    """Runs a scenario, the body of an async function, and gives what it returns."""
    engine = {"quickjs": engines.in_quickjs, "node": engines.in_node}[request.param]
    return lambda scenario: engine(scenario, tmp_path)


def test_a_recommendation_is_asked_in_the_service_s_own_words_and_its_items_know_their_domain(run):
    answer, request = run(f"""{CLIENT}
        const answer = await shop.recommend({{ domains: ["Books"], k: 3, exclude_seen: false }});
        return [answer, page.requests[0]];""")
    assert answer["recommendation_id"] == "r1"
    assert answer["domains"]["Books"] == [{"item_id": "B1", "score": 1.5, "rank": 1, "domain": "Books"}]
    assert (request["method"], request["url"]) == ("POST", "/recommend")
    assert request["body"] == {"user_id": "u", "domains": ["Books"], "k": 3, "exclude_seen": False}
    assert request["headers"]["x-request-timeout-ms"] == "2000"
    assert uuid.UUID(request["headers"]["x-request-id"]).version == 7
    assert "authorization" not in request["headers"]


def test_similar_and_history_quote_their_ids(run):
    urls = run("""const shop = createClient({ userId: "a/b", baseUrl: "https://api.example/", apiKey: "k" });
        await shop.similar("To ys", "B/1", { k: 5, domains: ["Books", "To ys"] });
        await shop.similar("Toys", "T1");
        await shop.history();
        return page.requests.map((one) => [one.url, one.headers.authorization, one.method]);""")
    assert urls == [
        ["https://api.example/items/To%20ys/B%2F1/similar?k=5&domains=Books&domains=To%20ys", "Bearer k", "GET"],
        ["https://api.example/items/Toys/T1/similar", "Bearer k", "GET"],
        ["https://api.example/users/a%2Fb/history", "Bearer k", "GET"],
    ]


FAILS = f"""{CLIENT}
    try {{ await shop.recommend(); return "no error"; }} catch (error) {{
        return {{ ...error, typed: error instanceof RecommendError, message: error.message, requests: page.requests.length }};
    }}"""


def test_an_error_says_what_the_problem_document_says(run):
    error = run(
        """page.script.push({ status: 422, headers: { "retry-after": "3" }, body: { type: "urn:x", title: "t", status: 422,
            detail: "unknown domain", request_id: "theirs", errors: [{ field: "domains[0]", detail: "unknown" }] } });"""
        + FAILS
    )
    assert error["typed"]
    assert (error["status"], error["type"], error["detail"]) == (422, "urn:x", "unknown domain")
    assert (error["requestId"], error["retryAfterMs"]) == ("theirs", 3000)
    assert error["errors"] == [{"field": "domains[0]", "detail": "unknown"}]
    assert error["message"] == "422: unknown domain"


@pytest.mark.parametrize(
    ("answer", "status", "detail"),
    [
        ("{ status: 502, body: '<html>' }", 502, "no problem document came with this status"),
        ("{ status: 503, body: 'null' }", 503, "no problem document came with this status"),
        ("{ status: 200, body: '<html>' }", 0, "the answer is not JSON"),
        ("{ status: 200, body: 'null' }", 0, "the answer has no domains"),
        ("{ status: 0 }", 0, "not reachable: network"),
    ],
)
def test_every_failure_is_typed_and_none_is_repeated(run, answer, status, detail):
    error = run(f"page.script.push({answer}); {FAILS}")
    assert error["typed"]
    assert (error["status"], error["detail"], error["requests"]) == (status, detail, 1)


def test_a_question_ends_in_time(run):
    error = run(f"""page.script.push({{ status: 200, afterMs: 5000 }}); {CLIENT}
        const asked = shop.recommend({{}}, {{ timeoutMs: 300 }}).catch((error) => error);
        await page.advance(300);
        const error = await asked;
        return [error.status, error.timedOut, error.detail, page.timers.size];""")
    # The one timer left is the answer that still comes, and the other one adopts what was left behind.
    assert error == [0, True, "no answer within 300 ms", 2]


def test_a_question_that_its_asker_drops_ends_with_the_asker_s_own_error(run):
    result = run(f"""page.script.push({{ status: 200, afterMs: 5000 }}); {CLIENT}
        const mine = new AbortController();
        const asked = shop.recommend({{}}, {{ signal: mine.signal }}).catch((error) => error);
        await page.settle();
        mine.abort();
        const error = await asked;
        return [error.name, error instanceof RecommendError];""")
    assert result == ["AbortError", False]


def test_clicks_and_impressions_say_which_answer_showed_them(run):
    [request] = run(f"""{CLIENT}
        const answer = await shop.recommend();
        page.requests.length = 0;
        const item = {{ ...answer.domains.Books[0] }};  // a copy, as frameworks make them
        shop.impression(item, answer);
        shop.click(item, answer);
        shop.event({{ domain: "Toys", item_id: "T1" }});
        await page.advance(1000);
        return page.requests;""")
    assert (request["method"], request["url"], request["keepalive"]) == ("POST", "/events", True)
    assert request["headers"] == {"content-type": "application/json"}
    events = request["body"]["events"]
    ids = [event.pop("event_id") for event in events]
    shown = {"user_id": "u", "domain": "Books", "item_id": "B1", "rank": 1, "recommendation_id": "r1"}
    assert events == [
        {**shown, "event": "impression", "timestamp": 1_800_000_000},
        {**shown, "event": "click", "timestamp": 1_800_000_000},
        {"user_id": "u", "domain": "Toys", "item_id": "T1", "timestamp": 1_800_000_000},
    ]
    assert len(set(ids)) == 3
    assert {uuid.UUID(one).version for one in ids} == {7}
    assert int(ids[0].replace("-", "")[:12], 16) == 1_800_000_000_000


def test_events_go_together_and_are_forgotten_once_taken(run):
    result = run(f"""{CLIENT}
        for (let n = 0; n < 5; n += 1) shop.event({{ domain: "Books", item_id: `B${{n}}` }});
        const stored = window.localStorage.length;
        await page.advance(999);
        const early = page.requests.length;
        await page.advance(1);
        return [stored, early, page.sent(), window.localStorage.length];""")
    assert result == [5, 0, [["B0", "B1", "B2", "B3", "B4"]], 0]


def test_a_full_batch_goes_at_once_and_no_request_is_too_large(run):
    counts, longest = run(f"""{CLIENT}
        for (let n = 0; n < 250; n += 1) shop.event({{ domain: "Books", item_id: `B${{n}}` }});
        await shop.flush();
        for (let n = 0; n < 100; n += 1) shop.event({{ domain: "Books", item_id: `é`.repeat(200) + n }});
        await shop.flush();
        const size = (one) => new Blob([JSON.stringify(one.body)]).size;
        return [page.sent().map((one) => one.length), Math.max(...page.requests.map(size))];""")
    assert counts[:3] == [100, 100, 50]
    assert sum(counts) == 350
    assert longest <= 32 * 1024


def test_what_fails_is_sent_again_later_and_later_with_the_same_ids(run):
    times, ids, left = run(f"""{CLIENT}
        page.script.push({{ status: 0 }}, {{ status: 503 }}, {{ status: 401 }}, {{ status: 500 }});
        const start = page.now, times = [];
        const seen = fetch;
        fetch = (...given) => {{ times.push(page.now - start); return seen(...given); }};
        shop.event({{ domain: "Books", item_id: "B1" }});
        await page.advance(3_600_000);
        return [times, page.requests.map((one) => one.body.events[0].event_id), window.localStorage.length];""")
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(pauses) == 4
    for failures, pause in enumerate(pauses, 1):
        assert 500 * 2**failures <= pause <= 1000 * 2**failures
    assert len(set(ids)) == 1
    assert left == 0


def test_an_event_in_between_does_not_shorten_the_pause(run):
    early, late = run(f"""{CLIENT}
        page.script.push({{ status: 429, afterMs: 10, headers: {{ "retry-after": "60" }} }});
        shop.event({{ domain: "Books", item_id: "B1" }});
        await page.advance(1005);
        shop.event({{ domain: "Books", item_id: "B2" }});
        await page.advance(60_000);
        const early = page.requests.length;
        await page.advance(3_000);
        return [early, page.sent()];""")
    assert early == 1
    assert late == [["B1"], ["B1", "B2"]]


def test_a_request_for_events_that_hangs_does_not_hold_the_rest_for_ever(run):
    assert run(f"""{CLIENT}
        page.script.push({{ status: 202, afterMs: 1e9 }});
        shop.event({{ domain: "Books", item_id: "B1" }});
        await page.advance(20_000);
        return page.sent();""") == [["B1"], ["B1"]]


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_batch_that_is_wrong_is_told_and_does_not_block_the_next(run, status):
    sent, dropped, left = run(f"""{CLIENT}
        page.script.push({{ status: {status}, body: {{ detail: "wrong" }} }});
        shop.event({{ domain: "Books", item_id: "B1" }});
        await page.advance(1000);
        shop.event({{ domain: "Books", item_id: "B2" }});
        await page.advance(1000);
        return [page.sent(), page.dropped, window.localStorage.length];""")
    assert sent == [["B1"], ["B2"]]
    assert dropped == [[["B1"], f"{status}: wrong"]]
    assert left == 0


def test_rejected_events_are_told_with_the_service_s_reason(run):
    dropped, left = run(f"""{CLIENT}
        shop.event({{ domain: "Books", item_id: "B1" }});
        shop.event({{ domain: "Bokos", item_id: "B2" }});
        await page.advance(1000);
        return [page.dropped, window.localStorage.length];""")
    assert dropped == [[["B2"], "unknown domain"]]
    assert left == 0


def test_a_page_that_hides_sends_a_beacon_of_json_once(run):
    requests, left = run(f"""{CLIENT}
        shop.event({{ domain: "Books", item_id: "B1" }});
        page.hide();
        return [page.requests, window.localStorage.length];""")
    [beacon] = requests
    assert (beacon["how"], beacon["url"], beacon["type"]) == ("beacon", "/events", "application/json")
    assert [one["item_id"] for one in beacon["body"]["events"]] == ["B1"]
    assert left == 1, "whether a beacon arrives is not known, so the event stays until an answer comes"


def test_what_a_beacon_carried_is_confirmed_by_the_next_page_under_the_same_id(run):
    taken, requests, left = run(f"""{{ {CLIENT}
        shop.event({{ domain: "Books", item_id: "B1" }}); }}
        page.hide();
        page.reload();
        {{ {CLIENT} }}
        await page.advance(20_000);
        return [page.taken.size, page.requests.map((one) => [one.how, one.body.events.length]), window.localStorage.length];""")
    assert taken == 1
    assert requests == [["beacon", 1], ["fetch", 1]]
    assert left == 0


def test_what_is_under_way_is_not_sent_by_beacon_too(run):
    assert run(f"""{CLIENT}
        page.script.push({{ status: 202, afterMs: 500 }});
        shop.event({{ domain: "Books", item_id: "B1" }});
        await page.advance(1000);
        shop.event({{ domain: "Books", item_id: "B2" }});
        page.hide();
        return page.requests.map((one) => [one.how, one.body.events[0].item_id]);""") == [
        ["fetch", "B1"],
        ["beacon", "B2"],
    ]


def test_a_page_that_is_looked_at_again_goes_on(run):
    sent, left = run(f"""{CLIENT}
        shop.event({{ domain: "Books", item_id: "B1" }});
        page.hide();
        page.show();
        await page.settle();
        return [page.requests.map((one) => one.how), window.localStorage.length];""")
    assert sent == ["beacon", "fetch"]
    assert left == 0


def test_what_a_page_could_not_send_after_it_came_back_goes_by_beacon_when_it_hides_again(run):
    assert run(f"""{CLIENT}
        page.script.push({{ status: 202 }}, {{ status: 503 }});
        shop.event({{ domain: "Books", item_id: "B1" }});
        page.hide();
        page.show();
        await page.settle();
        page.hide();
        return page.requests.map((one) => one.how);""") == ["beacon", "fetch", "beacon"]


@pytest.mark.parametrize("options", ["apiKey: 'k'", "baseUrl: 'https://api.example'"])
def test_with_a_key_or_to_another_origin_a_keepalive_request_takes_the_beacon_s_place(run, options):
    requests, left = run(f"""const shop = createClient({{ userId: "u", {options} }});
        shop.event({{ domain: "Books", item_id: "B1" }});
        page.hide();
        await page.settle();
        return [page.requests, window.localStorage.length];""")
    [request] = requests
    assert (request["how"], request["keepalive"]) == ("fetch", True)
    assert request["headers"].get("authorization") == ("Bearer k" if "apiKey" in options else None)
    assert left == 0


def test_a_beacon_that_the_browser_does_not_take_waits_for_the_next_page(run):
    sent = run(f"""{{ {CLIENT}
        page.beacons = false;
        shop.event({{ domain: "Books", item_id: "B1" }}); }}
        page.hide();
        page.reload();
        page.now += 60_000;
        {{ {CLIENT} }}
        await page.advance(1000);
        return page.sent();""")
    assert sent == [["B1"]]


def test_offline_nothing_is_tried_and_everything_is_sent_once_online(run):
    offline, sent = run(f"""{CLIENT}
        navigator.onLine = false;
        shop.event({{ domain: "Books", item_id: "B1" }});
        await page.advance(3_600_000);
        page.hide();
        const offline = page.requests.length;
        navigator.onLine = true;
        window.dispatch("online");
        await page.settle();
        return [offline, page.sent()];""")
    assert offline == 0
    assert sent == [["B1"]]


def test_events_survive_a_reload_in_order(run):
    sent, left = run(f"""navigator.onLine = false;
        {{ {CLIENT}
        for (let n = 0; n < 5; n += 1) {{ shop.event({{ domain: "Books", item_id: `B${{n}}` }}); page.now += 10; }} }}
        page.reload();
        page.now += 60_000;
        navigator.onLine = true;
        window.localStorage.items = new Map([...window.localStorage.items].reverse());  // browsers promise no order
        window.localStorage.setItem("the shop's own", "x");
        {{ {CLIENT} }}
        await page.advance(1000);
        return [page.sent(), [...window.localStorage.items.keys()]];""")
    assert sent == [["B0", "B1", "B2", "B3", "B4"]]
    assert left == ["the shop's own"]


def test_a_second_tab_leaves_alone_what_the_first_is_about_to_send(run):
    assert run("""const first = createClient({ userId: "u" });
        first.event({ domain: "Books", item_id: "B1" });
        const second = createClient({ userId: "u" });
        await second.flush();
        const early = page.sent();
        await page.advance(60_000);
        return [early, page.sent()];""") == [[], [["B1"]]]


def test_what_another_tab_has_sent_is_not_sent_again(run):
    sent, taken = run("""navigator.onLine = false;
        const first = createClient({ userId: "u" });
        first.event({ domain: "Books", item_id: "B1" });
        page.now += 60_000;
        const second = createClient({ userId: "u" });
        navigator.onLine = true;
        await second.flush();
        await first.flush();
        return [page.sent(), page.taken.size];""")
    assert sent == [["B1"]]
    assert taken == 1


def test_what_the_service_would_no_longer_know_again_is_not_sent(run):
    sent, dropped, left = run(f"""navigator.onLine = false;
        {{ {CLIENT} shop.event({{ domain: "Books", item_id: "B1" }}); }}
        page.reload();
        page.now += 7 * 86_400_000;
        navigator.onLine = true;
        {{ {CLIENT} }}
        await page.advance(60_000);
        return [page.sent(), page.dropped, window.localStorage.length];""")
    assert sent == []
    assert dropped == [[["B1"], "they have waited for a week"]]
    assert left == 0


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "{}", '{"at": 1}', '{"event": {}}'])
def test_what_somebody_else_wrote_under_our_name_does_no_harm(run, text):
    sent, left = run(f"""window.localStorage.setItem("syncrec.event||x", {text!r});
        {CLIENT}
        shop.event({{ domain: "Books", item_id: "B1" }});
        await page.advance(60_000);
        return [page.sent(), window.localStorage.length];""")
    assert sent == [["B1"]]
    assert left == 0


def test_the_oldest_go_when_too_many_wait_and_that_is_told(run):
    dropped, stored = run(f"""{CLIENT}
        navigator.onLine = false;
        for (let n = 0; n < 1002; n += 1) shop.event({{ domain: "Books", item_id: `B${{n}}` }});
        return [page.dropped, window.localStorage.length];""")
    assert dropped == [[["B0"], "1000 events are waiting already"], [["B1"], "1000 events are waiting already"]]
    assert stored == 1000


@pytest.mark.parametrize(
    "broken",
    [
        "window.localStorage.room = 0;",
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('SecurityError'); } });",
        "window.localStorage = null;",
    ],
)
def test_without_storage_events_still_go_out(run, broken):
    assert run(f"""{broken} {CLIENT}
        shop.event({{ domain: "Books", item_id: "B1" }});
        await page.advance(1000);
        return page.sent();""") == [["B1"]]


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("shop.event({ item_id: 'B1' })", "domain must be a text"),
        ("shop.event({ domain: 'Books', item_id: 7 })", "item_id must be a text"),
        ("shop.event(undefined)", "domain must be a text"),
        ("shop.click(undefined, undefined)", "domain must be a text"),
        ("shop.click({ item_id: 'B1' }, {})", "domain must be a text"),
    ],
)
def test_telling_never_throws_into_the_page(run, told, reason):
    dropped, sent = run(f"{CLIENT} {told}; await page.advance(1000); return [page.dropped, page.sent()];")
    assert [one[1] for one in dropped] == [reason]
    assert sent == []


def test_telling_does_not_throw_even_if_an_event_is_no_json_or_the_listener_fails(run):
    dropped = run("""const shop = createClient({ userId: "u", onDropped: () => { throw new Error("mine"); } });
        const circle = { domain: "Books", item_id: "B1" };
        circle.circle = circle;
        shop.event(circle);
        return page.dropped;""")
    assert dropped == ["recommend.js: onDropped threw"]


def test_by_default_the_console_says_what_was_dropped(run):
    dropped = run("createClient({ userId: 'u' }).event({ item_id: 'B1' }); return page.dropped;")
    assert dropped == ["recommend.js: 1 events dropped: domain must be a text"]


def test_a_closed_client_sends_off_what_it_has_and_listens_no_more(run):
    requests, listeners, timers = run(f"""{CLIENT}
        shop.event({{ domain: "Books", item_id: "B1" }});
        shop.close();
        const listeners = [...Object.values(window.listeners), ...Object.values(document.listeners)];
        return [page.requests.map((one) => one.how), listeners.flat().length, page.timers.size];""")
    assert requests == ["beacon"]
    assert listeners == 0
    assert timers == 0


def test_a_client_needs_a_user(run):
    assert run("try { createClient({}); return null; } catch (error) { return error.message; }") == (
        "createClient: userId must be a text"
    )


def test_the_module_imports_nothing():
    assert not re.search(r"^\s*import\b", engines.MODULE.read_text(), re.MULTILINE)
