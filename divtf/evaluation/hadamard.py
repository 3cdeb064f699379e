"""Regular Hadamard matrices: orthogonal directions equally aligned with a gradient (paper, section 4.4)."""

import numpy as np

from divtf.errors import require

ORDERS = (4, 16, 36, 64)


def regular_hadamard(order: int) -> np.ndarray:
    """Regular Hadamard matrix H: entries +-1, H H^T = k I, every row and column sums to +sqrt(k).

    Args:
        order: k, one of 4, 16, 36, 64; any other raises ValueError.

    Returns:
        int8 array [k, k], symmetric.
    """
    why = "Hadamard orders are 1, 2 or multiples of 4, regular ones 4 u^2: the paper's k = 25 has no matrix"
    require(order in ORDERS, "one of {4, 16, 36, 64}", order=f"{order}. {why}")
    if order == 36:
        # The 36 cells of a 6 x 6 Latin square, adjacent if they share row, column or symbol, are a strongly
        # regular graph (36, 15, 6, 6): A^2 = 9 I + 6 J and A J = 15 J, so (J - 2A)^2 = 36 I, row sum 6
        # (Goethals and Seidel, 1970, "Strongly regular graphs derived from combinatorial designs").
        row, column = np.divmod(np.arange(36), 6)
        lines = np.stack([row, column, (row + column) % 6])
        adjacent = (lines[:, :, None] == lines[:, None, :]).any(axis=0) & ~np.eye(36, dtype=bool)
        return np.where(adjacent, -1, 1).astype(np.int8)
    four = 1 - 2 * np.eye(4, dtype=np.int8)
    # The Kronecker product of two regular Hadamard matrices is one too.
    return four if order == 4 else np.kron(four, regular_hadamard(order // 4))


def stretched_rows(order: int, dimensions: int) -> np.ndarray:
    """Rows of H, each entry repeated over floor(D / k) neighbours, then D mod k zeros: float32 [k, D]."""
    rows = regular_hadamard(order).astype(np.float32)
    require(dimensions >= order, "dimensions >= order", dimensions=dimensions, order=order)
    return np.pad(np.repeat(rows, dimensions // order, axis=1), ((0, 0), (0, dimensions % order)))
