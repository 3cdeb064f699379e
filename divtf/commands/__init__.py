"""The bodies of the commands: flags, and what each command does with them."""
