"""Names of dimensions and values ↔ the small integers that label rows carry."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dpdau.activity.labels import DIMENSION_VALUES_MAX, DIMENSIONS_MAX, LABELS, from_rows
from dpdau.activity.manifest import Manifest
from dpdau.activity.runs import Run, merge_runs
from dpdau.domain import EventBatch
from dpdau.errors import StoreUnavailableError


class NewLabels:
    """Codes for the dimensions and values of one commit; new ones are stored with it."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._dimensions: dict[str, int] | None = None
        self._new_dimensions: list[tuple[int, str]] = []
        self._new_values: dict[tuple[int, str], int] = {}

    @property
    def are_some(self) -> bool:
        """Whether there is something new to be stored."""
        return bool(self._new_dimensions or self._new_values)

    def dimension(self, name: str) -> int:
        """The id of a dimension.

        Raises:
            StoreUnavailableError: The store has no room for it; nothing of the commit is applied.
        """
        if self._dimensions is None:
            self._dimensions = self._manifest.dimensions()
        if name not in self._dimensions:
            if len(self._dimensions) >= DIMENSIONS_MAX:
                raise StoreUnavailableError(
                    f"Expected at most {DIMENSIONS_MAX} dimensions in one store, found one more."
                )
            self._dimensions[name] = len(self._dimensions)
            self._new_dimensions.append((self._dimensions[name], name))
        return self._dimensions[name]

    def codes(self, dimension: int, values: Mapping[int, str], size: int) -> NDArray[np.int32]:
        """(size,) int32: index in the batch → code in the store, -1 where a value is not used.

        Raises:
            StoreUnavailableError: The store has no room; nothing of the commit is applied.
        """
        added = sum(1 for one, _ in self._new_values if one == dimension)
        code = self._manifest.next_code(dimension) + added
        table = np.full(size, -1, dtype=np.int32)
        for index, value in values.items():
            known = self._new_values.get((dimension, value))
            if known is None:
                known = self._manifest.value_code(dimension, value)
            if known is None:
                if code >= DIMENSION_VALUES_MAX:
                    raise StoreUnavailableError(
                        f"Expected at most {DIMENSION_VALUES_MAX} values of a dimension, found "
                        "one more."
                    )
                known = self._new_values[dimension, value] = code
                code += 1
            table[index] = known
        return table

    def store(self) -> None:
        """Writes the new ones, in the transaction of the batch."""
        for id_, name in self._new_dimensions:
            self._manifest.add_dimension(id_, name)
        for (dimension, value), code in self._new_values.items():
            self._manifest.add_value(dimension, code, value)


def label_run(batch: EventBatch, keep: NDArray[np.bool_], new_labels: NewLabels) -> Run:
    """The labels that the kept `+` rows of a batch bring, in arrival order."""
    run: Run = {}
    for name in sorted(batch.labels):
        local = batch.labels[name]
        usable = keep & batch.add & (local.codes >= 0)
        if not usable.any():
            continue
        dimension = new_labels.dimension(name)
        used = {int(code): local.values[code] for code in np.unique(local.codes[usable])}
        table = new_labels.codes(dimension, used, len(local.values))
        rows = from_rows(
            pseudonym=batch.pseudonym[usable],
            day=batch.day[usable],
            code=table[local.codes[usable]],
            dimension=dimension,
        )
        run = merge_runs(LABELS, run, rows)
    return run
