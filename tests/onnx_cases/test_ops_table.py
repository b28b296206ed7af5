"""docs/ops.md is what its generator writes, and says of each op what a reader looks for."""

import numpy as np
import ops_table
import pytest
from node_cases import MODULES

from handgrad import ops


def test_the_committed_table_is_the_generated_one():
    assert ops_table.PATH.read_text(encoding="utf-8") == ops_table.table(), "docs/ops.md is stale: run `make ops`"


def test_each_op_has_facts_and_no_other_has():
    assert ops_table.FACTS.keys() == ops.RULES.keys()


def test_each_node_of_onnx_counts_once():
    facts = [*ops_table.FACTS.values(), *(facts for _, facts in ops_table.OTHERS.values())]
    nodes = [node for each in facts for node in each.nodes]
    assert sorted(nodes) == sorted(MODULES)


@pytest.mark.parametrize("name", ops.RULES)
def test_each_formula_is_one_of_y(name):
    formula = ops_table.formula(name, ops.RULES[name].op, ops_table.FACTS[name])
    assert formula.startswith("y") and "dx" not in formula


def test_an_op_without_facts_or_formula_is_an_error(monkeypatch):
    monkeypatch.setitem(ops.RULES, "mean", ops.Rule(np.mean, np.mean, np.mean))
    with pytest.raises(ValueError, match="FACTS has no line for mean"):
        ops_table.table()
    with pytest.raises(ValueError, match="the header of mean says on no line what y is"):
        ops_table.formula("mean", np.mean, ops_table.Facts("", ""))
