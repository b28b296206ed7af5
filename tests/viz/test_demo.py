"""The demo of small nets in the plane: its frames against plain descent by jax.grad, its page, and the page at work."""

import base64
import json
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from browser import browser, complaints, needs_browser, open_page, overflow
from handgrad.viz.demo_runs import demo_net, demo_runs, frame_steps
from pages import check_page

SMALL = {"hidden": [2, 3], "learning_rates": [0.5, 2], "momenta": [0, 0.9], "steps": 60, "frames": 8, "n": 40}


def tree(flat, hidden):
    """A frame's numbers as params of `demo_net`, in float64."""
    flat = jnp.asarray(flat, jnp.float64)
    kernel, bias, last = flat[: 2 * hidden].reshape(2, hidden), flat[2 * hidden : 3 * hidden], flat[3 * hidden :]
    return {"dense1": {"kernel": kernel, "bias": bias}, "dense2": {"kernel": last[:-1, None], "bias": last[-1:]}}


def flat(tree):
    first, second = tree["dense1"], tree["dense2"]
    return np.concatenate(
        [np.ravel(leaf) for leaf in (first["kernel"], first["bias"], second["kernel"], second["bias"])]
    )


def cross_entropy(params, x, y):
    """The formula, without any of handgrad."""
    first, second = params["dense1"], params["dense2"]
    o = jnp.tanh(x @ first["kernel"] + first["bias"][None]) @ second["kernel"] + second["bias"][None]
    return jnp.mean(jax.nn.softplus(o[:, 0] * (1 - 2 * y)))


@pytest.fixture(scope="module")
def runs():
    return demo_runs("circle", 3, [0.5, 2.0], [0.0, 0.9], steps=60, frames=8, n=40, seed=3)


@pytest.fixture(scope="module")
def data():
    x, y = hg.data.two_d_problem("circle", 40, 3)
    return jnp.asarray(x, jnp.float64), jnp.asarray(y, jnp.float64)


@pytest.mark.parametrize("number, rate, beta", [(0, 0.5, 0.0), (1, 0.5, 0.9), (2, 2.0, 0.0), (3, 2.0, 0.9)])
def test_a_run_is_plain_descent_by_jax_grad(runs, data, number, rate, beta):
    run, params, memory = runs[number], tree(runs[number].params[0], 3), 0.0
    assert (run.hidden, run.learning_rate, run.momentum) == (3, rate, beta)
    gradient = jax.jit(jax.value_and_grad(lambda flat: cross_entropy(tree(flat, 3), *data)))
    theta = flat(params)
    for step in range(61):
        loss, g = gradient(theta)
        if step in run.steps:
            frame = int(np.flatnonzero(run.steps == step)[0])
            # the run is in float32, and 60 steps at a rate of 2 make its rounding some ten times larger
            assert np.allclose(run.params[frame], theta, rtol=1e-4, atol=1e-4)
            assert np.allclose(run.grads[frame], g, rtol=1e-3, atol=1e-5)
            assert run.loss[frame] == pytest.approx(float(loss), rel=1e-4)
        memory = beta * memory + np.asarray(g)
        theta = theta - rate * memory


def test_all_runs_of_a_net_start_alike_as_its_init_does(runs):
    params, _ = demo_net(3).init(jax.random.key(3), (2,), jnp.float32)
    assert all(np.array_equal(run.params[0], flat(params)) for run in runs)
    assert jax.tree.all(jax.tree.map(np.array_equal, runs[0].tree(0), dict(params)))
    assert runs[0].params.dtype == runs[0].grads.dtype == runs[0].loss.dtype == np.float32


