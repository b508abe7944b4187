"""The board's page in a real Chromium, fed by the test in place of Kafka."""

import re

import pytest

from tests.support.board_stand import board_stand, heard, raised, record, written
from tests.support.worker_process import wait_until
from worker.board.server import MAX_VIEWERS

CANARY = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'


def chats_in(page, part="troubled"):
    return page.locator(f"#{part} .chat h3").all_inner_texts()


def wait_for_order(page, *chats, part="troubled"):
    page.wait_for_function(
        "([part, chats]) => JSON.stringify([...document.querySelectorAll(`#${part} .chat h3`)].map(e => e.textContent)) === "
        "JSON.stringify(chats)",
        arg=[part, list(chats)],
    )


def test_chats_in_trouble_are_shown_first_and_move_up_as_they_sour(stand, open_page):
    stand.take(
        record(heard("calm-1", 0.1, "gratitude", ago_s=30)),
        record(heard("bad-1", 0.8, "anger", operator="op-timur", ago_s=400)),
        record(raised("bad-1", 0.8, "anger", operator="op-timur", ago_s=400)),
        record(raised("bad-2", 0.95, "disgust", ago_s=60)),
    )
    page = open_page(stand)
    wait_for_order(page, "bad-2", "bad-1")
    wait_for_order(page, "calm-1", part="others")
    row = page.locator("#troubled .chat", has_text="bad-1").inner_text()
    assert all(each in row for each in ("op-timur", "anger", "in trouble", "6 min", "one harsh message"))
    assert page.locator("#trouble .number").inner_text() == "2"
    stand.take(record(raised("bad-3", 0.99, "anger")))
    wait_for_order(page, "bad-3", "bad-2", "bad-1")
    assert page.locator("#stream .raised h3").all_inner_texts() == ["bad-3", "bad-2", "bad-1"]
    assert "awaits another operator" in page.locator("#stream .raised").first.inner_text()
    page.locator("#news", has_text="New escalation: chat bad-3, operator op-anna").wait_for(state="attached")


def test_another_operator_ends_the_trouble_on_the_page(stand, open_page):
    stand.take(record(heard("bad-1", 0.9, "anger", ago_s=100)), record(raised("bad-1", ago_s=100)))
    page = open_page(stand)
    wait_for_order(page, "bad-1")
    stand.take(record(heard("bad-1", author="operator", operator="op-vera", ago_s=1)))
    page.locator("#calm").wait_for()
    wait_for_order(page, "bad-1", part="others")
    assert "with op-vera after 1 min" in page.locator("#stream .raised").inner_text()


def test_language_and_theme_are_switched_and_remembered(stand, open_page):
    stand.take(record(raised("bad-1", 0.9, "anger", "annoyance")))
    page = open_page(stand, color_scheme="light")
    page.get_by_role("heading", name="Chat tone").wait_for()
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Русский").click()
    page.get_by_role("button", name="Тёмное").click()
    page.reload()
    page.get_by_role("heading", name="Тон чатов").wait_for()
    assert page.locator("html").get_attribute("lang") == "ru"
    assert "гнев, раздражение" in page.locator("#stream .raised").inner_text()
    assert page.evaluate(background) != light
    assert page.get_by_role("button", name="Тёмное").get_attribute("aria-pressed") == "true"


def test_a_russian_browser_is_spoken_to_in_russian_and_a_dark_one_darkly(stand, browser):
    context = browser.new_context(locale="ru-RU", color_scheme="dark")
    page = context.new_page()
    page.goto(stand.url)
    page.get_by_role("heading", name="Тон чатов").wait_for()
    red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3])
    assert max(red, green, blue) < 60
    context.close()


