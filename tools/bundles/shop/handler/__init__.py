"""The shop's handler: what runs in the sandbox when a tool of shop.v1.Orders is called."""
