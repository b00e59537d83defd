"""The subcommands of `paychan`, a module for each kind of user. Each has `register(subparsers)`."""
