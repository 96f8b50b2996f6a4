"""The command of a campaign that draws a figure: its options are the campaign's fields."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim.commands import campaign, cli

if TYPE_CHECKING:
    from circuitsim.running.campaign import Campaign, Groups


class FigureCommand:
    """The command of a registered campaign.

    Parameters
    ----------
    kind : str
        The campaign's name.
    help, description : str
        What the command does, in one line and in full.
    above, how : sequence of str
        Fields whose options stand before those of the model, and among those of how it is run.
    subset : callable, optional
        As in `campaign.Offer`, for the fields ``above``.
    """

    OPTIONS = campaign.OPTIONS

    def __init__(
        self,
        kind: str,
        help: str,
        description: str = "",
        above: tuple[str, ...] = (),
        how: tuple[str, ...] = (),
        subset: Callable[[argparse.Namespace, Campaign[Any], Groups], Any] | None = None,
        files: str = "",
    ) -> None:
        self.HELP, self.DESCRIPTION = help, description or help
        self._kind, self._above, self._how, self._subset = kind, above, how, subset
        self._files = files or f"{kind}.*"

    def _class(self) -> type[Campaign[Any]]:
        from circuitsim.studies.registry import KINDS

        return KINDS[self._kind]

    def add_options(self, p: argparse.ArgumentParser) -> None:
        """Add the command's options."""
        from circuitsim.checks import fields
        from circuitsim.commands import options

        of = self._class()
        apart = (*self._above, *self._how)
        options.add(p, of, self._above)
        model = p.add_argument_group("model")
        options.add(model, of, [name for name in fields.declared(of) if name not in apart])
        how = p.add_argument_group("how to run it")
        options.add(how, of, self._how)
        campaign.add_options(p, how, self._files, things=of.things)

    def body(self, options: argparse.Namespace) -> int:
        """Run the command; return its exit code."""
        offer = campaign.Offer(
            self, [self._kind], self._campaigns, f"circuitsim {self._kind}", _written,
            subset=self._subset, beside=self._above,
        )  # fmt: skip
        return campaign.body(options, offer)

    def _campaigns(self, options: argparse.Namespace) -> list[tuple[Campaign[Any], Path]]:
        from circuitsim.commands.options import chosen

        of = self._class()
        made = with_code(of(**chosen(of, options)))
        cli.check_memory(made)
        return [(made, campaign.figures(options) / f"{made.file_name}.nc")]


def with_code(made: Any) -> Any:
    """Return a campaign that says what "auto" means here for the code of its engine.

    What cannot work is said before anything starts; and files and captions say what was used.
    """
    from circuitsim.engines import registry

    if not hasattr(made, "codegen"):
        return made
    engine = getattr(made, "engine", None) or made.study.engine
    return replace(made, codegen=registry.get(engine, made.codegen).codegen)


def _written(made: Campaign[Any]) -> list[str]:
    from circuitsim.commands.options import written

    return written(made)
