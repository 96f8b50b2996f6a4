"""What all commands share: how they speak of errors, and how they end."""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import io
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from circuitsim.checks import interrupts
from circuitsim.commands import waiting
from circuitsim.processwide import ignore_local_preferences, tell_unless_starved

if TYPE_CHECKING:
    from circuitsim.running.campaign import Campaign

EXIT_FAILED = 1  # the machine's failure, or a part of the work that failed
EXIT_USER = 2  # the user's mistake
EXIT_INTERRUPTED = 130  # of other signals that end a command: 128 and the signal's number


# Options without effect on numbers, with how many words they take: no result records them.
_HOW = {"--cells": 1, "--jobs": 1, "--keep": 0, "--merge": 0, "--overwrite": 0, "--retry-failed": 0,
        "--scheduler": 1, "--scheduler-file": 1, "--workers": 1}  # fmt: skip

_LIMITS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of this disk is used up",
    errno.EFBIG: "a file would be larger than files may be here (ulimit -f)",
}


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Gives the defaults that say something: None stands for what the help says in words."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        if isinstance(action.default, list):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one message."""

    beside: Mapping[str, Parser] = {}  # commands of one kind by their names, this one among them

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is unknown here, where it is known which command was given."""
        commands = self._commands()
        for parser in commands.values():
            parser.beside = commands
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Print the message alone, without the usage, and exit."""
        message = self._improved(message)
        self.exit(EXIT_USER, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def _improved(self, message: str) -> str:
        """Say what an option takes, in the words of other messages, and which one was meant."""
        wrong = re.fullmatch(r"argument (.+): invalid (int|float) value: '(.*)'", message)
        if wrong:
            option, kind, given = wrong.groups()
            rule = "must be a whole number" if kind == "int" else "must be a number"
            if re.fullmatch(r"[-+.\de]+(,[-+.\de]+)+", given):
                rule += "; it has a decimal point, and several are separated by spaces"
            elif re.fullmatch(r"[-+.\de]+ *m?s", given):
                rule += " of ms, without the unit"
            return f"{option} {given}: {rule}"
        unknown = re.fullmatch(r"unrecognized arguments: ((-\S+).*)", message, re.DOTALL)
        if unknown:
            return message + self._meant(unknown[2].partition("=")[0])
        commands = self._commands()
        if commands and message == "the following arguments are required: COMMAND":
            return f"needs a command: {', '.join(commands)}"
        chosen = re.match(r"argument COMMAND: invalid choice: '(.*)' \(", message, re.DOTALL)
        if commands and chosen:
            from circuitsim.checks.names import nearest

            near = nearest(chosen[1], commands)
            meant = f"; did you mean {near}?" if near else ""
            return f"{chosen[1]}: no command; there are {_listed([*commands], 'and')}{meant}"
        return message

    def _meant(self, word: str) -> str:
        """What to say of a word that is no option here."""
        from circuitsim.checks.names import nearest

        commands = self._commands()
        known = [name for name, p in (commands or self.beside).items() if word in p.options()]
        if known and commands:
            return f"; {word} stands after the command, which may be {_listed(known, 'or')}"
        name = word.lstrip("-").lower()
        bare = [a for a in self._actions if not a.option_strings and a.dest == name]
        if bare:
            return f"; {bare[0].metavar} is given without a name before it"
        near = nearest(name, [option.strip("-") for option in self.options()])
        if near and (not known or near == name):
            return f"; did you mean --{near}?"
        return f"; {word} is an option of {_listed(known, 'and')} only" if known else ""

    def options(self) -> list[str]:
        """Return the names of all options."""
        return [o for a in self._actions for o in a.option_strings if o[:2] == "--"]

    def _commands(self) -> dict[str, Parser]:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
        return {}


def _listed(names: list[str], word: str) -> str:
    """``a, b and c``."""
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


class Stopped(BaseException):
    """A signal that ends a process was received, its first argument."""


class UsageError(Exception):
    """A mistake of the user's that is not about a parameter of the model."""


class Command(Protocol):
    """What a command's module has."""

    HELP: str  # one line, for the list of commands
    DESCRIPTION: str

    def add_options(self, p: argparse.ArgumentParser) -> None:
        """Add the command's options to a parser."""

    def body(self, options: argparse.Namespace) -> int:
        """Run the command; return its exit code."""


def parser(command: Any, prog: str) -> Parser:
    """Return the parser of a command's options."""
    made = Parser(prog=prog, description=command.DESCRIPTION)
    command.add_options(made)
    return made


@interrupts.receiving()
def run(command: Any, prog: str, arguments: list[str] | None = None) -> int:
    """Run a command and turn whatever happens into a message and an exit code.

    Parameters
    ----------
    command : module
        See `Command`. It may have ``OPTIONS``, from names of parameters to the options that set
        them, where they differ. It imports what is slow to import only when it is called, so that
        an interrupt is met here at any time.
    prog : str
        How it was called.
    arguments : list of str or None
        Those of the process if None.

    Returns
    -------
    int
        Exit code.
    """
    _open_streams()
    kept: list[Callable[[], str]] = []
    # The collector need not look at all that was imported once more before the process ends, which
    # takes most of a second.
    atexit.register(gc.freeze)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files that are no UTF-8
    previous, hook = _handle_termination(), threading.excepthook
    if threading.current_thread() is threading.main_thread():
        threading.excepthook = tell_unless_starved
    preferences = ignore_local_preferences()
    try:
        made = parser(command, prog)
        waiting.clear()
        parsed = made.parse_args(arguments)
        given = sys.argv[1:] if arguments is None else arguments
        parsed.prog = prog
        parsed.command_line = recorded(prog, given)
        parsed.kept = kept  # gives what to say of finished work, if the command is stopped
        interrupts.check()
        return command.body(parsed)
    except KeyboardInterrupt:
        _say(prog, "interrupted" + _told(kept))
        # One that has passed through a library's `exec` of a text counts as unhandled for Python,
        # which then ends by the signal whatever is returned here; another `exec` forgets it.
        exec("")
        return EXIT_INTERRUPTED
    except Stopped as stopped:
        (number,) = stopped.args
        _say(prog, f"stopped by {number.name}" + _told(kept))
        return 128 + int(number)
    except UsageError as error:
        _say(prog, f"error: {error}")
        return EXIT_USER
    except BrokenPipeError:
        # Whoever read the output has left; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package == "circuitsim":
            raise
        _say(
            prog,
            f"error: {sys.executable} has no {package}, which circuitsim needs; install it there "
            "with `pip install .` in its checkout, or use the Python of its environment",
        )
        return EXIT_FAILED
    except (ImportError, OSError) as error:
        # A library that is there does not fit into memory; LLVM's says so at length.
        if isinstance(error, ImportError) or "shared object" in str(error):
            why = str(error).partition(". ")[0]
            text = f"error: a library cannot be loaded ({why}); is there memory enough?"
            _say(prog, text + _told(kept))
            return EXIT_FAILED
        what = _LIMITS.get(error.errno or 0) or error.strerror or str(error)
        where = f"{error.filename}: " if error.filename else ""
        _say(prog, f"error: {where}{what}" + _told(kept))
        return EXIT_FAILED
    except MemoryError:
        _say(prog, "error: out of memory; ask for less at a time" + _told(kept))
        return EXIT_FAILED
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        _say(
            prog,
            "error: no thread can be started here: memory or processes are limited" + _told(kept),
        )
        return EXIT_FAILED
    except (ValueError, TypeError, FloatingPointError) as error:
        message = _parameter_message(error, getattr(command, "OPTIONS", {}))
        if message is None:
            raise
        _say(prog, f"error: {message}")
        return EXIT_USER
    finally:
        waiting.clear()
        ignore_local_preferences(preferences)
        for number, handler in previous.items():
            signal.signal(number, handler)
        if threading.excepthook is tell_unless_starved:
            threading.excepthook = hook


def recorded(prog: str, given: Sequence[str]) -> str:
    """Return a command as results record it: what makes the same numbers again.

    Examples
    --------
    >>> recorded("sweep", ["--jobs", "2", "--k", "3", "--overwrite", "--jobs=3"])
    'sweep --k 3'
    """
    words = [*prog.split()]
    left_out = 0
    for word in given:
        name, sign, _ = word.partition("=")
        if name in _HOW:
            left_out = 0 if sign else _HOW[name]
        elif left_out:
            left_out -= 1
        else:
            words.append(word)
    return shlex.join(words)


def _open_streams() -> None:
    """Open what a parent has closed of the three streams, or workers would meet other files there.

    Nobody reads what is written to them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)  # which processes that are started inherit
            if nowhere > number:
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _handle_termination() -> dict[signal.Signals, Any]:
    """Let SIGTERM, and SIGHUP of a terminal that is closed, end the command with a message.

    Returns the handlers there were. Only the main thread can ask for that.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, _stop) for number in numbers}
    return {number: handler for number, handler in before.items() if handler is not None}


