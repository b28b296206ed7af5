"""Every op and loss has a page, with pictures whose numbers are those of jax.vjp, and words that say them."""

import functools
import inspect
import re
from pathlib import Path
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from docs.pictures import DRAWINGS
from docs.pictures.__main__ import escaped
from docs.pictures.cells import Call, number

import handgrad.losses
from handgrad import ops

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in (DOCS / "derivations").glob("*.md")}
IMAGE = re.compile(r"!\[([^\n]*?)\]\(\.\./images/ops/(\w+)\.svg\)")
SVG = "{http://www.w3.org/2000/svg}"


@functools.cache
def drawn(name):
    """That picture, drawn once."""
    return DRAWINGS[name]()


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


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_shows_what_jax_computes(name):
    assert drawn(name).calls
    for call in drawn(name).calls:
        for ours, theirs in expected(call):
            np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DRAWINGS if name != "norm_sets"])  # that one has no numbers
def test_a_picture_shows_its_calls(name):
    """The output and the first gradient of each are a row of cells, a curve or bars."""
    picture = drawn(name)
    rows = [values for _, values in picture.rows]
    curves = [line.get_ydata() for ax in picture.figure.axes for line in ax.lines]
    bars = [[bar.get_height() for bar in group] for ax in picture.figure.axes for group in ax.containers]
    for call in picture.calls:
        ours = (call.y, call.gradients[0]) if isinstance(call, Call) else (call.value, call.dlogits)
        for numbers in (np.asarray(array) for array in ours if array.ndim):  # one number alone is in the words
            column = numbers[:, 0] if len(numbers) > 20 and numbers.ndim == 2 else numbers.ravel()
            whole = any(within(column, row) for row in (*rows, *bars, *curves))
            assert whole or any(len(curve) > 20 and within(curve, column) for curve in curves), (name, numbers)


def within(few, many):
    """Whether these numbers stand side by side among those."""
    few, many = np.ravel(few), np.ravel(many)
    return any(np.allclose(few, many[i : i + len(few)]) for i in range(len(many) - len(few) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWINGS)
def test_the_file_is_the_picture(name):
    """Its words, and each row of numbers, cell by cell."""
    root = ElementTree.parse(DOCS / "images" / "ops" / f"{name}.svg").getroot()
    about = [element.text for element in root.iter() if element.tag.endswith("}description")]
    assert about == [drawn(name).alt], "run python -m docs.pictures"
    texts = ["".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")]
    for label, values in drawn(name).rows:
        cells = [number(value) for value in values]
        assert any(texts[i : i + len(cells)] == cells for i in range(len(texts))), (name, label, cells)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_each_image_has_its_words(page):
    shown = IMAGE.findall(PAGES[page])
    assert shown or page == "index"
    for alt, name in shown:
        assert alt == escaped(drawn(name).alt), f"{page}: run python -m docs.pictures"
    assert PAGES[page].count("](../images/ops/") == len(shown), f"{page}: an image without alt text"


def test_each_picture_is_on_a_page():
    assert {name for text in PAGES.values() for _, name in IMAGE.findall(text)} == set(DRAWINGS)
    assert {file.stem for file in (DOCS / "images" / "ops").glob("*.svg")} == set(DRAWINGS)


def documented_on(directive):
    """The one page that has this directive."""
    pages = [page for page, text in PAGES.items() if directive in text.splitlines()]
    assert len(pages) == 1, f"one page should have {directive}, found {pages}"
    return pages[0]


@pytest.mark.parametrize("name", [name for name in ops.__all__ if name != "RULES"])
def test_each_op_has_a_page_that_documents_it(name):
    page = documented_on(
        f".. auto{'class' if inspect.isclass(getattr(ops, name)) else 'function'}:: handgrad.ops.{name}"
    )
    assert page == "index" or IMAGE.search(PAGES[page])


@pytest.mark.parametrize("name", sorted(set(handgrad.losses.__all__) - {"Loss"}))
def test_each_loss_has_a_page_that_documents_it(name):
    assert IMAGE.search(PAGES[documented_on(f".. autoclass:: handgrad.{name}")])


def test_the_index_lists_each_page_and_each_op():
    index = PAGES["index"]
    toctree = re.search(r"```\{toctree\}.*?```", index, re.S)
    assert toctree
    assert set(PAGES) - {"index"} <= set(toctree[0].split())
    for name in (*ops.RULES, *(set(handgrad.losses.__all__) - {"Loss"})):
        assert f"`{name}`" in index, name