def test_frames_begin_one_by_one_and_end_at_the_last_step():
    steps = frame_steps(3000, 60)
    assert steps[:4].tolist() == [0, 1, 2, 3] and steps[-1] == 3000 and len(steps) == 60
    assert (np.diff(steps) > 0).all() and (np.diff(steps, 2)[5:] >= -1).all()
    assert frame_steps(4, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return hg.demo_2d(tmp_path_factory.mktemp("demo") / "new" / "demo.html", ("circle", "xor"), **SMALL, seed=3)


def held(page):
    """The data inside a page."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    return json.loads(text)


def numbers(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def test_the_page_is_whole_and_holds_the_runs(small, runs):
    page, found = check_page(small), held(small)
    assert {"map", "net", "bars", "loss", "step", "play", "readout", "choices"} <= set(page.ids)
    assert all(canvas["role"] == "img" for canvas in page.all("canvas"))
    (slider,) = [field for field in page.all("input") if field["type"] == "range"]
    assert slider["aria-label"] == "Frame of the training"
    assert len(found["runs"]) == 2 * 2 * 2 * 2 and found["steps"] == frame_steps(60, 8).tolist()
    kept = [run for run in found["runs"] if (run["problem"], run["hidden"]) == ("circle", 3)]
    for run, record in zip(runs, kept, strict=True):
        assert (record["rate"], record["momentum"]) == (run.learning_rate, run.momentum)
        assert np.array_equal(numbers(record["params"], "<f4"), run.params.ravel())
        assert np.array_equal(numbers(record["loss"], "<f4"), run.loss)
        assert np.allclose(numbers(record["grads"], "<f2"), run.grads.ravel(), rtol=1e-3, atol=1e-7)  # half precision
    x = numbers(found["problems"]["xor"], "<f4").reshape(-1, 2)
    assert np.array_equal(x, hg.data.two_d_problem("xor", 40, 3)[0])
    assert found["first"] == {"problem": "circle", "hidden": 3, "rate": 2, "momentum": 0.9}


def test_the_seed_fixes_the_page(small, tmp_path):
    again = hg.demo_2d(tmp_path / "a.html", ("circle", "xor"), **SMALL, seed=3)
    assert again.read_bytes() == small.read_bytes()
    assert held(hg.demo_2d(tmp_path / "b.html", "circle", **SMALL, seed=4))["runs"][0] != held(small)["runs"][0]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"problems": "moons"}, "two_d_problem: name must be one of circle, spirals, xor, got 'moons'"),
        ({"problems": []}, "demo_2d: problems must name at least one, got none"),
        ({"hidden": [2, 0]}, "demo_2d: hidden must be whole numbers from 1 on, got 0"),
        ({"hidden": []}, "demo_2d: hidden must name at least one"),
        ({"learning_rates": [0.0]}, "demo_2d: learning_rates must be above 0, got 0"),
        ({"learning_rates": ["fast"]}, "demo_2d: learning_rates must be finite numbers from 0 on, got 'fast'"),
        ({"learning_rates": float("inf")}, "demo_2d: learning_rates must be finite numbers from 0 on, got inf"),
        ({"momenta": [1.0]}, "demo_2d: momenta must be numbers from 0 up to, not with, 1, got 1.0"),
        ({"momenta": []}, "demo_2d: momenta must name at least one"),
        ({"activation": "sine"}, "demo_2d: activation must be one of relu, tanh, got 'sine'"),
        ({"frames": 1}, "demo_2d: frames must be at least 2, got 1"),
        ({"steps": 58}, "demo_2d: steps must be at least frames - 1, here 59, got 58"),
        ({"n": 5}, "two_d_problem: n must be an even number from 4 on, got 5"),
    ],
)
def test_errors_come_before_any_training(tmp_path, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        hg.demo_2d(tmp_path / "demo.html", **given)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_relu_and_the_defaults(tmp_path):
    relu = held(hg.demo_2d(tmp_path / "relu.html", "circle", **SMALL, activation="relu"))
    assert relu["activation"] == "relu"
    page = hg.demo_2d(tmp_path / "demo.html")
    assert page.stat().st_size < 600_000 and len(held(page)["runs"]) == 54
    final = {
        (run["problem"], run["hidden"], run["rate"], run["momentum"]): numbers(run["params"], "<f4").reshape(60, -1)[-1]
        for run in held(page)["runs"]
    }

    def right(problem, hidden, rate=1.0, momentum=0.9):
        x, y = hg.data.two_d_problem(problem, 160, 0)
        params = tree(final[problem, hidden, rate, momentum], hidden)
        logits = demo_net(hidden).apply(params, jnp.asarray(x, jnp.float64))[:, 0]
        return float(np.mean(np.asarray(logits > 0) == y))

    assert right("circle", 2) < 0.95 and right("circle", 3) == 1  # two lines cannot close a boundary, three can
    assert right("spirals", 3) < 0.9 and right("spirals", 8) == 1
    assert right("spirals", 8, 0.1, 0) < 0.9 and right("spirals", 8, 0.1, 0.9) == 1  # the same rate without and with β


# In a browser


@pytest.fixture(scope="module")
def opened(small):
    with browser() as driver:
        open_page(driver, small)
        yield driver
        assert complaints(driver) == []


def show(driver, frame, **choice):
    driver.execute_script("handgradDemo.play(false); handgradDemo.choose(arguments[0])", choice)
    driver.execute_script("handgradDemo.show(arguments[0])", frame)


def pictures(driver):
    return driver.execute_script(
        "return ['map', 'net', 'bars', 'loss'].map((id) => document.getElementById(id).toDataURL())"
    )


def text(driver, name):
    return driver.execute_script("return document.getElementById(arguments[0]).textContent", name)


def wait(condition):
    """Until it holds, on a machine however busy."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited a minute"
        time.sleep(0.05)


def state(driver):
    return driver.execute_script("return handgradDemo.state()")


@needs_browser
@pytest.mark.slow
def test_the_slider_moves_the_picture(opened):
    from selenium.webdriver.common.keys import Keys

    show(opened, 0, problem="circle", hidden=3, rate=0.5, momentum=0.9)
    slider, first, words = opened.find_element("id", "step"), pictures(opened), text(opened, "readout")
    slider.send_keys(Keys.END)
    assert state(opened)["frame"] == 7
    assert all(one != other for one, other in zip(first, pictures(opened), strict=True))
    losses = re.findall(r"loss ([\d.]+)", f"{words} {text(opened, 'readout')}")
    assert float(losses[1]) < 0.9 * float(losses[0])
    slider.send_keys(Keys.ARROW_LEFT)
    assert state(opened)["frame"] == 6 and "6" in slider.get_attribute("value")
    slider.send_keys(Keys.HOME)
    assert pictures(opened) == first


@needs_browser
@pytest.mark.slow
def test_play_advances_and_pause_stops(opened):
    """Within the page, whose clock a busy machine does not part from the test's."""
    show(opened, 7, problem="circle", hidden=3, rate=0.5, momentum=0.9)
    script = """const done = arguments[0], button = document.getElementById('play'), now = () => handgradDemo.state();
        const word = () => document.getElementById('play-word').textContent, found = {}, seen = [];
        const watch = new MutationObserver(() => {
          seen.push(now().frame);
          if (now().frame === 3 && !found.paused) {
            button.click();
            found.paused = [now(), word(), button.getAttribute('aria-pressed')];
            setTimeout(() => { found.later = now(); button.click(); }, 350);
          }
          if (now().frame === 7) setTimeout(() => { watch.disconnect(); done({ ...found, seen, end: now() }); }, 350);
        });
        watch.observe(document.getElementById('readout'), { childList: true });
        button.click();
        found.playing = [now().playing, word()];"""
    opened.set_script_timeout(120)
    found = opened.execute_async_script(script)
    assert found["playing"] == [True, "Pause"]
    paused, word, pressed = found["paused"]
    assert paused["frame"] == 3 and not paused["playing"] and (word, pressed) == ("Play", "false")
    assert found["later"] == paused
    assert found["seen"] == list(range(8))  # at the end it began again, went on from the pause, and stopped by itself
    assert found["end"]["frame"] == 7 and not found["end"]["playing"]


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("name, value", [("problem", "xor"), ("hidden", "2"), ("rate", "0.5"), ("momentum", "0")])
def test_each_choice_changes_the_picture(opened, name, value):
    show(opened, 7, problem="circle", hidden=3, rate=2, momentum=0.9)
    before = pictures(opened)
    (pill,) = opened.find_elements("css selector", f"input[name={name}][value='{value}']")
    pill.click()
    assert str(state(opened)[name]) == value and pill.is_selected()
    after = pictures(opened)
    assert after[0] != before[0] and after[3] != before[3]


@needs_browser
@pytest.mark.slow
def test_the_page_computes_the_net_that_handgrad_has(opened, small):
    points = np.random.default_rng(0).uniform(-1.25, 1.25, (40, 2))
    x, y = hg.data.two_d_problem("circle", 40, 3)
    for record in held(small)["runs"][:8]:
        hidden = record["hidden"]
        for frame in (0, 3, 7):
            show(opened, frame, **{name: record[name] for name in ("problem", "hidden", "rate", "momentum")})
            params = tree(numbers(record["params"], "<f4").reshape(8, -1)[frame], hidden)
            wanted = np.asarray(demo_net(hidden).apply(params, jnp.asarray(points)))[:, 0]
            found = opened.execute_script("return arguments[0].map((x) => handgradDemo.logit(...x))", points.tolist())
            assert np.allclose(found, wanted, rtol=1e-5, atol=1e-5)  # the page's weights are float32
            said = np.asarray(demo_net(hidden).apply(params, jnp.asarray(x, jnp.float64)))[:, 0] > 0
            assert f"wrong {int(np.sum(said != y))} of 40" in text(opened, "readout")


@needs_browser
@pytest.mark.slow
def test_the_map_is_orange_where_the_net_says_so(opened):
    show(opened, 7, problem="circle", hidden=3, rate=2, momentum=0.9)
    colour = """const c = document.getElementById('map'), at = (v) => Math.round((v / 1.25 + 1) / 2 * c.width);
        const pixel = (x, y) => c.getContext('2d').getImageData(at(x), at(-y), 1, 1).data.slice(0, 3);
        return arguments[0].map(([x, y]) => [handgradDemo.logit(x, y), ...pixel(x, y)])"""
    points = [[1.2, 1.2], [-1.2, 1.2], [1.2, -1.2], [0.02, -0.6], [0.5, 0.1]]
    opened.execute_script("document.getElementById('lines').click()")
    for logit, red, _, blue in opened.execute_script(colour, points):
        assert (red > blue) == (logit > 0)
    opened.execute_script("document.getElementById('lines').click()")


@needs_browser
@pytest.mark.slow
def test_the_table_has_the_numbers_of_the_frame(opened, small):
    record = held(small)["runs"][0]
    show(opened, 5, **{name: record[name] for name in ("problem", "hidden", "rate", "momentum")})
    opened.execute_script("document.getElementById('numbers').open = true")
    wait(lambda: opened.find_elements("css selector", "#table tbody td"))
    cells = [cell.text for cell in opened.find_elements("css selector", "#table tbody td")]
    values, slopes = (
        numbers(record[part], kind).reshape(8, -1)[5] for part, kind in (("params", "<f4"), ("grads", "<f2"))
    )
    found = [float(cell) for cell in cells[:8]]
    assert np.allclose(found[::2], values[[0, 2, 4, 6]], rtol=6e-3) and np.allclose(
        found[1::2], slopes[[0, 2, 4, 6]], rtol=0.06
    )


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width, dark", [(375, False), (375, True), (1280, True)])
def test_it_fits_and_follows_the_colour_scheme(small, width, dark):
    with browser(width, dark=dark) as driver:
        open_page(driver, small)
        show(driver, 7)
        assert overflow(driver) <= 0
        paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", paper))) < 60) == dark
        assert complaints(driver) == []
