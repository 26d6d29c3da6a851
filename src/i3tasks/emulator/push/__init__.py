"""Push subscriptions of the emulator: the pace, content, signing and sending of pushes."""
