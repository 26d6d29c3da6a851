"""The board: pages for staff that show what runs, waits and fails, and let them act. See docs/board.md."""
