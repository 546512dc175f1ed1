"""The report in a real browser: what it shows, what it does, and what it refuses to run."""

import base64
import csv
import json
import os
import re
import time
from datetime import date
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import CHROMIUM, DRIVER, MISSING, open_browser
from conftest import SAMPLES
from selenium.webdriver import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

import dinkcli
from dinkcli.insight.names import distinctive_terms
from dinkcli.insight.report.colours import colouring
from dinkcli.models.tree import members

pytestmark = pytest.mark.usefixtures("one_thread")
needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING)

TIMES = ["2024-01-01 10:00", "2024-01-01 11:00", "2024-01-01 12:00"]
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "</script><script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<!--<script>",
    "{{constructor.constructor('window.pwned=1')()}}",
    "' onmouseover='window.pwned=1' \"",
    "\u2028\u202e\ud7ff \x00\x1b[31m",
    "$policy ${data} &lt;b&gt;",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Rows of three clusters whose ids and texts try to be markup, and their page."""
    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    z = (np.eye(3, 8)[labels] * 9 + rng.normal(size=(300, 8))).astype(np.float32)
    texts = [
        ["apples grow", "boats sail", "clouds drift"][j] + f" number{i}"
        for i, j in enumerate(labels)
    ]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), 8)
    ids = [HOSTILE[i % len(HOSTILE)] + str(i) for i in range(300)]
    pq.write_table(pa.table({"id": ids, "text": texts, "v": vectors}), folder / "x.parquet")
    model = dinkcli.train(folder / "x.parquet", 3, device="cpu")
    title = "A & B </title><script>window.pwned = 1</script>"
    made = dinkcli.report(model, folder / "x.parquet", ids="id", texts="text", title=title)
    made.save(folder / "x.html")
    return folder / "x.html", made


@pytest.fixture(scope="module")
def stdlib_page(tmp_path_factory):
    """The page of the sample data and what it shows."""
    folder = tmp_path_factory.mktemp("stdlib")
    model = dinkcli.train(SAMPLES / "stdlib.parquet", 40, device="cpu", n_init=1)
    made = dinkcli.report(model, SAMPLES / "stdlib.parquet", ids="id")
    made.save(folder / "x.html")
    model.save(folder / "m.safetensors")
    return folder / "x.html", made


@pytest.fixture
def open_page(tmp_path):
    """``open_page(path, **size)`` opens a page from disk and waits until it is ready."""
    drivers = []

    def run(path, **options):
        driver = open_browser(tmp_path / f"profile{len(drivers)}", **options)
        drivers.append(driver)
        driver.get(f"file://{path}")
        deadline = time.monotonic() + 60
        while driver.execute_script("return document.body.dataset.ready") != "true":
            assert time.monotonic() < deadline, driver.get_log("browser")
            time.sleep(0.05)
        return driver

    yield run
    for driver in drivers:
        driver.quit()


def until(condition, seconds=20):
    """Returns when the condition is true; after those seconds all the same, for an assertion to
    say what it is instead."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def requests(driver) -> list[str]:
    """Addresses that the page asked for, besides itself and what it holds inline; a browser's own
    pages, such as that of a new tab, ask for others."""
    events = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    sent = (
        e["params"]["request"]["url"]
        for e in events
        if e["method"] == "Network.requestWillBeSent"
        and e["params"]["documentURL"].startswith("file:")
    )
    return [
        url for url in sent if not url.startswith(("file:", "data:", "blob:", "about:", "chrome:"))
    ]


def errors(driver) -> list[dict]:
    """What the page did wrong; a browser's own pages have addresses that begin with chrome."""
    return [
        entry
        for entry in driver.get_log("browser")
        if entry["level"] == "SEVERE" and not entry["message"].startswith("chrome")
    ]


def point_of_row(driver, row: int) -> tuple[int, int]:
    """Where on the screen the map shows a row."""
    return driver.execute_script("return dink.at(arguments[0])", row)


def chosen(driver) -> list[int]:
    """Rows that stand out on the map, where not all do."""
    return driver.execute_script("return dink.chosen()")


def tip(driver) -> str:
    """What the map says of the row under the mouse."""
    return driver.execute_script(
        "const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.textContent"
    )


