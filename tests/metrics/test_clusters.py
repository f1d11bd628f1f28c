import tracemalloc

import numpy as np
import pytest
import torch

from autorater.data.messages import Message
from autorater.metrics.clusters import as_values, cluster_numbers, rows_by_number


@pytest.mark.parametrize(
    "values",
    [
        [3, 1, 3, -2],
        np.array([2.5, 0.5, 2.5]),
        ["b", "a", "b", "Ä"],
        np.array(["b", "a"]),
        [(1, "x"), (0, "y"), (1, "x")],
        torch.tensor([7, 5, 7]),
    ],
)
def test_clusters_are_numbered_in_order(values):
    numbers = cluster_numbers(values)
    values = as_values(values)
    assert numbers.tolist() == [sorted(set(values)).index(value) for value in values]


def test_clusters_need_no_order_and_no_width():
    """What cannot be sorted is numbered as it comes; a text does not take the memory of the longest one."""
    first, second = (Message("user", "so"),), (Message("user", "so"), Message("assistant", "no"))
    assert cluster_numbers([second, first, second]).tolist() == [1, 0, 1]
    assert cluster_numbers([None, "so", None]).tolist() == [0, 1, 0]
    tracemalloc.start()
    cluster_numbers([*map(str, range(1000)), "long " * 20_000])
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    with pytest.raises(ValueError, match="unhashable type: 'list'; expected one hashable value per row"):
        cluster_numbers([[1, 2], [3, 4]])


def test_rows_by_number():
    numbers = np.array([2, 0, 2, 5, 0])
    assert [rows.tolist() for rows in rows_by_number(numbers)] == [[1, 4], [0, 2], [3]]
    assert [rows.tolist() for rows in rows_by_number(np.array([7]))] == [[0]]
