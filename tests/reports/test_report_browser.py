"""The report in a real browser: sorted, unfolded, light and dark, as narrow as a phone, and alone with itself."""

import re

import pytest
from logged_runs import log_sweep, log_trial, metrics_of, open_sweep

from ccim_ray.reporting import ReportFlags, report
from ccim_ray.tracking import Tracker

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page_uri(tmp_path_factory):
    """A report of two sweeps, one of which has a hostile setting."""
    folder = tmp_path_factory.mktemp("report")
    uri = f"sqlite:///{folder}/mlflow.db"
    log_sweep(Tracker(uri, "confounded_scenes/dict_size", None), folder)
    tracker = Tracker(uri, "confounded_scenes/other", None)
    parent = open_sweep(tracker, sweep_id="other", seeds=(0, 1))
    for seed in (0, 1):
        log_trial(tracker, parent, "vanilla", seed, metrics_of(0.5 + 0.01 * seed))
        log_trial(tracker, parent, HOSTILE, seed, metrics_of(0.6 + 0.02 * seed) | {"test_do/worst_group": 0.2})
    report(ReportFlags(tracking_uri=uri, out=folder / "out"))
    return (folder / "out" / "report.html").as_uri()


@pytest.fixture
def visit(browser, page_uri):
    """Opens the page; at the end, it must have asked for nothing and complained of nothing."""
    contexts, requests, complaints = [], [], []

    def opened(width=1300, **options):
        context = browser.new_context(viewport={"width": width, "height": 844}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto(page_uri)
        page.wait_for_selector(".plot[data-drawn] .main-svg")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert (set(requests), complaints) == ({page_uri}, [])


def results(page):
    """The table of test_do of the sweep that log_sweep logs."""
    return page.locator("section.sweep", has=page.locator("text=CCIM N=128, seed 2")).locator("table").nth(1)


def settings(table):
    return [
        text.strip().removeprefix("▸").strip() for text in table.locator("tbody tr:first-child th").all_inner_texts()
    ]


def test_a_header_sorts_by_mouse_and_keyboard_and_says_so(visit):
    table = results(visit())
    as_asked = ["vanilla", "CCIM N=64", "CCIM N=128", "chance"]
    assert settings(table) == as_asked
    mean = table.locator("thead th", has_text="mean")
    mean.locator("button").click()
    assert mean.get_attribute("aria-sort") == "descending"
    assert settings(table) == ["CCIM N=128", "CCIM N=64", "vanilla", "chance"]
    mean.locator("button").press("Enter")
    assert mean.get_attribute("aria-sort") == "ascending"
    assert settings(table) == ["chance", "vanilla", "CCIM N=64", "CCIM N=128"]
    delta = table.locator("thead th", has_text="Δ")
    delta.locator("button").press("Space")
    assert (mean.get_attribute("aria-sort"), delta.get_attribute("aria-sort")) == ("none", "descending")
    # What has no Δ comes last, whichever way the others go.
    assert settings(table)[:2] == ["CCIM N=128", "CCIM N=64"]
    delta.locator("button").click()
    assert settings(table)[:2] == ["CCIM N=64", "CCIM N=128"]
    delta.locator("button").click()
    assert settings(table) == as_asked


def test_a_setting_unfolds_to_seeds_that_link_to_their_runs_and_move_with_it(visit):
    table = results(visit())
    body = table.locator("tbody", has_text="CCIM N=128")
    assert body.locator("tr.seed").first.is_hidden()
    body.locator("button.expand").press("Enter")
    assert body.locator("button.expand").get_attribute("aria-expanded") == "true"
    shown = [re.sub(r"\s+", " ", text) for text in body.locator("tr.seed").all_inner_texts()]
    assert [re.findall(r"[+-]?\d+\.\d+", text) for text in shown] == [
        ["60.00", "+10.00"],
        ["62.10", "+10.10"],
        ["61.00", "+10.00"],
    ]
    links = [link.get_attribute("href") for link in body.locator("tr.seed a").all()]
    assert len(set(links)) == 3
    assert all(re.fullmatch(r"http://127\.0\.0\.1:5000/#/experiments/\d+/runs/[0-9a-f]{32}", link) for link in links)
    table.locator("thead button", has_text="mean").click()
    first = table.locator("tbody").first
    assert first.locator("tr.seed").count() == 3
    assert first.locator("tr.seed").first.is_visible()


def test_light_and_dark_follow_the_system_and_the_button(visit):
    def background(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    def ticks(page):
        return page.locator(".xtick text").first.evaluate("node => getComputedStyle(node).fill")

    light, dark = visit(color_scheme="light"), visit(color_scheme="dark")
    colours = background(light), ticks(light)
    assert colours != (background(dark), ticks(dark))
    assert ticks(light) != ticks(dark)
    dark.locator("#theme").click()
    assert (background(dark), ticks(dark)) == colours
    light.locator("#theme").click()
    assert background(light) != colours[0]
    assert light.locator("#theme").inner_text() == "Light"


def test_a_phone_scrolls_tables_and_never_the_page(visit):
    page = visit(width=390, has_touch=True)
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true })")
    for button in page.locator("[data-seeds]").all():
        button.click()
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    box = results(page).locator("xpath=..")
    assert box.evaluate("node => node.scrollWidth > node.clientWidth")
    for plot in page.locator(".plot:not(.map)").all():
        assert plot.evaluate("node => node.scrollWidth <= node.clientWidth")


def test_views_and_folded_plots_are_drawn_when_they_are_asked_for(visit):
    page = visit()
    sweep = page.locator("section.sweep", has=page.locator("text=CCIM N=128, seed 2"))
    plot = sweep.locator(".metric .plot").nth(1)
    assert plot.locator(".legendtext", has_text="mean and 95 % CI").count() == 1
    sweep.locator(".metric .view", has_text="settings").nth(1).click()
    assert "CCIM N=64" in plot.locator(".ytick").all_text_contents()
    learning = sweep.locator("details", has_text="Learning curves")
    assert learning.locator(".main-svg").count() == 0
    learning.locator("summary").click()
    learning.locator(".main-svg").first.wait_for()
    assert learning.locator(".legendtext").all_text_contents() == ["vanilla", "CCIM N=64", "CCIM N=128"]


def test_text_of_others_is_shown_and_not_run(visit):
    page = visit()
    section = page.locator("section.sweep", has=page.locator(f"text={HOSTILE}")).first
    assert HOSTILE in settings(section.locator("table").first)
    assert HOSTILE in section.locator(".metric .plot").first.locator(".ytick").all_text_contents()
    assert page.locator("img").count() == 0


def test_the_page_s_policy_runs_no_other_script_and_asks_no_address(browser, page_uri):
    page = browser.new_page()
    ended, refused = [], []
    page.on("requestfinished", lambda request: ended.append(request.url))
    page.on("requestfailed", lambda request: refused.append(request.failure))
    page.goto(page_uri)
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const image = new Image();
            image.src = "http://127.0.0.1:9/told";
            document.body.append(image);
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert (ended, refused) == ([page_uri], ["csp"])
    page.close()
