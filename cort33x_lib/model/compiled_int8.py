"""The product of an int8 matrix and a few vectors, compiled by numba."""

import numpy as np
from numba import njit, prange


@njit(cache=True, nogil=True, parallel=True, fastmath=True, error_model="numpy")
def multiply_rows(
    x: np.ndarray, numbers: np.ndarray, scales: np.ndarray, product: np.ndarray
) -> None:
    """Write x @ (numbers * scales).T: (B, K), (N, K) int8, (N,), (B, N).

    Each int8 row is read once and widened in registers; cores share the rows.
    """
    for row in prange(len(numbers)):
        for place in range(len(x)):
            total = np.float32(0)
            for k in range(numbers.shape[1]):
                total += np.float32(numbers[row, k]) * x[place, k]
            product[place, row] = total * scales[row]
