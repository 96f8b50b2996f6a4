"""Options, messages and exit codes of the commands; `circuitsim.commands.main` lists them."""
