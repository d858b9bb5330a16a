"""Events that come in: checked, each taken once, counted."""
