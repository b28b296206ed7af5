"""What a run's folder says of the run: notes that add up, the test that is kept, and what fit writes by itself."""

import json

import jax
import numpy as np
import pytest

import handgrad as hg
from handgrad.insight.report import Report, Row
from handgrad.training import note_run, note_test, read_run
from handgrad.training.run_record import KEPT_IMAGES


def test_notes_add_up_and_are_strict_json(tmp_path):
    note_run(tmp_path / "new", a=1, b=float("nan"))
    note_run(tmp_path / "new", b=(np.float32(0.5), np.int64(3)), c={"deep": float("inf")})
    text = (tmp_path / "new" / "run.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": 1, "b": [0.5, 3], "c": {"deep": None}}
    with pytest.raises(TypeError, match="not JSON serializable"):
        note_run(tmp_path / "new", d=object())
    assert (tmp_path / "new" / "run.json").read_text() == text


def test_tables_are_kept_as_they_print(tmp_path):
    net = hg.Chain(hg.Conv(2, 3), hg.Relu(), hg.Flatten(), hg.Dense(3))
    check = Report(1.0, (Row("w", (2,), 1e-16, 0.1, 2.0, 3, 0, "manual"),))
    found = {"layers": hg.summary(net, (5, 4, 1)), "ledger": hg.ledger(net, (5, 4, 1), temporary=False), "check": check}
    note_run(tmp_path, **found)
    for name, record in read_run(tmp_path).facts.items():
        printed = [line.split() for line in str(found[name]).splitlines()]
        rows = [" ".join(row).split() for row in [*record["cells"], *([text] for text in record.get("verdict", ()))]]
        start = printed.index(rows[0])
        assert printed[start : start + len(rows)] == rows
        assert len(record["sides"]) == len(record["cells"][0])
    assert read_run(tmp_path).facts["check"]["ok"] is False


def test_the_test_is_kept_with_its_first_wrong_images(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(90, 3, 2, 1)).astype("float32"), np.zeros(90, int)
    logits = np.eye(2)[(np.arange(90) >= 10).astype(int)]
    note_test(tmp_path, x, y, logits)
    test = read_run(tmp_path).test
    assert test is not None and np.array_equal(test.wrong, np.arange(10, 10 + KEPT_IMAGES))
    assert np.array_equal(test.images, x[10 : 10 + KEPT_IMAGES]) and np.array_equal(test.logits, logits)
    with pytest.raises(ValueError, match=r"wants x \(n, H, W, C\), y \(n,\) and logits \(n, K\), got \(90, 3, 2, 1\)"):
        note_test(tmp_path, x, y, logits[:5])


def test_fit_notes_what_it_knows_and_keeps_what_others_noted(tmp_path):
    net, x, y = hg.Chain(hg.Dense(2)), np.eye(4, dtype="float32"), np.array([0, 1, 0, 1])
    step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy(), l2=0.5), hg.sgd(0.1))
    start = hg.init_train_state(net, hg.sgd(0.1), jax.random.key(0), (4,))
    note_run(tmp_path, data="corners")
    hg.fit(start, step, x, y, batch_size=2, epochs=1, run_dir=tmp_path, progress=False, validation=(x[:3], y[:3]))
    facts = read_run(tmp_path).facts
    wanted = {"data": "corners", "net": "Chain(Dense(2))", "l2": 0.5, "parameters": 10, "examples": 4, "in_shape": [4]}
    assert facts.items() >= (wanted | {"validation": 3, "batch_size": 2, "epochs": 1, "seed": 0}).items()
    assert facts["jax"] == jax.__version__ and facts["device"] == "cpu"
    assert len(read_run(tmp_path).history["loss"]) == 2 and read_run(tmp_path).test is None
