"""The tasks of the contestants, which import the peers."""