def move(driver, x: float, y: float) -> None:
    mouse = ActionBuilder(driver)
    mouse.pointer_action.move_to_location(round(x), round(y))
    mouse.perform()


@needs_browser
def test_it_opens_from_disk_with_no_request_and_no_error(open_page, hostile):
    path, _ = hostile
    driver = open_page(path)
    assert errors(driver) == []
    assert requests(driver) == []
    assert driver.title == "A & B </title><script>window.pwned = 1</script>"
    assert len(driver.find_elements(By.CSS_SELECTOR, ".card")) == 3
    ink = driver.execute_script(
        "const sheet = document.getElementById('map'); return sheet.getContext('2d')"
        ".getImageData(0, 0, sheet.width, sheet.height).data.some((value) => value > 0)"
    )
    assert ink
    assert not driver.find_element(By.ID, "metrics").is_displayed()  # folded, as all details are


@needs_browser
@pytest.mark.slow
def test_hover_click_search_and_keyboard(open_page, hostile):
    path, made = hostile
    driver = open_page(path)
    move(driver, *point_of_row(driver, 7))
    until(lambda: "number7" in tip(driver))
    shown = driver.find_elements(By.CSS_SELECTOR, "#tip > *")
    assert [each.text for each in shown][1] == HOSTILE[0] + "7: boats sail number7"  # as text
    assert len(shown) == 2 and "boats" in shown[0].text  # the row, and its cluster's name

    ActionChains(driver).click().perform()
    cluster = int(made.labels[7])
    members = np.flatnonzero(made.labels == cluster).tolist()
    status = driver.find_element(By.ID, "status")
    until(lambda: sorted(chosen(driver)) == members and status.text)
    rows = chosen(driver)
    assert sorted(rows) == members
    card = driver.find_element(By.CSS_SELECTOR, f'.card[data-cluster="{cluster}"]')
    assert "chosen" in card.get_attribute("class")
    assert status.text == f"Cluster {cluster}: {len(rows)} rows on the map"

    box = driver.find_element(By.ID, "search")
    box.send_keys("number12")
    expected = [i for i, text in enumerate(made.texts) if "number12" in text]
    until(lambda: chosen(driver) == expected)
    assert chosen(driver) == expected == [12, *range(120, 130)]
    assert status.text == "11 rows found in 3 clusters"
    listed = driver.find_elements(By.CSS_SELECTOR, "#found li:not(.head)")
    assert len(listed) == 11 and len(driver.find_elements(By.CSS_SELECTOR, "#found .head")) == 3
    nearest = min(expected, key=lambda i: made.distances[i])
    assert HOSTILE[nearest % len(HOSTILE)] in listed[0].get_attribute("textContent")
    box.clear()
    box.send_keys("sail")  # is in a name, and in no id
    boats = int(made.labels[1])
    until(lambda: status.text.startswith("1 cluster by name"))
    assert status.text == "1 cluster by name, 100 rows found in 1 cluster"
    assert len(driver.find_elements(By.CSS_SELECTOR, ".card:not(.hidden)")) == 1
    box.send_keys(Keys.ENTER)
    assert driver.execute_script("return location.hash") == f"#cluster={boats}"

    box.send_keys(Keys.ESCAPE)
    until(lambda: chosen(driver) == [] and status.text == "")
    assert chosen(driver) == [] and status.text == ""
    button = driver.find_element(By.CSS_SELECTOR, ".card button")
    driver.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    assert button.get_attribute("aria-pressed") == "true"
    assert len(chosen(driver)) == made.quality.sizes.max()
    assert driver.execute_script("return window.pwned") is None
    assert errors(driver) == []


def dimmed(driver) -> set[int]:
    """Clusters whose name on the map is faint."""
    return set(
        driver.execute_script(
            """return [...document.querySelectorAll("#labels [data-cluster]")].filter((each) =>
            each.getAttribute("opacity") < 1).map((each) => Number(each.dataset.cluster))"""
        )
    )


