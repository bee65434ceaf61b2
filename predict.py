"""Predicts queries with a trained model: `python predict.py "带娃露营，后备箱要大"`.

Needs onnxruntime, numpy and tqdm only (pyarrow too, for .parquet).
"""

from __future__ import annotations

import argparse
import json
import sys
from array import array
from collections.abc import Iterator
from itertools import tee
from pathlib import Path

import numpy as np

from ultra_light_predictor import UltraLightPredictor
from ultralight.command_line import add_output_flags, make_parser, run_command
from ultralight.problems import InputError
from ultralight.progress import progress
from ultralight.query_files import FORMATS, checked_queries, count_queries, open_output, read_queries, reference
from ultralight.report import write_metrics
from ultralight.schema import LabelSchema
from ultralight.scores import score

USAGE = """\
Says for every query which label values it implies: JSON lines with `query` and `labels`.

Files of any size pass through in constant memory; a file of answers appears when it is complete. Needs onnxruntime, numpy and tqdm
only (pyarrow, too, for .parquet), not torch.

examples:
  python predict.py "想要省油的七座车"
  python predict.py --model outputs/my_data --input queries.csv --output answers.jsonl
  python predict.py --input data/car_queries/test.jsonl --output answers.jsonl --metrics scores.json
  cat queries.txt | python predict.py --input - > answers.jsonl"""


def parse_arguments() -> argparse.Namespace:
    """Reads the flags."""
    parser = make_parser(USAGE)
    parser.add_argument("queries", nargs="*", metavar="QUERY", help="queries to predict")
    parser.add_argument("--model", help="model folder or ONNX file; default: the model of this repository")
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="read queries from a .txt (one a line, blank lines skipped), .jsonl, .csv or .parquet file, or - for standard input",
    )
    parser.add_argument("--format", choices=FORMATS, help="form of the input (default: by its name; txt for -)")
    parser.add_argument("--output", metavar="FILE", help="write the answers there, whole or not at all (default: standard output)")
    parser.add_argument("--metrics", metavar="FILE", help="also compare with the labels in the input and write the scores as JSON")
    parser.add_argument("--include_none", action="store_true", help="also show the labels that a query implies no value for")
    parser.add_argument("--scores", action="store_true", help="show each value with its probability")
    parser.add_argument("--fp32", action="store_true", help="use the fp32 graph instead of the INT8 one")
    parser.add_argument("--max_seq_length", type=int, help="cut queries to so many tokens (default: the model's length)")
    parser.add_argument("--num_workers", type=int, default=1, help="threads")
    arguments = add_output_flags(parser).parse_args()
    if bool(arguments.queries) == bool(arguments.input):
        parser.error("give queries, or --input FILE")
    if arguments.metrics and not arguments.input:
        parser.error("--metrics needs --input with labels")
    if arguments.num_workers < 1:
        parser.error("--num_workers: at least 1")
    return arguments


def predict_file(predictor: UltraLightPredictor, arguments: argparse.Namespace) -> None:
    """Streams a file through the model, in constant memory but for two bytes a label and query where metrics are asked for."""
    schema = LabelSchema.from_dict(predictor.label_schema, str(predictor.onnx_path))
    predictions, references = array("H"), array("H")
    # tee holds what the predictor has read ahead, no more.
    records, echo = tee(read_queries(arguments.input, arguments.format))
    answers = predictor.iter_predict(
        checked_queries(records), include_none=arguments.include_none, return_scores=arguments.scores, num_workers=arguments.num_workers
    )
    total = count_queries(arguments.input, arguments.format)
    # On the same terminal the bar would mix with the answers.
    hidden = arguments.output is None and sys.stdout.isatty()
    with open_output(arguments.output) as output:
        for record, answer in progress(zip(echo, answers, strict=False), "predicting", "queries", total, hidden):
            query = record.content["query"].strip()
            output.write(json.dumps({"query": query, "labels": answer}, ensure_ascii=False) + "\n")
            if arguments.metrics:
                references.extend(reference(record, schema))
                values = {label: value["value"] if arguments.scores else value for label, value in answer.items()}
                predictions.extend(schema.encode(values))
    if arguments.metrics:
        shape = (-1, len(schema.labels))
        scores = score(np.array(predictions).reshape(shape), np.array(references).reshape(shape), schema)
        write_metrics(Path(arguments.metrics), scores)


def answers_to(predictor: UltraLightPredictor, arguments: argparse.Namespace) -> Iterator[str]:
    """JSON lines for the queries of the command line."""
    for query in arguments.queries:
        labels = predictor.predict(query, include_none=arguments.include_none, return_scores=arguments.scores)
        yield json.dumps({"query": query, "labels": labels}, ensure_ascii=False)


def load(arguments: argparse.Namespace) -> UltraLightPredictor:
    """The model that the flags name.

    Raises:
        InputError: a file is missing or not what it should be, or the model cannot do what the flags ask for.
    """
    model = arguments.model or Path(__file__).parent
    try:
        return UltraLightPredictor(model, max_seq_length=arguments.max_seq_length, quantize=not arguments.fp32)
    except OSError as error:
        raise InputError(str(error)) from error
    except Exception as error:  # onnxruntime has many kinds, all for files that are not what their names say
        raise InputError(f"--model {model}: {error}") from error


def main() -> None:
    """Loads the model and predicts."""
    arguments = parse_arguments()
    predictor = load(arguments)
    if arguments.input:
        predict_file(predictor, arguments)
    else:
        for line in answers_to(predictor, arguments):
            print(line)


if __name__ == "__main__":
    run_command(main)
