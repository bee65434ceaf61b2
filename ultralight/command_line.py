"""What all scripts share: exit codes, errors in one line, Ctrl-C, `--quiet`, `--debug` and the form of `--help`.

Needs the standard library only, so that a script can start here and load what takes seconds afterwards.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn, TypeVar

from ultralight.problems import CheckError, InputError

Parser = TypeVar("Parser", bound=argparse.ArgumentParser)

DONE, FAILED_CHECK, MISTAKE, INTERRUPTED = 0, 1, 2, 128 + signal.SIGINT
EXIT_CODES = """\
exit codes: 0 done; 1 a check or a push failed, what was made is kept; 2 a mistake in flags, settings or files; 130 interrupted.
The result goes to standard output, all else to standard error."""
# What each library calls when it is to show no bars; of use where it was imported before the flags were read.
_BAR_SWITCHES = (
    ("datasets", "disable_progress_bars"),
    ("huggingface_hub.utils", "disable_progress_bars"),
    ("transformers.utils.logging", "disable_progress_bar"),
)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description, and shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False or action.default == []
        return action.help if silent else super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """The spelling that YAML files have, too, where there are two."""
        if len(action.option_strings) < 2 or action.option_strings[0] == "-h":
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{action.option_strings[0]} {value}".rstrip()


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser whose help keeps the line breaks of `description`; `add_output_flags` comes when it has its own flags."""
    return argparse.ArgumentParser(description=description, formatter_class=HelpFormatter)


def add_output_flags(parser: Parser) -> Parser:
    """Adds `--quiet` and `--debug`, and tells the exit codes at the end of the help."""
    group = parser.add_argument_group("output")
    group.add_argument("--quiet", action="store_true", help="only warnings, errors and the result; no progress bars")
    group.add_argument("--debug", action="store_true", help="show the stack trace of an error, too")
    parser.epilog = EXIT_CODES
    return parser


def run_command(main: Callable[[], None], after_interrupt: str = "") -> NoReturn:
    """Runs a script and ends the process: a user's mistake or a failed check becomes one message, not a stack trace.

    Args:
        main: reads the flags, acts, prints the result.
        after_interrupt: what a user who stopped it may want to know.
    """
    flags, _ = add_output_flags(argparse.ArgumentParser(add_help=False)).parse_known_args()
    _set_up_output(flags.quiet)
    code = DONE
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
        _complain("interrupted" + (f"; {after_interrupt}" if after_interrupt else ""), flags.debug)
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except CheckError as error:
        code = FAILED_CHECK
        _complain(f"error: {error}", flags.debug)
    except (InputError, OSError) as error:
        code = MISTAKE
        _complain(f"error: {_describe(error)}", flags.debug)
    sys.exit(code)


def _set_up_output(quiet: bool) -> None:
    """Messages to standard error; no bars where they would not be seen or are not wanted."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("ultralight").setLevel(logging.WARNING if quiet else logging.INFO)
    # Tokenising processes would print a stack trace each; the one that waits for them ends them.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    if quiet or not sys.stderr.isatty():
        os.environ.update(TQDM_DISABLE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
        for name, switch in _BAR_SWITCHES:
            if name in sys.modules:
                getattr(sys.modules[name], switch)()


class _Formatter(logging.Formatter):
    """Warnings say that they are; what merely informs stands for itself."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return prefix + super().format(record)


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _complain(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    # The bar that was under way stands on the line.
    print(("\n" if sys.stderr.isatty() else "") + message, file=sys.stderr)