@needs_browser
@pytest.mark.slow
def test_the_mouse_dims_and_a_card_brings_the_map(open_page, stdlib_page):
    """Names do not overlap; hover dims the others; a card zooms in, lists its rows by distance, and
    what is listed can be copied and saved."""
    path, made = stdlib_page
    driver = open_page(path)
    boxes = driver.execute_script(
        """return [...document.querySelectorAll("#labels text")].map((each) => {
        const b = each.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })"""
    )
    assert len(boxes) >= 15
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] - 4 or b[1] >= a[3] - 4

    card = driver.find_element(By.CSS_SELECTOR, ".card:nth-child(3)")
    cluster = int(card.get_attribute("data-cluster"))
    members = np.flatnonzero(made.labels == cluster)
    button = card.find_element(By.TAG_NAME, "button")
    ActionChains(driver).scroll_to_element(card).move_to_element(button).perform()
    assert sorted(chosen(driver)) == members.tolist()
    until(lambda: dimmed(driver))
    assert cluster not in dimmed(driver) and len(dimmed(driver)) >= 15
    driver.execute_script("scrollTo(0, 0)")
    move(driver, *point_of_row(driver, 7))
    until(lambda: not {cluster}.issuperset(made.labels[chosen(driver)]))
    hovered = made.labels[chosen(driver)]
    assert len(hovered) and len(set(hovered)) == 1 and hovered[0] not in dimmed(driver)
    assert hovered[0] != cluster
    assert driver.find_element(By.ID, "status").text == ""  # nothing is chosen yet

    assert driver.execute_script("return dink.zoom()") == 1
    driver.execute_script("arguments[0].click()", button)
    assert driver.execute_script("return dink.zoom()") > 1.2
    top = "return document.getElementById('map').getBoundingClientRect().top"
    until(lambda: 0 <= driver.execute_script(top) < 400)
    assert 0 <= driver.execute_script(top) < 400
    shown = driver.find_element(By.ID, "shown").text
    assert shown == f"all {len(members)}, nearest first"
    order = members[made.distances[members].argsort(kind="stable")]
    listed = driver.find_elements(By.CSS_SELECTOR, "#found li:not(.head)")
    assert listed[0].text.startswith(made.ids[order[0]])
    assert listed[-1].text.startswith(made.ids[order[-1]])

    saved = driver.execute_async_script(
        """const done = arguments[0]; URL.createObjectURL = (blob) => {
        blob.text().then(done); return "blob:none"; };
        HTMLAnchorElement.prototype.click = () => {};
        document.getElementById("save").click();"""
    )
    table = list(csv.DictReader(saved.splitlines()))
    assert [int(each["row"]) for each in table] == made.rows[order].tolist()
    assert [each["id"] for each in table] == [made.ids[i] for i in order]
    assert {each["cluster"] for each in table} == {str(cluster)}
    copied = driver.execute_async_script(
        """const done = arguments[0];
        Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => {
        done(text); } } }); document.getElementById("copy").click();"""
    )
    assert copied == saved
    assert errors(driver) == []


@needs_browser
@pytest.mark.slow
def test_a_lasso_picks_rows(open_page, hostile):
    path, _ = hostile
    driver = open_page(path)
    driver.find_element(By.ID, "lasso").click()
    box = driver.find_element(By.ID, "map").rect
    left, top = box["x"] + 15, box["y"] + 15
    right, bottom = box["x"] + box["width"] / 2, box["y"] + box["height"] - 15
    mouse = ActionBuilder(driver)
    mouse.pointer_action.move_to_location(round(left), round(top)).pointer_down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 5)):
        mouse.pointer_action.move_to_location(round(x), round(y))
    mouse.pointer_action.pointer_up()
    mouse.perform()
    until(lambda: chosen(driver))
    places = np.array([point_of_row(driver, i) for i in range(300)])
    inside = np.flatnonzero((places[:, 0] < right) & (places[:, 0] > left))
    assert 0 < len(inside) < 300
    assert sorted(chosen(driver)) == inside.tolist()
    assert driver.find_element(By.ID, "status").text == f"{len(inside)} rows picked"
    assert driver.find_element(By.ID, "save").is_enabled()


