"""The one training loop, its optimizers, losses, devices and backends."""
