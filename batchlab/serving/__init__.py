"""What a saved model needs to read raw rows; `batchlab_serving.py` travels inside every saved model."""