@needs_browser
@pytest.mark.slow
def test_cards_collapse_on_a_phone_and_the_tree_opens(open_page, stdlib_page):
    path, made = stdlib_page
    driver = open_page(path, width=400)
    folded = ".card details:not([open])"
    assert len(driver.find_elements(By.CSS_SELECTOR, folded)) == 40
    driver.find_element(By.CSS_SELECTOR, ".card summary").click()
    assert len(driver.find_elements(By.CSS_SELECTOR, folded)) == 39
    leaves_ = driver.find_elements(By.CSS_SELECTOR, ".tree .leaf")
    assert sorted(int(each.get_attribute("data-cluster")) for each in leaves_) == [*range(40)]
    group = driver.find_element(By.CSS_SELECTOR, ".tree > li > details")
    leaf = group.find_element(By.CSS_SELECTOR, ".leaf")
    assert not leaf.is_displayed()
    group.find_element(By.TAG_NAME, "summary").click()
    assert leaf.is_displayed() or group.find_elements(By.CSS_SELECTOR, "details")
    driver.execute_script("arguments[0].click()", leaf)
    cluster = int(leaf.get_attribute("data-cluster"))
    assert len(chosen(driver)) == made.quality.sizes[cluster]


@needs_browser
def test_an_address_opens_at_a_cluster_and_a_notch_of_the_wheel_zooms(open_page, stdlib_page):
    """Groups have names from afar, clusters from near; the map fills its frame."""
    path, made = stdlib_page
    driver = open_page(f"{path}#cluster=19")
    assert len(chosen(driver)) == made.quality.sizes[19]
    shown = driver.find_element(By.CSS_SELECTOR, "#found .head").text
    assert str(made.quality.sizes[19]) in shown
    zoom = "return dink.zoom()"
    assert driver.execute_script(zoom) > 1
    driver.find_element(By.ID, "clear").click()
    assert driver.execute_script("return location.hash + dink.zoom()") == "1"
    groups = "#labels [data-group]"
    until(lambda: driver.find_elements(By.CSS_SELECTOR, groups))
    assert len(driver.find_elements(By.CSS_SELECTOR, groups)) == made.groups.max() + 1
    stage = driver.find_element(By.ID, "stage").rect
    places = np.array([point_of_row(driver, row) for row in made.rows.tolist()])
    spread = np.ptp(places, axis=0) / [stage["width"], stage["height"]]
    assert (spread > 0.85).all() and (spread < 1).all()
    x, y = point_of_row(driver, 7)
    for notches, expected in ((1, 1.3), (1, 1.69), (-1, 1.3), (1, 1.69), (1, 2.197)):
        driver.execute_cdp_cmd(
            "Input.dispatchMouseEvent",
            {"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": -100 * notches},
        )
        until(lambda wanted=expected: abs(driver.execute_script(zoom) - wanted) < 1e-9)
        assert driver.execute_script(zoom) == pytest.approx(expected)
    np.testing.assert_allclose(point_of_row(driver, 7), [x, y], atol=1.5)  # stays there
    until(lambda: not driver.find_elements(By.CSS_SELECTOR, groups))
    assert not driver.find_elements(By.CSS_SELECTOR, groups)
    assert errors(driver) == []


def test_groups_and_names_of_the_page(stdlib_page):
    """A group is a node of the tree, named by its words."""
    path, made = stdlib_page
    found = re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"))[1]
    found, k = json.loads(found), 40
    nodes = {frozenset(node) for node in members(made.merges)}
    numbers = range(max(found["groups"]) + 1)
    groups = [frozenset(np.flatnonzero(made.groups == g)) for g in numbers]
    assert 7 <= len(groups) <= 12 and nodes >= set(groups) and sum(map(len, groups)) == k
    for group, name in zip(groups, found["groupNames"], strict=True):
        rows = np.flatnonzero(np.isin(made.labels, [*group]))
        known = " ".join(made.ids[i].lower() for i in rows)
        assert all(word in known for word in name.replace(",", "").split()), name
    first = np.frombuffer(base64.b64decode(found["x"]), "<f4")
    np.testing.assert_array_equal(first, made.points[:, 0])


