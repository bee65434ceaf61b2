"""UltraLight as a transformers pipeline: queries in, the runtime predictor's answers out.

    pipe = pipeline("implicit-label-prediction", model="outputs/car_queries", trust_remote_code=True)
    pipe("刚拿本，最好自己会倒库")  # label -> value: {"智能配置": "智能驾驶", "使用人群": "新手"}

Travels to the Hub with the weights: imports the configuration and nothing else of the project, and loads with
transformers 4.57 and 5 alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding, Pipeline

try:  # inside a package: how transformers loads remote code
    from .configuration_ultralight import DEFAULT_THRESHOLD, custom_pipelines
except ImportError:  # as a top-level file
    from configuration_ultralight import DEFAULT_THRESHOLD, custom_pipelines


class ImplicitLabelPipeline(Pipeline):
    """Says for every label which value a query implies, or that it implies none, as `UltraLightPredictor` does.

    Takes a query, a list, a generator or a dataset of queries. Options, here or in a call: `include_none` also returns the
    labels that the query implies no value for, `return_scores` returns `{"value": ..., "score": ...}` per label.

    Args:
        model: an `UltraLightForImplicitLabelPrediction`, or Optimum's `ORTModelForSequenceClassification` over one of its graphs.
        tokenizer: the model's tokenizer.
        kwargs: as any `Pipeline`.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, model: Any, tokenizer: Any, **kwargs: Any) -> None:
        super().__init__(model=model, tokenizer=tokenizer, **kwargs)
        # `pipeline()` has put classes in place of their names there, and no file could hold those.
        model.config.custom_pipelines = custom_pipelines()

    def _sanitize_parameters(
        self, include_none: bool | None = None, return_scores: bool | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {"include_none": include_none, "return_scores": return_scores}
        return {}, {}, {name: value for name, value in given.items() if value is not None}

    def preprocess(self, query: str) -> BatchEncoding:
        """Token ids of a query (1, seq_len).

        Raises:
            TypeError: `query` is not a string.
        """
        if not isinstance(query, str):
            raise TypeError(f"a query is {type(query).__name__}, not a string: {query!r}")
        return self.tokenizer(query, truncation=True, max_length=self.model.config.max_seq_length, return_tensors="pt")

    def _forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if isinstance(self.model, torch.nn.Module):
            return {"logits": self.model(**batch).logits}
        # An ONNX graph reads every query on its own, and no padding: a graph that was quantised elsewhere may scale a whole
        # batch by its largest activation, so that the neighbours of a query would change its answer.
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        rows = [{name: tensor[row : row + 1, :length] for name, tensor in batch.items()} for row, length in enumerate(lengths)]
        return {"logits": torch.cat([self.model(**row).logits for row in rows])}

    def postprocess(self, output: dict[str, torch.Tensor], include_none: bool = False, return_scores: bool = False) -> dict[str, Any]:
        """What the logits of one query (1, sum of values) say: label -> value."""
        probabilities = 1 / (1 + np.exp(-output["logits"][0].float().numpy()))
        config, answer, start = self.model.config, {}, 0
        for label, values in config.label_schema:
            within = probabilities[start : start + len(values)]
            absent = float(within[0]) >= config.thresholds.get(label, DEFAULT_THRESHOLD)
            chosen = 0 if absent else 1 + int(within[1:].argmax())
            if chosen or include_none:
                score = round(float(within[chosen]), 6)
                answer[label] = {"value": values[chosen], "score": score} if return_scores else values[chosen]
            start += len(values)
        return answer