def test_everything_is_reached_by_keyboard_with_the_focus_visible(stand, open_page):
    stand.take(record(heard("bad-1", 0.9, "anger", operator="op-vera")), record(raised("bad-1", operator="op-vera")))
    stand.take(record(heard("other-1", 0.1, "neutral", operator="op-anna")))
    page = open_page(stand)
    wait_for_order(page, "bad-1")
    walked = []
    for _ in range(14):
        page.keyboard.press("Tab")
        walked.append(page.evaluate("(e => e.textContent.trim().slice(0, 20) || e.id)(document.activeElement)"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", walked
        if walked[-1].startswith("bad-1") and walked.count("bad-1") > 1:
            break
    assert walked[:6] == ["To the chats", "Русский", "English", "Auto", "Light", "Dark"]
    assert walked[6:11] == ["search", "bad-1", "op-vera", "other-1", "op-anna"]
    page.locator("#troubled .who .name").focus()
    page.keyboard.press("Enter")
    wait_for_order(page, part="others")
    wait_for_order(page, "bad-1")
    assert page.locator("#search").input_value() == "op-vera"
    page.keyboard.press("Escape")
    wait_for_order(page, "other-1", part="others")


def test_focus_stays_where_it_is_while_chats_move(stand, open_page):
    stand.take(record(raised("bad-1", 0.6, ago_s=5)), record(raised("bad-2", 0.5, ago_s=5)))
    page = open_page(stand)
    wait_for_order(page, "bad-1", "bad-2")
    page.locator("#troubled .chat h3 .name", has_text="bad-2").focus()
    stand.take(record(raised("bad-2", 0.99)))
    wait_for_order(page, "bad-2", "bad-1")
    assert page.evaluate("document.activeElement.textContent") == "bad-2"


def test_a_search_is_answered_by_the_server(stand, open_page):
    stand.take(*[record(heard(f"chat-{number:04}", 0.1, "neutral", operator=f"op-{number % 7}")) for number in range(500)])
    page = open_page(stand)
    page.locator("#others .chat").first.wait_for()
    assert page.locator("#others .chat").count() == 60
    page.get_by_label("Chat or operator").fill("chat-0427")
    wait_for_order(page, "chat-0427", part="others")
    assert page.locator("#found").inner_text() == "1 found"
    page.get_by_label("Chat or operator").fill("op-3")
    page.locator("#found", has_text="71 found, the first 60 are shown").wait_for()
    page.get_by_label("Chat or operator").fill(CANARY)
    page.locator("#empty", has_text="Nothing found").wait_for()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (("live",), "No messages yet."),
        (("broker_down",), "Kafka has not answered since"),
        (("topics_missing", "chat.emotions"), "Topics missing in Kafka: chat.emotions. Create them"),
        (("catching_up",), "reading recent history"),
    ],
)
def test_what_is_the_matter_is_said_in_words(stand, open_page, told, words):
    stand.tell(*told)
    page = open_page(stand)
    page.get_by_text(words).wait_for()


def test_a_broker_that_comes_back_clears_the_warning_and_what_was_known_stays(stand, open_page):
    stand.take(record(raised("bad-1")))
    page = open_page(stand)
    wait_for_order(page, "bad-1")
    stand.tell("broker_down")
    page.locator("#notice", has_text="Kafka has not answered").wait_for()
    assert chats_in(page) == ["bad-1"]
    stand.tell("live")
    page.locator("#notice").wait_for(state="hidden")


def test_a_board_that_stops_is_told_of_and_reconnected_to(open_page):
    with board_stand() as first:
        page = open_page(first)
        page.get_by_text("No messages yet.").wait_for()
        port = int(first.url.rstrip("/").rpartition(":")[2])
    page.locator("#notice", has_text="connection to the board is lost").wait_for()
    with board_stand(port=port) as second:
        second.take(record(raised("bad-1")))
        wait_for_order(page, "bad-1")
        page.locator("#notice").wait_for(state="hidden")


def test_too_many_viewers_are_told_so(stand, open_page):
    page = open_page(stand)
    page.get_by_text("No messages yet.").wait_for()
    stand.call(lambda: setattr(stand.feed.show, "viewers", MAX_VIEWERS))
    other = open_page(stand)
    other.locator("#notice", has_text=f"open {MAX_VIEWERS} times already").wait_for()
    stand.call(lambda: setattr(stand.feed.show, "viewers", 1))