@pytest.mark.parametrize(("level", "shown"), [(5, 5), (30, None)])
def test_groups_have_the_names_that_the_model_keeps(stdlib_page, level, shown):
    """The groups of a level that was named, unless it has more than a page shows."""
    path, without = stdlib_page
    model = dinkcli.load(path.with_name("m.safetensors"))
    groups = model.groups(level)
    for group in np.unique(groups):
        inside = tuple(np.flatnonzero(groups == group).tolist())
        model.group_names[inside] = f"Group of {inside[0]}"
    made = dinkcli.report(model, SAMPLES / "stdlib.parquet", ids="id", points=300, projection="pca")
    lowest = [int(np.flatnonzero(made.groups == i)[0]) for i in range(made.groups.max() + 1)]
    if shown is None:
        np.testing.assert_array_equal(made.groups, without.groups)
    else:
        assert len(lowest) == shown and set(lowest) == set(groups.tolist())
        assert made.group_names == [f"Group of {j}" for j in lowest]
        assert f'"groupNames":["Group of {lowest[0]}"' in made.page


@needs_browser
def test_the_tree_is_that_of_ward(open_page, stdlib_page):
    path, made = stdlib_page
    driver = open_page(path)
    inside = driver.execute_script(
        """return [...document.querySelectorAll(".tree details")].map((each) =>
        [...each.querySelectorAll(".leaf")].map((leaf) => Number(leaf.dataset.cluster)))"""
    )
    nodes = {frozenset(node) for node in members(made.merges)}
    assert len(inside) > 5 and nodes >= {frozenset(group) for group in inside}
    top = driver.execute_script("return document.querySelector('.tree').childElementCount")
    assert 2 <= top <= 12


@needs_browser
def test_columns_colour_the_map_and_posters(open_page, tmp_path):
    """What the page and the poster show, in the colours of a column, and that a poster is XML
    whatever the names are."""
    labels, kinds = np.arange(60) % 3, sorted(HOSTILE[i] for i in (1, 2, 4))
    z = (np.eye(3, 8)[labels] * 9).astype(np.float32)
    z += np.random.default_rng(0).normal(size=z.shape)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), 8)
    columns = {"v": vectors, "kind": [kinds[j] for j in labels], "n": list(range(60))}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    model = dinkcli.train(tmp_path / "x.parquet", 3, column="v", device="cpu")
    title = "A & B\x00\x1b " + HOSTILE[0]
    rows, columns = tmp_path / "x.parquet", ("kind", "n")
    made = dinkcli.report(model, rows, column="v", columns=columns, title=title)
    made.save(tmp_path / "x.html")
    driver = open_page(tmp_path / "x.html")
    for column, legend in (("kind", kinds), ("n", ["0", "29.5", "59"])):
        Select(driver.find_element(By.ID, "colour")).select_by_visible_text(column)
        shown = driver.find_elements(By.CSS_SELECTOR, "#legend button, #legend .ticks span")
        assert [each.text for each in shown] == [words.strip() for words in legend]
        poster = ElementTree.fromstring(driver.execute_script("return dink.poster()"))
        texts = ["".join(each.itertext()) for each in poster.iter(f"{SVG}text")]
        assert texts[0] == f"A & B {HOSTILE[0]}" and set(legend) < set(texts)
        paths = [each.get("d") for each in poster.iter(f"{SVG}path")]
        dots = [path.count("M") for path in paths if "h0" in path]
        assert sum(dots) == 60 and len(dots) == len({*made.colourings[column == "n"].codes})
    Select(driver.find_element(By.ID, "colour")).select_by_visible_text("kind")
    driver.find_element(By.CSS_SELECTOR, "#legend button").click()
    assert chosen(driver) == [*range(0, 60, 3)]
    kind = driver.execute_async_script(
        """const done = arguments[0]; URL.createObjectURL = (blob) => {
        createImageBitmap(blob).then((made) => done([blob.type, made.width, made.height]));
        return "blob:none"; };
        HTMLAnchorElement.prototype.click = () => {}; document.getElementById("png").click();"""
    )
    assert kind == ["image/png", 3840, 2160]
    assert errors(driver) == []
    drawn = ElementTree.fromstring(made.picture)
    texts = ["".join(each.itertext()) for each in drawn.iter(f"{SVG}text")]
    assert texts[0] == f"A & B {HOSTILE[0]}" and {*kinds, "0", "1", "2"} < set(texts)
    paths = [each for each in drawn.iter(f"{SVG}path") if "h0" in each.get("d")]
    assert [each.get("d").count("M") for each in paths] == [20, 20, 20]


