"""Pages in a real browser: they open from disk, ask the network for nothing, and do what the reader does."""

import io
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from playwright.sync_api import sync_playwright
from scipy.cluster.hierarchy import linkage

from attnflow.view import Color, Dendrogram, Panel, Series, clock_of, html, scene_of_states

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
REQUIRED = os.environ.get("ATTNFLOW_BROWSER") == "required"
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not REQUIRED,
    reason="Chromium is not installed (`make browser`); ATTNFLOW_BROWSER=required makes this a failure",
)
VIEWER = Path(__file__).parents[2] / "viewer"
ARGUMENTS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
N, FRAMES = 40, 30
HEIGHTS = np.linspace(-1.5, 2.5, N - 1)  # log10 times of merges


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "ATTNFLOW_BROWSER=required, but Chromium is not installed"
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


def directions(d):
    """N unit vectors in R^d."""
    x = np.random.default_rng(d).normal(size=(N, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def gathering(d):
    """Tokens that turn to one of three directions each: frames of unit vectors, shape (FRAMES, N, d)."""
    goal = directions(d)[np.arange(N) % 3]
    share = np.linspace(0, 1, FRAMES)[:, None, None]
    x = (1 - share) * directions(d) + (0.01 + share) * goal
    x[0] = directions(d)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One page of each kind, with hostile names and labels."""
    folder = tmp_path_factory.mktemp("pages")
    clock = clock_of(np.concatenate([[0], np.geomspace(1e-2, 1e3, FRAMES - 1)]))
    words = Color("word", np.arange(N) % 2, labels=("<b>even</b>", HOSTILE))
    names = (HOSTILE, *(f"word {i}" for i in range(1, N)))
    size = Series("size", clock.values, np.linspace(N, 3, FRAMES), step=True)
    panels = (Panel("size", "Size", "size", (size,)),)
    joins = linkage(directions(2), "single")
    joins[:, 2] = HEIGHTS
    tree = Dendrogram(joins[:, :2].astype(int), joins[:, 2], np.arange(N), N)
    scenes = {
        "circle": scene_of_states(clock, gathering(2), title=HOSTILE, names=names, colors=(words,)),
        "sphere": scene_of_states(clock, gathering(3), title="sphere", panels=panels),
        "axes": scene_of_states(clock, gathering(8), title="axes", panels=panels),
        "tree": scene_of_states(clock, gathering(2), title="tree", panels=panels, dendrogram=tree),
    }
    for name, scene in scenes.items():
        (folder / f"{name}.html").write_text(html(scene), encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in scenes}


@pytest.fixture
def opened(browser, pages):
    """A function that opens a page; a warning, an error, a dialog or a request elsewhere fails the test."""
    wrong, contexts = [], []

    def open_page(name, *, width=1280, height=800, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("console", lambda said: wrong.append(f"{said.type}: {said.text}"))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        tab.on(
            "request",
            lambda request: request.url.startswith(("file:", "blob:")) or wrong.append(request.url),
        )
        tab.goto(pages[name])
        tab.locator("html[data-ready='1']").wait_for(state="attached")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def state(tab):
    return tab.evaluate("attnflow.state()")


def settled(tab):
    """Waits until what was asked for is drawn."""
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def until(tab, condition, seconds=15):
    """Waits for a condition; the policy of a page forbids what Playwright itself would do."""
    end = time.monotonic() + seconds
    while not tab.evaluate(condition):
        assert time.monotonic() < end, condition
        tab.wait_for_timeout(30)


def pixels(tab, box=None):
    """The stage as it is seen, without the words on it: (height, width, 3), in [0, 1]."""
    settled(tab)
    tab.evaluate(
        "document.querySelectorAll('.legend, .readout').forEach((one) => (one.hidden = true))"
    )
    shot = tab.screenshot(clip=box) if box else tab.locator(".stage").screenshot()
    return image.imread(io.BytesIO(shot))[..., :3]


def coloured(picture):
    """Share of pixels with a colour of their own."""
    return float((np.ptp(picture, axis=-1) > 0.15).mean())


def token_seen(tab):
    """A token that faces the reader and the words shown when the pointer is on it."""
    for i in range(N):
        tab.mouse.move(*tab.evaluate(f"attnflow.where({i})"))
        settled(tab)
        if state(tab)["hovered"] == i:
            return i, tab.locator(".tooltip").inner_text().splitlines()
    raise AssertionError("no token answers to the pointer")


@pytest.mark.parametrize("name", ["circle", "sphere", "axes", "tree"])
def test_stage_is_drawn_and_changes(opened, name):
    tab = opened(name)
    assert state(tab)["webgl"]
    first = pixels(tab)
    tab.evaluate("attnflow.setFrame(attnflow.state().frames - 1)")
    last = pixels(tab)
    assert first.std() > 0.01
    assert last.std() > 0.01
    assert coloured(last) > 1e-4
    assert (np.abs(first - last).max(axis=-1) > 0.1).mean() > 1e-3


@pytest.mark.parametrize("frame", [0, 12, FRAMES - 1])
def test_tokens_are_where_the_run_has_them(opened, frame):
    tab = opened("circle")
    tab.evaluate(f"attnflow.setFrame({frame})")
    settled(tab)
    seen = np.array(tab.evaluate(f"Array.from({{length: {N}}}, (_, i) => attnflow.where(i))"))
    box = tab.locator(".stage").bounding_box()
    middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    offset = (seen - middle) * [1, -1]
    radius = np.linalg.norm(offset, axis=1)
    np.testing.assert_allclose(offset / radius[:, None], gathering(2)[frame], atol=1e-3)
    assert np.ptp(radius) / radius.mean() < 0.12  # the ring is a band


def test_slider_and_keys_move_time(opened):
    tab = opened("sphere")
    slider = tab.get_by_role("slider", name="Time")
    assert slider.get_attribute("aria-valuetext") == "t = 0, frame 1 of 30"
    box = slider.bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert 13 <= state(tab)["frame"] <= 16
    tab.evaluate("attnflow.setFrame(10)")
    for key, frame in [
        ("ArrowRight", 11), ("ArrowLeft", 10), ("Shift+ArrowRight", 20), ("Home", 0), ("ArrowLeft", 0), ("End", 29),
    ]:  # fmt: skip
        tab.keyboard.press(key)
        assert state(tab)["frame"] == frame, key
    settled(tab)
    assert tab.locator(".readout .when").inner_text() == "t = 103.00"  # the exponent is raised
    assert slider.get_attribute("aria-valuetext") == "t = 10^3.00, frame 30 of 30"


def test_play_advances_and_pauses(opened):
    tab = opened("sphere")
    tab.keyboard.press("+")
    assert state(tab)["speed"] == 2
    tab.keyboard.press("Space")
    until(tab, "attnflow.state().position > 0.5")
    tab.get_by_role("button", name="Pause").click()
    stopped = state(tab)
    assert not stopped["playing"]
    tab.wait_for_timeout(150)
    assert state(tab)["position"] == stopped["position"]
    tab.evaluate("attnflow.setFrame(28)")
    tab.get_by_role("button", name="Play").click()
    until(tab, "!attnflow.state().playing")
    assert state(tab)["frame"] == 29


def test_reduced_motion_shows_whole_frames(opened):
    tab = opened("sphere", reduced_motion="reduce")
    tab.evaluate("attnflow.play()")
    until(tab, "attnflow.frame() >= 1")
    positions = [state(tab)["position"] for _ in range(8)]
    assert positions == [int(position) for position in positions]


def test_a_merge_shows_its_moment_and_its_tokens(opened):
    tab = opened("tree")
    svg = tab.locator("svg.tree")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    root = tab.locator("svg.tree line.axis").first.bounding_box()
    times = tab.evaluate(
        "[attnflow.state().value, (attnflow.setFrame(1e9), attnflow.state().value)]"
    )
    last = HEIGHTS[-1]
    x = root["x"] + root["width"] * (last - times[0]) / (times[1] - times[0])
    tab.evaluate("attnflow.setFrame(0)")
    for y in np.linspace(box["y"] + 20, box["y"] + box["height"] - 50, 40):
        tab.mouse.move(x, y)
        if tab.locator(".tooltip").is_visible():
            break
    assert "tokens" in tab.locator(".tooltip").inner_text()
    tab.mouse.click(x, y)
    now = state(tab)
    assert now["chosen"] == N  # the last merge joins all
    assert last <= now["value"] < last + 0.2
    tab.keyboard.press("Escape")
    assert state(tab)["chosen"] == 0
    tab.mouse.click(root["x"] + 0.4 * root["width"], box["y"] + 3)
    assert abs((state(tab)["value"] - times[0]) / (times[1] - times[0]) - 0.4) < 0.02


def test_a_panel_moves_time(opened):
    tab = opened("sphere")
    axis = tab.locator(".card line.axis").first.bounding_box()
    tab.mouse.move(axis["x"] + 0.25 * axis["width"], axis["y"] - 40)
    tab.mouse.down()
    tab.mouse.move(axis["x"] + 0.75 * axis["width"], axis["y"] - 40, steps=4)
    tab.mouse.up()
    value = state(tab)["value"]
    tab.evaluate("attnflow.setFrame(0)")
    low = state(tab)["value"]
    assert abs((value - low) / (3 - low) - 0.75) < 0.02
    cursor = tab.locator(".card line.cursor").first
    settled(tab)
    assert abs(float(cursor.get_attribute("x1")) - 62) < 0.1


def test_the_pointer_names_a_token_and_a_click_picks_its_cluster(opened):
    tab = opened("sphere")
    tab.evaluate("attnflow.setFrame(29)")
    settled(tab)
    i, lines = token_seen(tab)
    assert lines[0] == f"token {i}"
    assert any("cluster" in line for line in lines)
    tab.mouse.click(*tab.evaluate(f"attnflow.where({i})"))
    together = int(
        next(line for line in lines if line.endswith("tokens")).split(", ")[1].split()[0]
    )
    assert state(tab)["chosen"] == together


def test_labels_stay_text(opened):
    tab = opened("circle")
    assert tab.locator("h1").inner_text() == HOSTILE
    tab.mouse.move(*tab.evaluate("attnflow.where(0)"))
    assert tab.locator(".tooltip .first").inner_text() == HOSTILE
    names = {state(tab)["colour"]}
    tab.keyboard.press("c")
    settled(tab)
    names.add(state(tab)["colour"])
    assert len(names) == 2
    assert "<b>even</b>" in tab.locator(".legend").inner_text()
    assert HOSTILE in tab.locator(".legend").inner_text()
    assert tab.locator("img, b").count() == 0
    assert tab.locator("script").count() == 2  # meta, and the viewer; the data are gone once read


def test_light_and_dark(opened):
    grounds = {}
    for theme in ("light", "dark"):
        tab = opened("axes", color_scheme=theme)
        assert state(tab)["theme"] == theme
        grounds[theme] = pixels(tab)[2, 2].mean()
    assert grounds["light"] > 0.9
    assert grounds["dark"] < 0.2
    tab.keyboard.press("t")
    assert state(tab)["theme"] == "light"
    assert pixels(tab)[2, 2].mean() > 0.9


@pytest.mark.parametrize("name", ["circle", "sphere", "axes", "tree"])
def test_a_phone_scrolls_one_way(opened, name):
    tab = opened(name, width=390, height=844)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    stage = tab.locator(".stage").bounding_box()
    panel = tab.locator(".card").first.bounding_box()
    assert stage["width"] > 340
    assert panel["y"] > stage["y"] + stage["height"]
    assert coloured(pixels(tab)) > 0 or name != "circle"


def test_the_sheet_of_keys(opened):
    tab = opened("sphere")
    tab.keyboard.press("?")
    sheet = tab.get_by_role("dialog", name="Keys")
    assert sheet.is_visible()
    assert "play, pause" in sheet.inner_text()
    tab.keyboard.press("Escape")
    assert not sheet.is_visible()


@pytest.mark.skipif(
    not (VIEWER / "node_modules").exists(), reason="`npm ci` in viewer/ was not run"
)
def test_the_built_script_is_that_of_the_sources():
    built = subprocess.run(
        ["node", "build.js", "--check"], cwd=VIEWER, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr


def test_without_webgl_the_plots_work(browser, pages):
    context = browser.new_context()
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    tab = context.new_page()
    tab.goto(pages["sphere"])
    tab.locator("html[data-ready='1']").wait_for(state="attached")
    assert "shows no WebGL" in tab.locator(".scene").inner_text()
    tab.keyboard.press("End")
    assert state(tab)["frame"] == 29
    context.close()