def check_new(path: Path, content: bytes, overwrite: bool, option: str) -> None:
    """Refuse to replace a file that holds something else, unless that was asked for.

    Raises
    ------
    UsageError
        If it would be replaced.
    """
    if path.exists() and not overwrite and path.read_bytes() != content:
        raise UsageError(
            f"--{option} {path}: holds something else; name another, or give --overwrite to "
            "replace it"
        )


def jobs(given: int | None, name: str = "jobs") -> int:
    """Return how many processes or threads to use: as many as given, or as there are cores.

    ``name`` is that of the option.
    """
    from circuitsim.checks.validation import integer
    from circuitsim.running.local import available_cores

    if given is None:
        return available_cores()
    return min(integer(name, given, minimum=1), 256)


def check_memory(campaign: Campaign[Any]) -> None:
    """Refuse a campaign whose result would not fit into this machine's memory."""
    from circuitsim.checks.validation import ParameterError

    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name, needed in campaign.memory().items():
        if needed > available:
            raise ParameterError(
                name,
                f"needs about {needed / 1e9:.3g} GB of memory, and this machine has "
                f"{available / 1e9:.3g}; ask for less at a time",
                getattr(campaign, name),
            )


def refuse_beside(options: argparse.Namespace, command: Any, chosen: str, *allowed: str) -> None:
    """Refuse options that would be ignored beside one that the user chose.

    Raises
    ------
    UsageError
        If an option other than those ``allowed`` differs from its default.
    """
    for action in parser(command, "")._actions:
        name = action.dest
        given = getattr(options, name, action.default)
        hidden = action.default == argparse.SUPPRESS  # another name of an option
        if hidden or name in (chosen, *allowed, "help", "version"):
            continue
        if given != action.default:
            raise UsageError(
                f"{action.option_strings[0]} has no effect with --{chosen}: leave one of them out"
            )


