"""Histories -> candidates per domain: catalogue, ONNX Runtime, micro-batches, popularity."""
