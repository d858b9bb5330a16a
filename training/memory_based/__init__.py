"""Recommenders without a training loop: fitted in one pass over the training events, they score as `training.ranking` asks."""