@pytest.mark.parametrize(
    ("values", "codes", "legend"),
    [
        (["b", "a", None, "b"], [0, 1, 255, 0], ["b", "a", "none"]),
        ([2, 1, 2, 10], [1, 0, 1, 2], ["1", "2", "10"]),
        (["2", "1", "2", "10"], [1, 0, 1, 2], ["1", "2", "10"]),
        ([True, False, True, True], [0, 1, 0, 0], ["True", "False"]),
        ([0.0, 0.5, None, 1.0, np.nan], [0, 127, 255, 254, 255], ["0", "0.5", "1", "none"]),
        (
            [date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 3)],
            [0, 127, 254],
            ["2024-01-01", "2024-01-02", "2024-01-03"],
        ),
        (
            ["2024-01-01", "2024-01-02", "2024-01-03"],
            [0, 127, 254],
            ["2024-01-01", "2024-01-02", "2024-01-03"],
        ),
        ([*range(200), 10**6], [], None),
        ([*"abcdefghijklm", "a"], [*range(11), 11, 11, 0], [*"abcdefghijk", "2 others"]),
        ([["x"], ["y"], ["x"]], [0, 1, 0], ["['x']", "['y']"]),
        ([None, None], [255, 255], ["none"]),
        ([3.0, 1.0, 3.0, np.nan], [1, 0, 1, 255], ["1.0", "3.0", "none"]),
        (["2024-01-01 10:00:00", "2024-01-01 12:00:00"], [0, 254], TIMES),
        (pa.array(["u", "v", "u"]).dictionary_encode(), [0, 1, 0], ["u", "v"]),
    ],
)
def test_codes_of_a_column(values, codes, legend):
    found = colouring("c", pa.chunked_array([pa.array(values)]))
    if not codes:  # one far off leaves the others apart
        assert len(set(found.codes.tolist())) > 190 and found.codes[-1] == 254
        return
    assert found.codes.tolist() == codes
    assert [words for _, words in found.legend] == legend
    assert len(found.colours) == 256 and (
        found.is_scale or {code for code, _ in found.legend} >= set(codes)
    )


@needs_browser
def test_no_script_but_its_own_runs(open_page, hostile, tmp_path):
    """Even markup that slipped through escaping could do nothing."""
    path, _ = hostile
    holed = path.read_text(encoding="utf-8").replace(
        "<main>", "<main><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
    )
    (tmp_path / "holed.html").write_text(holed, encoding="utf-8")
    driver = open_page(tmp_path / "holed.html")
    assert driver.execute_script("return window.pwned") is None
    assert any("Content Security Policy" in entry["message"] for entry in errors(driver))


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_it_fits_phones_and_desks_in_light_and_dark(open_page, stdlib_page, width, dark):
    path, _ = stdlib_page
    driver = open_page(path, width=width, dark=dark)
    wide = driver.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    colours = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    ink, back = (luminance(c) for c in driver.execute_script(colours))
    assert (back < ink) == dark
    assert contrast(ink, back) >= 7
    soft = driver.execute_script("return getComputedStyle(document.querySelector('.note')).color")
    assert contrast(luminance(soft), back) >= 4.5
    card = "return getComputedStyle(document.querySelector('.mapbox')).backgroundColor"
    paper = luminance(driver.execute_script(card))
    names = "[...document.querySelectorAll('#labels text')]"  # at once: they are drawn anew
    fills = driver.execute_script(f"return {names}.map((each) => each.getAttribute('fill'))")
    shades = list(map(luminance, fills))
    assert len(shades) > 5 and min(contrast(shade, paper) for shade in shades) >= 4.5
    driver.find_element(By.ID, "theme").click()
    ink, back = (luminance(c) for c in driver.execute_script(colours))
    assert (back < ink) != dark and contrast(ink, back) >= 7
    image = base64.b64decode(driver.get_screenshot_as_base64())
    assert image.startswith(b"\x89PNG") and len(image) > 10_000
    assert errors(driver) == []


@needs_browser
def test_everything_has_a_name_for_a_screen_reader(open_page, hostile):
    path, _ = hostile
    driver = open_page(path)
    driver.find_element(By.CSS_SELECTOR, ".details > summary").click()
    named = driver.find_elements(By.CSS_SELECTOR, "button, input, select, [role=img]")
    named = [element for element in named if element.is_displayed()]
    assert {element.tag_name for element in named} >= {"button", "input", "select", "canvas", "svg"}
    for element in named:
        assert element.accessible_name, element.get_attribute("outerHTML")[:200]
    levels = [e.tag_name for e in driver.find_elements(By.CSS_SELECTOR, "h1, h2, h3")]
    assert levels[0] == "h1" and levels.count("h1") == 1
    assert driver.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"


