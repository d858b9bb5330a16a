"""Estimates of how much each domain gains from the others: a vector over domains, larger where crossing domains helps more."""
