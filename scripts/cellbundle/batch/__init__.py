"""Many images: find them, segment them, write their results, go on after an interruption."""
