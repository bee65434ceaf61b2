"""The project's own runtime, as it ships: ultra_light_predictor.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ultra_light_predictor import UltraLightPredictor


class Runtime:
    """Answers with onnxruntime.

    Args:
        folder: a model folder.
        threads: that work on a batch.
        quantize: the INT8 graph instead of the fp32 one.
        file: a file in the folder that holds the whole model.
    """

    def __init__(self, folder: Path, threads: int, quantize: bool = True, file: str = "") -> None:
        self._predictor = UltraLightPredictor(folder / file, quantize=quantize)
        self._threads = threads
        self.predict = self._predictor.predict

    def predict_batch(self, queries: Sequence[str]) -> list[dict[str, str]]:
        """Label -> value of each query."""
        return self._predictor.predict_batch(queries, num_workers=self._threads)