@needs_browser
def test_fifty_thousand_points(open_page, tmp_path, dink):
    """Below 15 MB, and ready after less than 3 s of a processor's work in the browser."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 50, 50_000)
    z = (rng.normal(size=(50, 16)) * 3)[labels] + rng.normal(size=(50_000, 16))
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(z.astype(np.float32).reshape(-1)), 16)
    texts = [
        f"text of row {i}: " + "lorem ipsum dolor sit amet \u4f60\u597d " * 12
        for i in range(50_000)
    ]
    table = pa.table({"id": [f"row-{i}" for i in range(50_000)], "text": texts, "v": vectors})
    pq.write_table(table, tmp_path / "x.parquet")
    dinkcli.train(tmp_path / "x.parquet", 50, device="cpu", n_init=1, refine=False).save(
        tmp_path / "m"
    )
    dink("report", "m", "x.parquet", "--ids", "id", "--texts", "text", "-o", "x.html")
    assert os.path.getsize(tmp_path / "x.html") < 15e6
    driver = open_page(tmp_path / "x.html")
    found = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    seconds = {metric["name"]: metric["value"] for metric in found}
    assert 0.1 < seconds["TaskDuration"] < 3
    assert errors(driver) == []


@pytest.mark.slow
def test_the_sample_data_are_readable(stdlib_page):
    path, made = stdlib_page
    named = [set(" ".join(terms).split()) for terms in made.terms]
    for word in ("math", "asyncio", "curses", "email"):
        assert any(word in terms for terms in named), word
    assert made.quality.sizes.sum() == len(made.points) == 2719
    assert "Clusters of stdlib.parquet" in path.read_text(encoding="utf-8")


def test_the_map_is_the_principal_plane(blobs):
    from sklearn.decomposition import PCA

    z, _ = blobs
    model = dinkcli.train(z, 3, device="cpu")
    made = dinkcli.report(model, z, projection="pca")
    pca = PCA(2).fit(z.astype(np.float64))
    expected = pca.transform(z.astype(np.float64))
    sign = np.sign((made.points * expected).sum(0))
    np.testing.assert_allclose(made.points, expected * sign, rtol=1e-4, atol=1e-4)
    assert made.explained == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-6)
    few = dinkcli.report(model, z, points=40, projection="pca")
    assert len(few.points) == 40 and few.quality.rows == 300
    np.testing.assert_array_equal(few.labels, made.labels[few.rows])


@needs_browser
def test_little_data_make_a_page(open_page, tmp_path):
    """One or two clusters of few rows, or an empty one: without groups, tree or distances."""
    for case, (k, features) in enumerate([(1, 1), (2, 1), (1, 2), (2, 2), (4, 2)]):
        z = np.arange(4 * features, dtype=np.float32).reshape(4, features)
        model, rows = dinkcli.train(z, k, device="cpu"), z[: 1 + k // 2]
        made = dinkcli.report(model, rows)
        path = tmp_path / f"{case}.html"
        made.save(path)
        ElementTree.fromstring(made.picture)
        driver = open_page(path)
        assert errors(driver) == [] and len(driver.find_elements(By.CSS_SELECTOR, ".card")) == k
        assert f" in {k} cluster" in driver.find_element(By.TAG_NAME, "p").text


def test_terms():
    texts = ["HTTPServer the request", "http request handler", "sqrt of x_value", "cube_root value"]
    terms = distinctive_terms(texts, [0, 0, 1, 1], 3, number=2)
    assert terms[0] == ["http", "request"]
    assert terms[1][0] == "value"
    assert terms[2] == []
    (terms,) = distinctive_terms(["parseHTTPHeader snake_case and Ünïcode 42"], [0], 1)
    assert terms == ["case", "header snake", "parse http", "ünïcode"]


def luminance(colour: str) -> float:
    """WCAG's relative luminance of ``rgb(r, g, b)``."""
    channels = [int(v) / 255 for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: float, second: float) -> float:
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)
