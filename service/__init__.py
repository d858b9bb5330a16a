"""The HTTP service: histories from Redis, top-k items per domain from ONNX Runtime."""
