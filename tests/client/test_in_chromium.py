"""recommend.js in a real browser against real HTTP: what stubs cannot show, above all what a page sends as it goes away."""

import re
import shutil
from pathlib import Path

import pytest

from tests.client.engines import MODULE
from tests.client.fake import problem, wait_for

PAGE = b"""<!doctype html><title>shop</title><script type="module">
import { createClient } from "/recommend.js";
globalThis.start = (options) => { globalThis.shop = createClient({ userId: "u", ...options }); };
globalThis.book = (item_id) => shop.event({ domain: "Books", item_id });
globalThis.ready = true;
</script>"""


@pytest.fixture(
    scope="module"
)  # not longer: while it runs, playwright has an event loop of its own running in this thread
def browser():
    """Debian's Chromium, or whatever else of its kind is on the PATH."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    found = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if found is None:
        pytest.skip("needs Chromium on the PATH")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=found, args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def context(browser):
    """A profile of its own: nothing stored."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def open_page(fake, context):
    """Opens the shop in a new tab."""
    fake.fake.files = {
        "/": (PAGE, {"content-type": "text/html"}),
        "/recommend.js": (MODULE.read_bytes(), {"content-type": "text/javascript"}),
        "/favicon.ico": (b"", {"content-type": "image/x-icon"}),
    }

    def open_page(options="{}", clock=False):
        page = context.new_page()
        if clock:
            page.clock.install()
        page.goto(fake.url + "/")
        page.wait_for_function("globalThis.ready")
        page.evaluate(f"start({options})")
        return page

    return open_page


def told(fake):
    """Calls of /events: content type, key, items."""
    return [
        (
            one.headers["content-type"],
            one.headers.get("authorization"),
            [event["item_id"] for event in one.body["events"]],
        )
        for one in fake.fake.asked
        if one.path == "/events"
    ]


def stored(page):
    return page.evaluate("localStorage.length")


def test_a_page_asks_shows_and_tells(fake, open_page):
    page = open_page()
    title = page.evaluate("""async () => {
        const answer = await shop.recommend({ domains: ["Books"] });
        shop.impression(answer.domains.Books[0], answer);
        shop.click(answer.domains.Books[0], answer);
        await shop.flush();
        return answer.domains.Books[0].title;
    }""")
    assert title == "Dune"
    asked, events = fake.fake.asked
    assert asked.body == {"user_id": "u", "domains": ["Books"]}
    assert [(one["event"], one["rank"], one["recommendation_id"]) for one in events.body["events"]] == [
        ("impression", 1, "0198-r"),
        ("click", 1, "0198-r"),
    ]
    assert stored(page) == 0


def test_the_example_of_the_guide_runs(fake, context, open_page):
    guide = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    [example] = re.findall(r"^```html\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    open_page()
    fake.fake.files["/"] = (f"<!doctype html>{example}".encode(), {"content-type": "text/html"})
    page = context.new_page()
    page.goto(fake.url + "/")
    page.click("text=Dune")
    wait_for(lambda: fake.fake.event_ids)
    assert sorted(one["event"] for call in fake.fake.asked[1:] for one in call.body["events"]) == [
        "click",
        "impression",
    ]


def test_errors_are_typed(fake, open_page):
    fake.fake.script.append(problem(422, detail="unknown domain", request_id="r9"))
    error = open_page().evaluate("shop.recommend().catch((error) => [error.name, error.status, error.requestId])")
    assert error == ["RecommendError", 422, "r9"]


@pytest.mark.parametrize("leave", ["close", "navigate"])
@pytest.mark.parametrize(("options", "key"), [("{}", None), ("{apiKey: 'k'}", "Bearer k")])
def test_what_a_page_has_left_arrives_when_it_goes_away(fake, open_page, leave, options, key):
    page = open_page(options)
    page.evaluate("book('B1')")
    if leave == "close":
        page.close(run_before_unload=True)
    else:
        page.goto("about:blank")
    wait_for(lambda: told(fake))
    assert told(fake) == [("application/json", key, ["B1"])]


def test_offline_events_wait_and_go_out_once_online(fake, context, open_page):
    page = open_page()
    context.set_offline(True)
    page.evaluate("book('B1')")
    page.evaluate("shop.flush()")
    assert told(fake) == []
    assert stored(page) == 1
    context.set_offline(False)
    wait_for(lambda: told(fake))
    page.wait_for_function("localStorage.length === 0")
    assert [items for _, _, items in told(fake)] == [["B1"]]


def test_the_next_page_sends_what_the_one_before_could_not(fake, open_page):
    fake.fake.script.extend([problem(503), problem(503)])
    page = open_page()
    page.evaluate("book('B1')")
    page.evaluate("shop.flush()")
    page.close(run_before_unload=True)
    wait_for(lambda: len(told(fake)) == 2)
    assert fake.fake.event_ids == set()
    later = open_page(clock=True)
    assert stored(later) == 1
    later.clock.fast_forward(15_000)
    later.clock.fast_forward(2_000)
    wait_for(lambda: fake.fake.event_ids)
    later.wait_for_function("localStorage.length === 0")


def test_tabs_share_a_store_and_the_service_counts_each_event_once(fake, context, open_page):
    first, second = open_page(), open_page()
    context.set_offline(True)
    for number in range(20):
        (first, second)[number % 2].evaluate(f"book('B{number}')")
    assert stored(first) == 20
    context.set_offline(False)
    for page in (first, second):
        page.evaluate("shop.flush()")
    first.wait_for_function("localStorage.length === 0")
    assert len(fake.fake.event_ids) == 20
    assert {item for _, _, items in told(fake) for item in items} == {f"B{number}" for number in range(20)}


def test_a_page_without_storage_still_tells(fake, context, open_page):
    context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } });")
    page = open_page()
    page.evaluate("book('B1')")
    page.evaluate("shop.flush()")
    assert [items for _, _, items in told(fake)] == [["B1"]]