def test_a_page_that_is_closed_counts_no_longer(stand, open_page):
    page = open_page(stand)
    page.get_by_text("No messages yet.").wait_for()
    assert stand.feed.show.viewers == 1
    page.context.close()
    wait_until(lambda: stand.feed.show.viewers == 0, what="the page is counted no longer")


def test_texts_are_absent_unless_the_setting_says_so(stand, open_page):
    stand.take(record(heard("bad-1", 0.9, "anger")), record(raised("bad-1")), written("bad-1", "секретное слово"))
    page = open_page(stand)
    wait_for_order(page, "bad-1")
    assert "секретное слово" not in page.content()
    assert "секретное слово" not in repr([list(each.texts) for each in stand.feed.state.chats])


def test_texts_are_shown_when_the_setting_says_so(open_page):
    with board_stand(shows_texts=True) as stand:
        stand.take(written("bad-1", "Где деньги?"), written("bad-1", "Сейчас посмотрю.", author="operator"))
        stand.take(record(heard("bad-1", 0.9, "anger")), record(raised("bad-1")))
        page = open_page(stand)
        wait_for_order(page, "bad-1")
        assert page.locator(".texts p").all_inner_texts() == ["Client\nГде деньги?", "Operator\nСейчас посмотрю."]


def test_what_comes_from_kafka_is_text_and_nothing_else(open_page):
    with board_stand(shows_texts=True) as stand:
        stand.take(written(CANARY, CANARY), record(heard(CANARY, 0.9, "anger", operator=CANARY)))
        stand.take(record(raised(CANARY, 0.9, CANARY, operator=CANARY, reason="sustained")))
        stand.take(record(heard("safe", 0.9, CANARY, operator=CANARY)))
        page = open_page(stand)
        wait_for_order(page, CANARY)
        page.get_by_role("button", name="Русский").click()
        page.locator("#troubled .who .name").first.click()
        page.locator("#found", has_text="2").wait_for()
        assert page.locator(".texts span").first.inner_text() == CANARY
        assert page.locator("img, #troubled script, #stream script").count() == 0
        assert page.evaluate("window.pwned") is None


def test_the_page_cannot_be_made_to_run_or_load_anything_else(stand, open_page):
    page = open_page(stand)
    page.get_by_text("No messages yet.").wait_for()
    refused = page.evaluate("""async () => {
        const refused = [];
        window.directives = new Set();
        document.addEventListener("securitypolicyviolation", event => window.directives.add(event.effectiveDirective));
        try { document.body.innerHTML = "<b>x</b>"; } catch { refused.push("innerHTML"); }
        try { document.createElement("script").text = "1"; } catch { refused.push("script"); }
        try { await fetch("http://localhost:9/"); } catch { refused.push("fetch"); }
        const image = new Image();
        await new Promise(over => { image.onerror = over; image.src = "http://localhost:9/x.png"; });
        document.body.append(Object.assign(document.createElement("iframe"), { src: "http://localhost:9/" }));
        return refused;
    }""")
    assert refused == ["innerHTML", "script", "fetch"]
    # Nothing answers there anyway: that it was the policy which refused, the policy says.
    page.wait_for_function("() => ['connect-src', 'img-src', 'frame-src'].every(each => window.directives.has(each))")
    open_page.errors.clear()  # the browser's own account of these refusals


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(open_page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with board_stand(shows_texts=True) as stand:
        stand.take(written("bad-1", "Где деньги?"))
        for chat, negativity, label in (("bad-1", 0.9, "anger"), ("tense-1", 0.7, "annoyance"), ("calm-1", 0.0, "joy")):
            stand.take(record(heard(chat, 0.2, "neutral", ago_s=20)), record(heard(chat, negativity, label, ago_s=10)))
        stand.take(record(raised("bad-1", ago_s=10)), record(raised("gone-1", ago_s=3000)))
        page = open_page(stand, color_scheme=scheme, reduced_motion="reduce")
        wait_for_order(page, "bad-1")
        found = axe.Axe().run(page).response["violations"]
        stand.tell("broker_down")
        page.locator("#notice", has_text="Kafka").wait_for()
        found += axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
