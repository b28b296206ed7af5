"""Pages in a browser without a window, for tests: Debian's Chromium, driven by its chromedriver."""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not CHROMIUM or not DRIVER or importlib.util.find_spec("selenium") is None,
    reason="needs chromium and chromedriver (apt-get install chromium chromium-driver) and the package selenium",
)


@contextlib.contextmanager
def browser(width: int = 1280, height: int = 800, dark: bool = False) -> Iterator[Any]:
    """A driver whose window has this size; `logs` collects what a page says on its console."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER, log_output=os.devnull))
    try:
        size: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield driver
    finally:
        driver.quit()


def complaints(driver: Any) -> list[str]:
    """What the page's console has of errors."""
    return [line["message"] for line in driver.get_log("browser") if line["level"] == "SEVERE"]


def open_page(driver: Any, page: Path) -> None:
    """Load a file; it must load nothing else and complain of nothing."""
    driver.get(page.resolve().as_uri())
    assert complaints(driver) == []
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0


def overflow(driver: Any) -> int:
    """How many pixels of the page lie beyond its right edge."""
    return driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
