"""Exports a trained model folder to ONNX and INT8: `python export.py --model outputs/car_queries`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from configuration_ultralight import UltraLightConfig
from ultra_light_predictor import INT8_GRAPH
from ultralight.dataset import load_splits, verification_queries
from ultralight.onnx_export import ExportError, export_folder, summarize_operators
from ultralight.problems import InputError
from ultralight.schema import LabelSchema
from ultralight.settings import ARCHITECTURES


def parse_arguments() -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(
        description="Writes MODEL/onnx/model.onnx and MODEL/onnx/model_quantized.onnx, after checking on validation queries that"
        " fp32 ONNX equals PyTorch and that INT8 decides as fp32 on at least 99 % of the labels.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="folder of a trained model")
    parser.add_argument("--dataset", help="queries to check on, in any form that train.py reads; default: what the model was trained on")
    parser.add_argument(
        "--architecture",
        choices=ARCHITECTURES,
        default="avx512_vnni",
        help="processor that the INT8 graph is made for; it runs on the others too",
    )
    parser.add_argument("--no_quantize", action="store_true", help="write the fp32 graph only")
    return parser.parse_args()


def main() -> None:
    """Exports, verifies and says what was written."""
    arguments = parse_arguments()
    try:
        if not (Path(arguments.model) / "config.json").is_file():
            raise InputError(f"--model {arguments.model}: no config.json there; accepted: a folder that train.py wrote")
        config = UltraLightConfig.from_pretrained(arguments.model)
        facts = config.training_facts
        dataset = arguments.dataset or facts.get("dataset")
        if dataset is None or config.label_schema is None:
            raise InputError(f"--model {arguments.model}: it does not say what it was trained on; name queries to check on with --dataset")
        splits, _ = load_splits(
            dataset,
            LabelSchema.from_dict(dict(config.label_schema), arguments.model),
            split_seed=facts.get("split_seed", 42),
            contradictions="first",
        )
        report = export_folder(
            arguments.model, verification_queries(splits), quantize=not arguments.no_quantize, architecture=arguments.architecture
        )
    except (InputError, ExportError) as error:
        sys.exit(f"error: {error}")
    print(f"fp32: logits differ from PyTorch's by at most {report.fp32_difference:.1e}")
    if report.int8_agreement is not None:
        graph = Path(arguments.model) / INT8_GRAPH
        print(f"INT8: decides as fp32 on {report.int8_agreement:.2%} of the labels, {report.quantized_operators} operators quantised")
        print(f"{graph}: {graph.stat().st_size / 1e6:.2f} MB, {sum(summarize_operators(graph).values())} nodes")


if __name__ == "__main__":
    main()
