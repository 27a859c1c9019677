"""The subcommands of `collector`: options and output; the work is done elsewhere."""
