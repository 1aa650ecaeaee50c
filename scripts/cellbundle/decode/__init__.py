"""From what a network predicts to instances."""
