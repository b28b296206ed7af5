"""Every op and loss has a page, with pictures whose numbers are those of jax.vjp, and words that say them."""

import inspect
import re
from pathlib import Path
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad.losses
from docs.pictures import DRAWINGS
from docs.pictures.__main__ import escaped
from docs.pictures.cells import Call, number
from handgrad import ops

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in (DOCS / "derivations").glob("*.md")}
IMAGE = re.compile(r"!\[([^\n]*?)\]\(\.\./images/ops/(\w+)\.svg\)")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawn():
    """All pictures, drawn once."""
    return {name: draw() for name, draw in DRAWINGS.items()}


def expected(call):
    """What the picture should show, by JAX's derivative of the plain formula or of the loss."""
    if isinstance(call, Call):
        arrays = [jnp.asarray(a) for a in call.arrays]
        given = [i for i, a in enumerate(arrays) if jnp.issubdtype(a.dtype, jnp.floating)]

        def op(*floats):
            full = [floats[given.index(i)] if i in given else a for i, a in enumerate(arrays)]
            return ops.RULES[call.name].op(*full, **call.settings)

        y, vjp = jax.vjp(op, *(arrays[i] for i in given))
        return [(call.y, y), *zip([call.gradients[i] for i in given], vjp(jnp.asarray(call.dy)), strict=True)]
    logits = jnp.asarray(call.logits)
    summed = jax.grad(lambda o: call.loss(o, call.labels, reduction=call.reduction).sum())(logits)
    return [(call.value, call.loss(logits, call.labels, reduction=call.reduction)), (call.dlogits, summed)]


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_shows_what_jax_computes(drawn, name):
    assert drawn[name].calls
    for call in drawn[name].calls:
        for ours, theirs in expected(call):
            np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_rows_of_a_picture_are_those_of_its_calls(drawn, name):
    """y, dy and dx are on it as they are in the call; curves are the call's own lines."""
    picture = drawn[name]
    rows = [values for _, values in picture.rows]
    lines = [line.get_ydata() for ax in picture.figure.axes for line in ax.lines]
    bars = [[bar.get_height() for bar in group] for ax in picture.figure.axes for group in ax.containers]
    shown = [np.ravel(values) for values in (*rows, *lines, *bars)]
    for call in picture.calls if name != "norm_sets" else ():
        wanted = (call.y, call.gradients[0]) if isinstance(call, Call) else (call.value, call.dlogits)
        if not isinstance(call, Call) and call.value.ndim == 0:
            wanted = wanted[1:]  # one number, in the words
        for values in wanted:
            assert any(contains(row, np.asarray(values)) for row in shown), (name, values)


def contains(row, values):
    """Whether a row of the picture holds these numbers: whole, by one column, or but for the gaps at kinks."""
    columns = (
        [values.ravel(), *(values[:, i] for i in range(values.shape[1]) if values.ndim == 2)] if values.ndim else []
    )
    if any(
        len(row) >= c.size and any(np.allclose(row[i : i + c.size], c) for i in range(len(row) - c.size + 1))
        for c in columns
    ):
        return True
    return len(row) > 20 and values.size > 20 and np.isin(row, values.ravel()).all()


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_file_is_the_picture(drawn, name):
    """Its words, and each row of numbers, cell by cell."""
    root = ElementTree.parse(DOCS / "images" / "ops" / f"{name}.svg").getroot()
    about = [element.text for element in root.iter() if element.tag.endswith("}description")]
    assert about == [drawn[name].alt], "run python -m docs.pictures"
    texts = ["".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")]
    for label, values in drawn[name].rows:
        cells = [number(value) for value in values]
        assert any(texts[i : i + len(cells)] == cells for i in range(len(texts))), (name, label, cells)


@pytest.mark.parametrize("page", PAGES)
def test_each_image_has_its_words(drawn, page):
    shown = IMAGE.findall(PAGES[page])
    assert shown or page == "index"
    for alt, name in shown:
        assert alt == escaped(drawn[name].alt), f"{page}: run python -m docs.pictures"
    assert PAGES[page].count("](../images/ops/") == len(shown), f"{page}: an image without alt text"


def test_each_picture_is_on_a_page():
    assert {name for text in PAGES.values() for _, name in IMAGE.findall(text)} == set(DRAWINGS)
    assert {file.stem for file in (DOCS / "images" / "ops").glob("*.svg")} == set(DRAWINGS)


@pytest.mark.parametrize("name", [name for name in ops.__all__ if name != "RULES"])
def test_each_op_has_a_page_that_documents_it(name):
    directive = "autoclass" if inspect.isclass(getattr(ops, name)) else "autofunction"
    found = [
        page for page, text in PAGES.items() if re.search(rf"^\.\. {directive}:: handgrad\.ops\.{name}$", text, re.M)
    ]
    assert len(found) == 1, f"{name}: one page should have .. {directive}:: handgrad.ops.{name}, found {found}"
    assert found == ["index"] or IMAGE.search(PAGES[found[0]])


@pytest.mark.parametrize("name", handgrad.losses.__all__)
def test_each_loss_has_a_page_that_documents_it(name):
    found = [page for page, text in PAGES.items() if re.search(rf"^\.\. autoclass:: handgrad\.{name}$", text, re.M)]
    assert len(found) == 1, f"{name}: one page should have .. autoclass:: handgrad.{name}, found {found}"
    assert IMAGE.search(PAGES[found[0]])


def test_the_index_lists_each_page_and_each_op():
    index = PAGES["index"]
    toctree = re.search(r"```\{toctree\}.*?```", index, re.S)
    assert toctree
    assert set(PAGES) - {"index"} <= set(toctree[0].split())
    for name in (*ops.RULES, *(set(handgrad.losses.__all__) - {"Loss"})):
        assert f"`{name}`" in index, name