def _stop(number: int, _frame: Any) -> NoReturn:
    interrupts.receive(Stopped(signal.Signals(number)))


def _told(kept: list[Callable[[], str]]) -> str:
    try:
        return "".join(f"; {text}" for text in (tell() for tell in kept) if text)
    except (OSError, MemoryError):  # as what ended the command
        return ""


def _say(prog: str, message: str) -> None:
    with suppress(OSError):  # the terminal is gone
        waiting.clear()
        print(f"{prog}: {message}", file=sys.stderr)


def _parameter_message(error: Exception, options: Mapping[str, str]) -> str | None:
    """``--alpha 70: Euler with ...`` for an error about a parameter, None for other errors."""
    from circuitsim.checks.validation import ParameterError, shown
    from circuitsim.checks.values import Milliseconds, in_ms

    if not isinstance(error, ParameterError):
        return None
    name = error.parameter.rsplit(".", 1)[-1]
    option = options.get(name, f"--{name.replace('_', '-')}")
    values: Any = error.value if isinstance(error.value, tuple | list) else [error.value]
    values = [] if error.value is None else values

    def is_time(value: Any) -> bool:
        return isinstance(value, Milliseconds) or hasattr(value, "dim")

    given = [
        v if isinstance(v, str) else f"{in_ms(v):g}" if is_time(v) else shown(v) for v in values
    ]
    return f"{option} {' '.join(given)}".strip() + f": {as_options(error.rule)}"


def as_options(text: str) -> str:
    """Give what Python calls ``codegen='numpy'`` as ``--codegen numpy``."""
    return re.sub(r"\b(engine|codegen)='(\w+)'", r"--\1 \2", text)
