"""Facts of the host that a plan depends on: what it allows, who calls, which images there are. Linux only."""
