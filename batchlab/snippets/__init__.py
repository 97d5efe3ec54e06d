"""The recommended setting as a few lines in other libraries, and numbers as people write them."""
