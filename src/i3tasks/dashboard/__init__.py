"""The board: pages for staff that show running, waiting and failed executions and act on them. See docs/board.md."""
