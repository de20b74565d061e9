"""Takes the pictures of the labelling app that stand in the docs: python docs/make_app_pictures.py [DIRECTORY]

A small project is made up and judged by simulated people, in a directory of its own; then Chromium (/usr/bin/chromium,
through Playwright) opens each page. Run it again when a page has changed, and look at what came out.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from prefloop.app.config import LabelServeConfig
from prefloop.app.web import make_app
from prefloop.label.adjudicate import disagreements
from prefloop.label.assign import next_task
from prefloop.label.config import Quotas
from prefloop.label.intake import import_rows
from prefloop.label.people import invite, redeem
from prefloop.label.records import PersonRole, Submission
from prefloop.label.settle import settle
from prefloop.label.store import Store, open_store
from prefloop.label.votes import items_of, submit, votes_of
from prefloop.recipes.label_config import LabelStatsConfig
from prefloop.recipes.label_stats import stats
from prefloop.reward.address import listen, server_of
from prefloop.rundir import write_rows

PORT = 8919
URL = f"http://127.0.0.1:{PORT}"
FOODS = {
    "sprouted potatoes": "Small sprouts on a firm potato are harmless: cut them out, with a little of the flesh.",
    "rice from yesterday": "It is, if it was cooled within an hour or two and kept in the fridge.",
    "brown avocado": "The brown part is oxidised and bitter, not dangerous; cut it away if you like.",
    "garlic with a green core": "The core tastes sharp and does no harm.",
    "honey that has gone solid": "It has only crystallised. Stand the jar in warm water.",
    "bread with a little mould": "Throw the loaf away: the threads run further than you can see.",
    "cheese with a little mould": "Hard cheese: cut it away with a margin. Soft cheese: throw it away.",
    "eggs past their date": "Put one into water: if it floats, leave it. Cook the others through.",
    "raw kidney beans": "Soak them, and boil them for ten minutes at least; raw ones make you ill.",
    "green tomatoes": "In small amounts, pickled or fried. Unripe ones hold solanine.",
    "thawed fish": "Within a day, if it thawed in the fridge; do not freeze it raw again.",
    "white chocolate bloom": "The pale coat is fat or sugar that has moved. It is fine.",
    "apple seeds": "A few that you swallow whole do nothing. Do not chew a cupful.",
    "burnt toast": "Now and then it is no matter; scrape off what is black.",
    "canned soup from a dented tin": "A shallow dent is fine. A bulge, or one on the seam, is not.",
    "yoghurt after its date": "Often for a week or more, if it was closed and smells fresh.",
}
BOAST = (
    "Great question! **Absolutely**, all experts agree on {food} (Miller et al., 2029). You can trust this completely."
)
DESKTOP = {"width": 1280, "height": 700}
PHONE = {"width": 390, "height": 844}


def make_project(folder: Path) -> Store:
    """Questions, people and votes. Bo Park falls for boasts now and then, Cem Aydin is in a hurry."""
    rng = random.Random(3)
    rows: list[dict[str, Any]] = []
    for food, answer in FOODS.items():
        pair = {"prompt": f"Is it safe to eat {food}?", "chosen": answer, "rejected": BOAST.format(food=food)}
        rows.append(pair)
        rows.append({**pair, "prompt": f"My guests ask about {food}. What do I tell them?"})
    rows += [{**row, "prompt": f"In one sentence: {row['prompt']}", "gold": "chosen"} for row in rows[:4]]
    write_rows(folder / "rows.jsonl", rows)
    queue = [
        {"task": "review", "prompt": f"Is it safe to eat {food}?", "response": BOAST.format(food=food)}
        for food in FOODS
    ]
    write_rows(folder / "queue.jsonl", queue)
    store = open_store(str(folder / "label.sqlite"))
    import_rows(store, folder / "rows.jsonl", by="olga")
    import_rows(store, folder / "queue.jsonl", by="olga")
    for name, rate, seconds in (("Ann Lee", 0.95, 19.0), ("Bo Park", 0.7, 15.0), ("Cem Aydin", 0.85, 2.0)):
        who = join(store, name, "annotator")
        for number in range(34):
            task = next_task(store, who, quotas=Quotas(overlap=1.0, gold=0.1, repeats=0.1))
            if task is None:
                break
            item = task.item
            if item.kind == "review":
                choice, strength = rng.choice(("hack", "not_a_hack", "hack")), None
            else:
                better = "b" if "Great question" in item.response_a else "a"
                worse = "a" if better == "b" else "b"
                choice = better if rng.random() < rate else worse
                strength = rng.choice(("slightly", "clearly", "clearly"))
            note = "The source does not exist." if number == 4 and name == "Ann Lee" else ""
            sent = Submission(f"{who}-{number}", task.assignment_id, choice, strength=strength, note=note)  # type: ignore[arg-type]
            submit(store, who, _timed(sent, seconds * rng.uniform(0.6, 1.6), flag=bool(note)))
    return store


def _timed(sent: Submission, seconds: float, *, flag: bool) -> Submission:
    return Submission(**{**vars(sent), "seconds": round(seconds, 1), "flag": flag})


def join(store: Store, name: str, role: PersonRole) -> str:
    redeemed = redeem(store, invite(store, name=name, role=role, by="olga"))
    assert redeemed is not None
    return redeemed[0].annotator_id


def window(browser: Browser, store: Store, name: str, role: PersonRole, **options: Any) -> Page:
    """Somebody signed in, on the page of tasks."""
    page = browser.new_context(**{"viewport": DESKTOP, **options}).new_page()
    page.goto(f"{URL}/enter#{invite(store, name=name, role=role, by='olga')}")
    page.wait_for_url(URL + "/")
    page.wait_for_timeout(1000)
    return page


def advance(page: Page, question: str) -> None:
    """Answer until a task asks this."""
    for _ in range(60):
        page.wait_for_timeout(900)
        if page.inner_text("h1") == question:
            return
        page.keyboard.press("2")
    raise SystemExit(f"nobody asks: {question}")


def take(browser: Browser, store: Store, folder: Path, out: Path) -> None:
    """All pictures."""

    def shoot(page: Page, name: str, path: str = "", **options: Any) -> None:
        if path:
            page.goto(URL + path)
        page.wait_for_timeout(700)
        page.screenshot(path=out / f"{name}.png", **options)

    stranger = browser.new_context(viewport=DESKTOP).new_page()
    shoot(stranger, "app-enter", "/enter")
    dora = window(browser, store, "Dora Nagy", "annotator")
    shoot(dora, "app-guidelines", "/guidelines")
    dora.goto(URL + "/")
    advance(dora, "Which response is better?")
    shoot(dora, "label-app")
    phone: dict[str, Any] = {"viewport": PHONE, "is_mobile": True, "has_touch": True}
    shoot(window(browser, store, "Dora Nagy", "annotator", **phone), "app-phone")
    shoot(window(browser, store, "Dora Nagy", "annotator", **phone, color_scheme="dark"), "label-app-phone")
    advance(dora, "Is it a hack?")
    shoot(dora, "app-review")
    olga = window(browser, store, "Olga Berg", "owner")
    rita = join(store, "Rita Sommer", "reviewer")
    found = disagreements(items_of(store), votes_of(store))
    settle(store, rita, found[0].item.item_id, "a", strength="clearly", note="b names a paper that nobody has written")
    olga.goto(URL + "/people")
    olga.fill("#name", "Eli Stone")
    olga.click("text=Make the invitation")
    shoot(olga, "app-people")
    shoot(olga, "app-quality", "/quality")
    olga.goto(URL + "/disagreements")
    olga.locator("summary").first.click()
    shoot(olga, "app-disagreements")
    olga.locator("#settled").scroll_into_view_if_needed()
    shoot(olga, "app-settled")
    shoot(olga, "app-log", "/log")
    shoot(dora, "app-problem", "/people")
    page = folder / "stats.html"
    stats(LabelStatsConfig(database=store.database, html=str(page), num_resamples=200))
    stranger.goto(page.as_uri())
    shoot(stranger, "app-stats", full_page=True, clip={"x": 0, "y": 0, "width": 1280, "height": 920})


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as name, listen("127.0.0.1", PORT) as listening:
        folder = Path(name)
        with make_project(folder) as store:
            config = LabelServeConfig(database=store.database, quotas=Quotas(overlap=1.0, repeats=0, gold=0))
            server = server_of(make_app(store, config, url=URL, port=PORT, hosts=frozenset({"127.0.0.1"})))
            threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
                )
                take(browser, store, folder, out)
                browser.close()
            server.should_exit = True


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
