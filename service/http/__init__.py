"""The door: FastAPI, JSON and problem documents; no rules of recommendation."""
