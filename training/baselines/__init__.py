"""Trained baselines: their configs, losses and weightings; the loop, batches and evaluation are SyNCRec's."""
