"""The built documentation in a browser, at the width of a desktop and of a phone: `make docs` first."""

from pathlib import Path

import pytest

from browser import browser, complaints, needs_browser, overflow

BUILT = Path(__file__).parents[1] / "build" / "docs"
PAGES = sorted(path for folder in ("docs", "notebooks") for path in (BUILT / folder).rglob("*.html"))


def unfit(driver, page):
    """What is wrong with a page: errors, what lies beyond its edge, pictures that are missing or without words."""
    driver.get(page.resolve().as_uri())
    wrong = [*complaints(driver)]
    if beyond := overflow(driver):
        wrong.append(f"{beyond} pixels lie beyond the right edge")
    pictures = driver.execute_script(
        "return [...document.querySelectorAll('article img')].map(e => [e.src, e.complete && e.naturalWidth, e.alt])"
    )
    wrong += [f"{source[:90]} is missing" for source, width, _ in pictures if not width]
    wrong += [f"{source[:90]} has no words" for source, _, alt in pictures if not alt]
    return [f"{page.relative_to(BUILT)}: {each}" for each in wrong]


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_fits_and_has_its_pictures(width):
    if not PAGES:
        pytest.skip("the documentation has not been built: make docs")
    with browser(width, 900) as driver:
        wrong = [each for page in PAGES for each in unfit(driver, page)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@needs_browser
def test_formulas_are_set_without_a_network():
    page = BUILT / "notebooks" / "02_backprop_by_hand.html"
    if not page.exists():
        pytest.skip("the documentation has not been built: make docs")
    with browser() as driver:
        driver.get(page.resolve().as_uri())
        driver.set_script_timeout(60)
        typeset = "const done = arguments[0]; MathJax.startup.promise.then(() => done(true))"
        assert driver.execute_async_script(typeset)
        formulas, errors = driver.execute_script(
            "return ['mjx-container', 'mjx-merror'].map(each => document.querySelectorAll(each).length)"
        )
        assert formulas > 5 and errors == 0
